"""How fast the networks are beside those of other libraries: paired, interleaved, reported as ratios.

    python benchmarks/networks.py                 # about 15 minutes on 2 cores
    python benchmarks/networks.py --quick         # three pairs, small batches
    python benchmarks/networks.py --one-thread    # processor time of one thread, where others work

Each contestant lives in a process of its own and is run as its users would run it: a peer with its
defaults, Sfumato as its command line runs it (the heap kept). The two of a pair are timed in turn, A B B A
..., and the figure is the median of the ratios, so a slow minute of the machine hits both. Peers that are
not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.abc
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec

import torch
from torch import Tensor, nn

SIDE = 32
PEER = {
    "sample_size": SIDE,
    "block_out_channels": (64, 128, 128, 128),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}
"""diffusers' U-Net of 8.95 M parameters: DDPM-like, attention at 16 x 16, else its own defaults."""


@dataclass
class Contestant:
    network: nn.Module
    call: Callable[[Tensor, Tensor], Tensor]


def diffusers() -> Contestant:
    from diffusers import UNet2DModel

    network = UNet2DModel(**PEER)
    return Contestant(network, lambda x, t: network(x, t).sample)


def same() -> Contestant:
    """Our network with the settings (and so the arithmetic) of diffusers'."""
    from sfumato.interop.diffusers import config_from_diffusers
    from sfumato.networks import build

    keep()
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in PEER.items()}
    network = build(config_from_diffusers({"_class_name": "UNet2DModel", **settings}))
    return Contestant(network, network)


def base() -> Contestant:
    from sfumato.networks import build, preset

    keep()
    network = build(preset("base", channels=3, image_size=(SIDE, SIDE)))
    return Contestant(network, network)


def plain() -> Contestant:
    """The base preset without any attention."""
    from dataclasses import replace

    from sfumato.networks import build, preset

    keep()
    network = build(replace(preset("base", channels=3, image_size=(SIDE, SIDE)), attention=(), middle="none"))
    return Contestant(network, network)


class Told(nn.Module):
    """azula's U-Net wants the embedded time from its user: sinusoids and two layers, as in its tutorials."""

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network = network
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = t[:, None] * torch.logspace(0, -4, 32)
        return self.network(x, self.time(torch.cat([angle.sin(), angle.cos()], dim=1)))


def azula() -> Contestant:
    from azula.nn.unet import UNet

    unet = UNet(3, 3, hid_channels=(64, 128, 192), hid_blocks=(3, 2, 3), mod_features=256)
    network = Told(unet, 256)
    return Contestant(network, network)


def lucidrains() -> Contestant:
    sys.meta_path.append(Stand())
    from denoising_diffusion_pytorch import Unet

    network = Unet(dim=56, dim_mults=(1, 2, 2, 4), full_attn=(False, True, False, False), flash_attn=True)
    return Contestant(network, network)


def smalldiffusion() -> Contestant:
    sys.meta_path.append(Stand())
    from smalldiffusion.model_unet import Unet

    network = Unet(SIDE, 3, 3, ch=64, ch_mult=(1, 2, 2, 2), attn_resolutions=(16,), dropout=0.0)
    return Contestant(network, lambda x, t: network(x, t[:, None, None, None]))


CONTESTANTS: dict[str, Callable[[], Contestant]] = {
    f.__name__: f for f in (diffusers, same, base, plain, azula, lucidrains, smalldiffusion)
}
PAIRS = (
    ("same", "diffusers"),
    ("base", "diffusers"),
    ("plain", "azula"),
    ("base", "lucidrains"),
    ("base", "smalldiffusion"),
)


def keep() -> None:
    from sfumato.cli.heap import keep_heap

    keep_heap()


class Stand(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty modules in place of what peers import for their trainers alone."""

    ABSENT = (
        "torchvision", "scipy", "accelerate", "ema_pytorch", "pytorch_fid", "torch_fidelity", "torchsde",
        "torchdiffeq",
    )  # fmt: skip

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] in self.ABSENT else None

    def exec_module(self, module: types.ModuleType) -> None:
        module.__getattr__ = lambda name: getattr(Nothing, name)  # type: ignore[method-assign]


class Anything(type):
    def __getattr__(cls, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing


class Nothing(metaclass=Anything):
    """A class whose every attribute is this class, and which may be made from anything."""

    def __init__(self, *values: object, **named: object) -> None:
        pass


def forward(contestant: Contestant, batch: int) -> Callable[[], None]:
    contestant.network.eval()
    x, t = torch.randn(batch, 3, SIDE, SIDE), torch.full((batch,), 500.0)

    def run() -> None:
        with torch.no_grad():
            contestant.call(x, t)

    return run


def step(contestant: Contestant, batch: int) -> Callable[[], None]:
    """Forward, backward, clipping, fused AdamW and an average of the weights."""
    network = contestant.network.train()
    weights = list(network.parameters())
    average = [w.detach().clone() for w in weights]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)
    x, t, noise = (
        torch.randn(batch, 3, SIDE, SIDE),
        torch.rand(batch) * 1000,
        torch.randn(batch, 3, SIDE, SIDE),
    )

    def run() -> None:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(contestant.call(x, t), noise).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, 1e-3)

    return run


def peak(run: Callable[[], None]) -> float:
    """The most bytes of tensors alive at once during a step, above those alive before it, in MB."""
    from torch.profiler import ProfilerActivity, profile

    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    now = top = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            top = max(top, now)
    return top / 1e6


def worker(name: str, one_thread: bool) -> None:
    """Obeys lines of "what batch" on its input and answers with seconds (or megabytes)."""
    clock = time.perf_counter
    if one_thread:
        torch.set_num_threads(1)
        clock = time.thread_time
    torch.manual_seed(0)
    contestant = CONTESTANTS[name]()
    print(sum(w.numel() for w in contestant.network.parameters()) / 1e6, flush=True)
    ready: dict[str, Callable[[], None]] = {}
    for line in sys.stdin:
        what, size = line.split()
        if what == "peak":
            print(peak(step(contestant, int(size))), flush=True)
            continue
        if line not in ready:
            ready = {line: {"forward": forward, "step": step}[what](contestant, int(size))}
            ready[line]()
            ready[line]()
        start = clock()
        ready[line]()
        print(clock() - start, flush=True)


class Process:
    """A worker of this script or of another one that speaks as `worker` does."""

    def __init__(self, name: str, one_thread: bool = False, script: str = __file__) -> None:
        command = [sys.executable, script, "--worker", name, *(["--one-thread"] if one_thread else [])]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.parameters = self.read()

    def read(self) -> float | None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return float(line) if line.strip() else None

    def ask(self, what: str, size: int) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what} {size}\n")
        self.process.stdin.flush()
        answer = self.read()
        if answer is None:
            raise RuntimeError("a worker died")
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def pair(ours: Process, theirs: Process, what: str, size: int, pairs: int) -> tuple[float, float, float]:
    """The median of time(ours) / time(theirs) over interleaved pairs, and both medians in seconds."""
    repeat = 5 if what == "forward" and size == 1 else 1
    for process in (ours, theirs):
        process.ask(what, size)
    a, b = [], []
    for i in range(pairs):
        for process in (ours, theirs) if i % 2 == 0 else (theirs, ours):
            best = min(process.ask(what, size) for _ in range(repeat))
            (a if process is ours else b).append(best)
    ratios = [p / q for p, q in zip(a, b, strict=True)]
    return statistics.median(ratios), statistics.median(a), statistics.median(b)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="3 pairs, without the batch of 64")
    parser.add_argument("--one-thread", action="store_true", help="processor time of one thread")
    parser.add_argument("--only", default="", help="only pairs whose first name starts so, for example base")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options.worker, options.one_thread)
    forwards = (1, 16) if options.quick else (1, 16, 64)
    jobs = [("forward", b) for b in forwards] + [("step", 32)]
    print("time of ours / time of the peer (ms ours, ms peer)\n")
    print(
        "| pair | M parameters | "
        + " | ".join(f"{w} b{b}" for w, b in jobs)
        + " | peak MB of a step b32 | images/s b64 : b16 |"
    )
    print("|---" * (len(jobs) + 4) + "|")
    for names in PAIRS:
        if options.only and not names[0].startswith(options.only):
            continue
        ours, theirs = (Process(name, options.one_thread) for name in names)
        if ours.parameters is None or theirs.parameters is None:
            print(f"| {names[0]} / {names[1]} | not installed |", flush=True)
            continue
        cells = [f"{names[0]} / {names[1]}", f"{ours.parameters:.2f} / {theirs.parameters:.2f}"]
        seconds: dict[int, float] = {}
        for what, size in jobs:
            ratio, a, b = pair(ours, theirs, what, size, 3 if options.quick else 7)
            cells.append(f"{ratio:.2f} ({1e3 * a:.0f}, {1e3 * b:.0f})")
            if what == "forward":
                seconds[size] = a
        cells.append(f"{ours.ask('peak', 32):.0f} / {theirs.ask('peak', 32):.0f}")
        cells.append(f"{64 / seconds[64] / (16 / seconds[16]):.2f}" if 64 in seconds else "-")
        print("| " + " | ".join(cells) + " |", flush=True)
        ours.close()
        theirs.close()


if __name__ == "__main__":
    main()
