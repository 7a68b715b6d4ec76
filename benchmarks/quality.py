"""Quality for the same minutes: what a user gets who trains with Sfumato, or with a peer by that peer's own
defaults.

    python benchmarks/quality.py    # digits: 3 minutes each, 2 seeds, four peers: over half an hour
    python benchmarks/quality.py --cifar cifar10.npz --minutes 10 --peers azula,diffusers --seeds 1

Every contestant trains without classes in a process of its own; they take turns of 15 seconds, so a slow
minute of the machine hits all. The loss, schedule, optimiser and decay of the average are each library's own;
the widths of its network are chosen here, for as many parameters as ours as its architecture allows. The
batch of 64, the clipping of the gradient and the warm-up of the average are the same for all. Then, with the
averaged weights:

- the held-out epsilon-loss, the mean over 16 log-SNRs from -8 to 8 on the variance-preserving curve, on the
  same pictures and noise for all;
- KID (Binkowski et al. 2018; polynomial kernel of degree 3, unbiased) of 1,000 samples against real training
  pictures, on the features of a small classifier trained on such, by one and the same sampler (DPM-Solver++
  2M, 40 steps), with a standard error from ten blocks.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from digits import network, train_judge
from torch import Tensor, nn

from networks import Stand, Told, keep
from sfumato.data.dataset import DataSet
from sfumato.data.prepare import prepare
from sfumato.denoiser import Exact
from sfumato.files import read_tensors, write_tensors
from sfumato.forward import noised
from sfumato.level import CLEAN, Level, Levels
from sfumato.noise import Noise, permutation
from sfumato.plans import descend
from sfumato.sampling import sample
from sfumato.solvers.multistep import Multistep
from sfumato.tuning.loss import LOG_SNRS, at

SLICE = 15.0
BATCH = 64


@dataclass
class Contestant:
    """A network with its averaged copy: `loss(x0)` is what it trains on, `eps(x, log_snr)` what it then
    believes of x on the variance-preserving curve."""

    module: nn.Module
    loss: Callable[[Tensor], Tensor]
    eps: Callable[[Tensor, Tensor], Tensor]
    optimiser: torch.optim.Optimizer
    decay: float
    warmup: int = 0

    def __post_init__(self) -> None:
        self.weights = list(self.module.parameters())
        self.average = [w.detach().clone() for w in self.weights]
        self.rate = self.optimiser.param_groups[0]["lr"]
        self.steps = 0

    def step(self, x0: Tensor, share: float) -> None:
        self.optimiser.param_groups[0]["lr"] = self.rate * min(1.0, (self.steps + 1) / max(1, self.warmup))
        self.optimiser.zero_grad()
        self.loss(x0).backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimiser.step()
        self.steps += 1
        with torch.no_grad():  # every average warms up, or short runs would only remember their first weights
            torch._foreach_lerp_(
                self.average, self.weights, 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
            )

    def settle(self) -> None:
        with torch.no_grad():
            for w, a in zip(self.weights, self.average, strict=True):
                w.copy_(a)
        self.module.eval()


def per_table(alpha_bar: Tensor) -> Callable[[Tensor], Tensor]:
    """log-SNR -> fractional step of a discrete schedule."""
    table = (alpha_bar.double() / (1 - alpha_bar.double())).log().flip(0)
    steps = torch.arange(len(table) - 1, -1, -1, dtype=torch.float64)

    def find(log_snr: Tensor) -> Tensor:
        k = torch.searchsorted(table, log_snr).clamp(1, len(table) - 1)
        w = ((log_snr - table[k - 1]) / (table[k] - table[k - 1])).clamp(0, 1)
        return torch.lerp(steps[k - 1], steps[k], w)

    return find


def diffusers(data: DataSet) -> Contestant:
    """As examples/unconditional_image_generation trains: DDPM, epsilon, AdamW 1e-4 with 500 steps of warm-up,
    EMA 0.9999."""
    from diffusers import DDPMScheduler, UNet2DModel

    c, h, w = data.shape
    small = c == 1
    network = UNet2DModel(
        sample_size=(h, w), in_channels=c, out_channels=c,
        block_out_channels=(24, 32, 48) if small else (64, 128, 128, 128),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", *(["DownBlock2D"] * (1 if small else 2))),
        up_block_types=(*(["UpBlock2D"] * (1 if small else 2)), "AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8 if small else 32,
    )  # fmt: skip
    scheduler = DDPMScheduler()
    step_of = per_table(scheduler.alphas_cumprod)

    def loss(x0: Tensor) -> Tensor:
        eps, t = torch.randn_like(x0), torch.randint(0, 1000, (len(x0),))
        return nn.functional.mse_loss(network(scheduler.add_noise(x0, eps, t), t).sample, eps)

    optimiser = torch.optim.AdamW(network.parameters(), 1e-4, betas=(0.95, 0.999), weight_decay=1e-6)
    tell = lambda x, l: network(x, step_of(l).float().expand(len(x))).sample
    return Contestant(network, loss, tell, optimiser, 0.9999, 500)


def lucidrains(data: DataSet) -> Contestant:
    """GaussianDiffusion's defaults: sigmoid schedule, v; its Trainer's Adam 1e-4, betas (0.9, 0.99), EMA
    0.995."""
    sys.meta_path.append(Stand())
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    c, h, w = data.shape
    network = Unet(
        dim=16 if c == 1 else 48, dim_mults=(1, 2, 4) if c == 1 else (1, 2, 2, 4), channels=c, flash_attn=True
    )
    diffusion = GaussianDiffusion(network, image_size=(h, w), auto_normalize=False)
    step_of = per_table(diffusion.alphas_cumprod)

    def tell(x: Tensor, log_snr: Tensor) -> Tensor:
        alpha, sigma = (v.to(x) for v in (at(log_snr).alpha, at(log_snr).sigma))
        v = network(x, step_of(log_snr).float().expand(len(x)))
        return sigma * x + alpha * v

    optimiser = torch.optim.Adam(network.parameters(), 1e-4, betas=(0.9, 0.99))
    return Contestant(network, diffusion, tell, optimiser, 0.995)


def smalldiffusion(data: DataSet) -> Contestant:
    """As its image example trains: the DDPM schedule of sigmas, scaled input, AdamW 7e-4, EMA 0.99."""
    sys.meta_path.append(Stand())
    from smalldiffusion import ScheduleDDPM
    from smalldiffusion.model import Scaled
    from smalldiffusion.model_unet import Unet

    c, h, _ = data.shape
    network = Scaled(Unet)(
        h,
        c,
        c,
        ch=32 if c == 1 else 64,
        ch_mult=(1, 1, 1) if c == 1 else (1, 2, 2, 2),
        attn_resolutions=(h // 2,),
    )
    schedule = ScheduleDDPM(beta_start=0.0001, beta_end=0.02, N=1000)

    def loss(x0: Tensor) -> Tensor:
        sigma = schedule.sample_batch(x0).reshape(-1, 1, 1, 1)
        eps = torch.randn_like(x0)
        return type(network).get_loss(network, x0, sigma, eps)

    def tell(x: Tensor, log_snr: Tensor) -> Tensor:
        level = at(log_snr)
        sigma = (level.sigma / level.alpha).to(x)
        return network(x / level.alpha.to(x), sigma.expand(len(x)).reshape(-1, 1, 1, 1))

    return Contestant(network, loss, tell, torch.optim.AdamW(network.parameters(), 7e-4), 0.99)


def azula(data: DataSet) -> Contestant:
    """As its tutorial trains: KarrasDenoiser on the VP schedule, its loss, AdamW 1e-3; averaged at 0.999."""
    from azula.denoise import KarrasDenoiser
    from azula.nn.unet import UNet
    from azula.noise import VPSchedule

    c = data.shape[0]
    widths, blocks, told = ((24, 48, 64), (1, 2, 2), 64) if c == 1 else ((64, 128, 192), (3, 2, 3), 256)
    backbone = Told(UNet(c, c, hid_channels=widths, hid_blocks=blocks, mod_features=told), told)
    denoiser = KarrasDenoiser(backbone, VPSchedule())
    times = torch.linspace(0, 1, 4001)
    alpha, sigma = denoiser.schedule(times)
    log_snr_of = (2 * (alpha.log() - sigma.log())).double().flatten().flip(0)

    def tell(x: Tensor, log_snr: Tensor) -> Tensor:
        k = torch.searchsorted(log_snr_of, log_snr).clamp(0, 4000)
        t = times.flip(0)[k]
        a, s = (v.to(x) for v in (at(log_snr).alpha, at(log_snr).sigma))
        return (x - a * denoiser(x, t.expand(len(x))).mean) / s

    loss = lambda x0: denoiser.loss(x0, torch.rand(len(x0))).mean()
    return Contestant(denoiser, loss, tell, torch.optim.AdamW(denoiser.parameters(), 1e-3), 0.999)


def sfumato(data: DataSet, minutes: float, seed: int) -> Contestant:
    """`sfumato train` with no option but its length, on the same pictures without their classes."""
    from sfumato.networks import build, preset
    from sfumato.training.lesson import Lesson
    from sfumato.training.recipes import pixels

    keep()
    size = "tiny" if data.shape[0] == 1 else "base"
    settings = pixels(data, model=size, train={"minutes": minutes, "seed": seed})
    from sfumato.model import Model

    c, h, w = data.shape
    process = settings.process
    model = Model(
        build(preset(size, channels=c, image_size=(h, w))),
        process.curve(),
        process.kind(),
        process.label(),
    )
    train = settings.train
    lesson = Lesson(
        model, train.objective(model.schedule), train.where, seed, 0.0, "fp32", torch.device("cpu")
    )
    from sfumato.training.optimisers import chosen

    optimiser = chosen(train, model.parameters())
    contestant: Contestant

    def loss(x0: Tensor) -> Tensor:
        first = contestant.steps * BATCH
        return lesson.losses(x0, {}, range(first, first + len(x0))).mean()

    tell = lambda x, l: model(x, at(l)).eps
    contestant = Contestant(model, loss, tell, optimiser, float(train.ema))
    plain = contestant.step

    def paced(x0: Tensor, share: float) -> None:
        contestant.rate = train.pace.rate(contestant.steps, share)
        contestant.warmup = 0
        for group in optimiser.param_groups:
            group["lr"] = contestant.rate
        plain(x0, share)

    contestant.step = paced  # type: ignore[method-assign]
    return contestant


PEERS = {"diffusers": diffusers, "azula": azula, "lucidrains": lucidrains, "smalldiffusion": smalldiffusion}


def worker(name: str, source: str, minutes: float, seed: int, samples: int) -> None:
    """Trains for as many seconds as each line of its input says; "end PATH" asks for the results."""
    torch.manual_seed(seed)
    data = prepare(source, hold_out=0.05)
    me = sfumato(data, minutes, seed) if name == "sfumato" else PEERS[name](data)
    print(sum(w.numel() for w in me.weights) / 1e6, flush=True)
    trained = 0.0
    for line in sys.stdin:
        if line.startswith("end"):
            break
        end, last = time.perf_counter() + float(line), time.perf_counter()
        me.module.train()
        while time.perf_counter() < end:
            rows = data.train[(permutation(len(data.train), seed, me.steps)[:BATCH]).numpy()]
            me.step(data.images(rows), trained / (60 * minutes))
            now = time.perf_counter()
            trained, last = trained + now - last, now
        print(trained, flush=True)
    me.settle()
    print(me.steps, *results(me, data, line.split()[1], samples), flush=True)


@torch.no_grad()
def results(me: Contestant, data: DataSet, path: str, samples: int) -> tuple[float, float, float]:
    """The held-out epsilon-loss, KID and KID's standard error."""
    x0 = data.held_out(256).images
    eps = Noise(tuple(range(len(x0)))).normal(x0.shape[1:], "quality")
    losses = [float((me.eps(noised(x0, eps, at(l)), l) - eps).square().mean()) for l in LOG_SNRS]
    ratio = torch.exp(-torch.linspace(-8, 8, 40, dtype=torch.float64) / 2)
    plan = descend(
        Levels.of(
            Level.of(torch.ones_like(ratio), ratio).scaled(1 / torch.hypot(torch.ones_like(ratio), ratio)),
            CLEAN,
        )
    )

    def belief(x: Tensor, level: Level) -> Tensor:
        a, s = level.on(x)
        return ((x - s * me.eps(x, level.log_snr)) / a).clamp(-1, 1)

    drawn = torch.cat(
        [
            sample(Exact(belief), data.shape, plan, Multistep(), range(i, i + 100))
            for i in range(0, samples, 100)
        ]
    )
    features = judge(data, path)
    real = data.images(data.train[: len(drawn)])
    return statistics.mean(losses), *kid(features(real), features(drawn))


def judge(data: DataSet, path: str) -> Callable[[Tensor], Tensor]:
    """Features of the small classifier of the real pictures that the parent has trained."""
    net = network(data.channels, data.size, data.classes)
    net.load_state_dict(read_tensors(Path(path))[0])
    net.eval()
    return lambda x: torch.cat([net[:-1](part) for part in x.split(200)])


def kid(a: Tensor, b: Tensor, blocks: int = 10) -> tuple[float, float]:
    def mmd(x: Tensor, y: Tensor) -> float:
        k = lambda p, q: (p @ q.T / p.shape[1] + 1) ** 3
        n, m = len(x), len(y)
        xx, yy = k(x, x), k(y, y)
        return float(
            (xx.sum() - xx.trace()) / (n * (n - 1))
            + (yy.sum() - yy.trace()) / (m * (m - 1))
            - 2 * k(x, y).mean()
        )

    scale = a.std()
    parts = [mmd(x / scale, y / scale) for x, y in zip(a.chunk(blocks), b.chunk(blocks), strict=True)]
    return mmd(a / scale, b / scale), statistics.stdev(parts) / math.sqrt(blocks)


def say(worker: subprocess.Popen[str], text: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(text + "\n")
    worker.stdin.flush()


def hear(worker: subprocess.Popen[str]) -> list[str]:
    assert worker.stdout is not None
    return worker.stdout.readline().split()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar", type=Path, help="an .npz of CIFAR-10 in place of the bundled digits")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--peers", default="diffusers,azula,lucidrains,smalldiffusion")
    parser.add_argument("--samples", type=int, default=1000, help="drawn for KID, in hundreds")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    source = str(options.cifar or "digits")
    if options.worker:
        return worker(options.worker[0], source, options.minutes, int(options.worker[1]), options.samples)
    names: Sequence[str] = ["sfumato", *(p for p in options.peers.split(",") if p)]
    path = Path(tempfile.mkdtemp()) / "judge.safetensors"
    write_tensors(path, train_judge(prepare(source, hold_out=0.05))[0].state_dict())
    print("| | seed | M parameters | steps | epsilon-loss | KID x 1000 |\n|---|---|---|---|---|---|")
    for seed in range(options.seeds):
        passed = ["--minutes", str(options.minutes), "--samples", str(options.samples)]
        passed += ["--cifar", source] if options.cifar else []
        teams = {
            n: subprocess.Popen(
                [sys.executable, __file__, *passed, "--worker", n, str(seed)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for n in names
        }
        sizes = {n: float(hear(teams[n])[0]) for n in names}
        for _ in range(math.ceil(options.minutes * 60 / SLICE)):
            for name in names:
                say(teams[name], str(SLICE))
                hear(teams[name])
        for name in names:
            say(teams[name], f"end {path}")
            steps, loss, value, error = hear(teams[name])
            print(
                f"| {name} | {seed} | {sizes[name]:.2f} | {steps} | {float(loss):.4f} | "
                f"{1e3 * float(value):.2f} +- {1e3 * float(error):.2f} |",
                flush=True,
            )
            teams[name].wait()


if __name__ == "__main__":
    main()
