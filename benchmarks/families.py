"""Three families of generative models on the same pictures for the same time: diffusion, a GAN, a VAE.

    python benchmarks/families.py    # 3 families x 3 seeds x 3 minutes of processor time, and 5 to measure

Each trains on the bundled digits without their classes, at about 0.7 million parameters in all: the
diffusion model as `sfumato train` does by its defaults, a GAN (`gan.py`) and a VAE (`vae.py`) that share
their networks. Every run is a process of its own with one thread. They take turns of 15 seconds of processor
time, so that what else the machine does hits all alike, and their pictures are drawn by an average of the
weights over about a thousand steps, warmed up alike. At the end, the same figures for all:

- KID and Frechet distance on the features of a small classifier trained on the real digits, with their
  intervals; precision, recall, density and coverage there: what is well made, and how much of the data is
  covered;
- the total variation between the shares of the ten digits, drawn and real, as that classifier sees them;
- sharpness: the mean square of the Laplacian, over that of the real digits;
- pictures drawn in a second of one thread.

Stability is the spread over the seeds, KID at each third of the time, and the steps whose loss exploded
(`exploded`).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from digits import train_judge
from gan import Gan
from quality import SLICE, hear, say
from torch import Tensor, nn
from vae import Vae

from sfumato.assembled import build
from sfumato.data.dataset import DataSet
from sfumato.data.prepare import prepare
from sfumato.evaluation.frechet import fid
from sfumato.evaluation.kernel import kid
from sfumato.evaluation.manifold import density_coverage, precision_recall
from sfumato.files import read_tensors, write_tensors
from sfumato.guidance.bound import Clipped
from sfumato.noise import Noise, permutation, seeded
from sfumato.samplers import sampler
from sfumato.sampling import prior
from sfumato.training import optimisers
from sfumato.training.average import Ema, FlatWeights
from sfumato.training.lesson import Lesson
from sfumato.training.recipes import pixels

BATCH, DECAY, LOOKS = 64, 0.999, 3
FAMILIES = ("diffusion", "GAN", "VAE")
SHARES = ("precision", "recall", "density", "coverage")


class Family(Protocol):
    """A model in training; `painter` is the part of it that draws."""

    painter: nn.Module

    def parameters(self) -> list[nn.Parameter]: ...

    def step(self, x0: Tensor, share: float) -> float:
        """One update on real pictures when this share of the time is over; its loss."""
        ...

    def draw(self, n: int) -> Tensor:
        """n pictures in [-1, 1], a batch."""
        ...


class Diffusion:
    """What `sfumato train digits --model tiny --no-classes` trains, and how it draws by default."""

    def __init__(self, data: DataSet, minutes: float, seed: int) -> None:
        settings = pixels(data, model="tiny", classes=False, train={"minutes": minutes, "seed": seed})
        self.card, self.train = settings.card(data), settings.train
        self.painter = self.model = build(self.card, seed)
        objective, device = self.train.objective(self.model.schedule), torch.device("cpu")
        self.lesson = Lesson(self.model, objective, self.train.where, seed, 0.0, "fp32", device)
        self.optimiser = optimisers.chosen(self.train, self.parameters())
        self.steps = self.drawn = 0

    def parameters(self) -> list[nn.Parameter]:
        return [*self.model.parameters()]

    def step(self, x0: Tensor, share: float) -> float:
        optimisers.set_rate(self.optimiser, self.train.pace.rate(self.steps, share))
        self.optimiser.zero_grad()
        first = BATCH * self.steps
        loss = self.lesson.losses(x0, {}, range(first, first + len(x0))).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), float(self.train.clip))
        self.optimiser.step()
        self.steps += 1
        return float(loss.detach())

    @torch.no_grad()
    def draw(self, n: int) -> Tensor:
        how, steps = sampler(self.card.sampler.name), self.card.sampler.steps
        noise = Noise.of(self.train.seed, "families", places=range(self.drawn, self.drawn + n))
        self.drawn += n
        x = prior(how.start(self.model.schedule, steps), self.card.image.shape, noise)
        for step in how.walk(Clipped(self.model.given()), x, self.model.schedule, steps, noise):
            x = step.x
        return x.clamp(-1, 1)


def family(name: str, data: DataSet, minutes: float, seed: int) -> Family:
    with seeded(seed, "families", name):
        match name:
            case "diffusion":
                return Diffusion(data, minutes, seed)
            case "GAN":
                return Gan(data.shape)
            case "VAE":
                return Vae(data.shape)
            case _:
                raise SystemExit(f"--families: {', '.join(FAMILIES)}, not {name!r}")


def exploded(loss: float, recent: Sequence[float]) -> bool:
    """Whether a loss is not finite, or 20 times further from the median of the hundred before it than half of
    them are."""
    if len(recent) < 100 or not math.isfinite(loss):
        return not math.isfinite(loss)
    usual = statistics.median(recent)
    return abs(loss - usual) > 20 * statistics.median(abs(one - usual) for one in recent)


def worker(name: str, seed: int, minutes: float) -> None:
    """Trains for as many seconds of processor time as each line of its input says; "draw N PATH" writes N
    pictures and answers how many it draws in a second."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data = prepare("digits", hold_out=0.05)
    me = family(name, data, minutes, seed)
    flat, ema = FlatWeights(me.painter), Ema(DECAY)
    average = flat.vector.clone()
    say_of = {"M": sum(w.numel() for w in me.parameters()) / 1e6, "steps": 0, "exploded": 0}
    recent: deque[float] = deque(maxlen=100)
    trained = 0.0
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "draw":
            me.painter.eval()
            began = time.process_time()
            with flat.swapped(average):
                x = torch.cat(
                    [me.draw(min(BATCH, int(words[1]) - i)) for i in range(0, int(words[1]), BATCH)]
                )
            say_of["speed"] = len(x) / (time.process_time() - began)
            me.painter.train()
            write_tensors(Path(words[2]), {"x": x})
            print(json.dumps(say_of), flush=True)
            continue
        began = time.process_time()
        while (passed := time.process_time() - began) < float(line):
            step = int(say_of["steps"])
            rows = data.train[permutation(len(data.train), seed, step)[:BATCH].numpy()]
            loss = me.step(data.images(rows), min(1.0, (trained + passed) / (60 * minutes)))
            with torch.no_grad():
                ema.follow(average, flat.vector, step)
            say_of["exploded"] += exploded(loss, recent)
            recent.append(loss)
            say_of["steps"] = step + 1
        trained += time.process_time() - began
        print(trained, flush=True)


class Measures:
    """The figures of drawn digits beside real ones, through the eyes of a classifier of digits."""

    def __init__(self, data: DataSet, drawn: int) -> None:
        self.net, self.accuracy = train_judge(epochs=4)
        rows = data.train[permutation(len(data.train), "families", "real").numpy()]
        self.real, other = data.images(rows[:drawn]), data.images(rows[drawn : 2 * drawn])
        self.features, logits = self.seen(self.real)
        self.scale = self.features.square().mean().sqrt()  # features of size 1 are what KID's kernel is for
        self.shares = torch.bincount(logits.argmax(1), minlength=10) / len(logits)
        self.best = self.of(other)

    @torch.no_grad()
    def seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The last convolution's maps, averaged over the picture, (n, 128), and the logits, (n, 10)."""
        parts = [(self.net[:-2](part).mean((2, 3)), self.net(part)) for part in x.split(200)]
        pooled, logits = zip(*parts, strict=True)
        return torch.cat(pooled), torch.cat(logits)

    def kid_of(self, x: Tensor) -> dict[str, Any]:
        """KID alone, [value, low, high]."""
        return {"KID": [*kid(self.features / self.scale, self.seen(x)[0] / self.scale)]}

    def of(self, x: Tensor) -> dict[str, Any]:
        """Every figure of pictures (n, C, H, W), [value, low, high] where it has an interval."""
        features, logits = self.seen(x)
        a, b = self.features / self.scale, features / self.scale
        shares = torch.bincount(logits.argmax(1), minlength=10) / len(logits)
        found = {"KID": kid(a, b), "FD": fid(a, b)}
        found |= precision_recall(a, b)._asdict() | density_coverage(a, b)._asdict()
        return {name: [*figure] for name, figure in found.items()} | {
            "TV": float((shares - self.shares).abs().sum() / 2),
            "sharpness": float(laplacian(x) / laplacian(self.real)),
        }


def laplacian(x: Tensor) -> Tensor:
    """The mean square of the Laplacian of grey pictures: how much fine structure they have."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return nn.functional.conv2d(x, kernel).square().mean()


class Run:
    """A worker: one family with one seed, in a process of its own."""

    def __init__(self, name: str, seed: int, minutes: float) -> None:
        self.name, self.seed = name, seed
        command = [sys.executable, __file__, "--minutes", str(minutes), "--worker", name, str(seed)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        hear(self.process)

    def train(self, seconds: float) -> None:
        say(self.process, str(seconds))
        hear(self.process)

    def draw(self, n: int, path: Path) -> dict[str, Any]:
        """n pictures into a file; what the worker tells of itself."""
        say(self.process, f"draw {n} {path}")
        return {"family": self.name, "seed": self.seed} | json.loads(" ".join(hear(self.process)))


def looks(
    runs: Sequence[Run], measures: Measures, minutes: float, drawn: int, folder: Path
) -> Iterator[dict[str, Any]]:
    """Trains all in turns, and tells what each draws at each third of the time: a quarter as many before the
    end, of which KID alone is told, since it alone does not depend on their number."""
    share = 60 * minutes / LOOKS
    turns = max(1, round(share / SLICE))
    for look in range(1, LOOKS + 1):
        for _ in range(turns):
            for run in runs:
                run.train(share / turns)
        for run in runs:
            path = folder / f"{run.name}-{run.seed}.safetensors"
            told = run.draw(drawn if look == LOOKS else drawn // 4, path)
            x = read_tensors(path)[0]["x"]
            yield told | {"look": look} | (measures.of(x) if look == LOOKS else measures.kid_of(x))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="of processor time, for each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--drawn", type=int, default=1000, help="pictures that each figure is of")
    parser.add_argument("--picture", type=Path, help="where a picture of the samples goes")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options.worker[0], int(options.worker[1]), options.minutes)
    torch.set_num_threads(1)
    measures = Measures(prepare("digits", hold_out=0.05), options.drawn)
    print(f"the classifier knows {measures.accuracy:.2%} of real digits that it has not seen")
    print(f"real against real: {_row(measures.best)}", flush=True)
    names, found = options.families.split(","), []
    runs = [Run(name, seed, options.minutes) for seed in range(options.seeds) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        for one in looks(runs, measures, options.minutes, options.drawn, Path(folder)):
            found.append(one)
            where = f"{one['family']:<10}seed {one['seed']}  {one['look']}/{LOOKS} of the time"
            print(f"{where}  {_row(one)}  {one['steps']} steps", flush=True)
        print(_table(found, names))
        if options.picture:
            rows = {"real": measures.real} | {
                name: read_tensors(Path(folder) / f"{name}-0.safetensors")[0]["x"] for name in names
            }
            write_samples(options.picture, rows)
    for run in runs:
        run.process.communicate()


def _row(found: Mapping[str, Any]) -> str:
    told = "KID {:.4f} ({:.4f} to {:.4f})".format(*found["KID"])
    if "FD" not in found:
        return told
    rest = "  ".join(f"{name} {found[name][0]:.3f}" for name in ("FD", *SHARES))
    return f"{told}  {rest}  TV {found['TV']:.3f}  sharpness {found['sharpness']:.3f}"


def _table(found: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Over the seeds, at the end: the mean, and the least and the largest."""
    out = ["", "| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    last = {name: [one for one in found if one["family"] == name and one["look"] == LOOKS] for name in names}

    def line(title: str, value: Any, digits: str) -> None:
        cells: list[str] = []
        for name in names:
            each = [float(value(one)) for one in last[name]]
            mean, low, high = (f"{v:{digits}}" for v in (statistics.mean(each), min(each), max(each)))
            cells.append(mean if low == high else f"{mean} ({low} to {high})")
        out.append(f"| {title} | " + " | ".join(cells) + " |")

    line("M parameters", lambda one: one["M"], ".2f")
    line("steps", lambda one: one["steps"], ",.0f")
    line("KID", lambda one: one["KID"][0], ".4f")
    line("Frechet distance", lambda one: one["FD"][0], ".3f")
    for name in SHARES:
        line(name, lambda one, name=name: one[name][0], ".3f")
    line("total variation of the ten shares", lambda one: one["TV"], ".3f")
    line("sharpness", lambda one: one["sharpness"], ".2f")
    line("pictures a second", lambda one: one["speed"], ",.0f")
    line("exploded steps", lambda one: one["exploded"], ".0f")
    for name in names:
        curves = [
            " -> ".join(f"{one['KID'][0]:.4f}" for one in found if one["family"] == name and one["seed"] == s)
            for s in sorted({one["seed"] for one in found})
        ]
        out.append(f"KID of {name} by thirds of the time: {'; '.join(curves)}")
    return "\n".join(out)


def write_samples(path: Path, rows: Mapping[str, Tensor], columns: int = 24, lines: int = 2) -> None:
    """The first samples of each, `lines` rows under one another, with its name beside them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * 0.36 + 1.0, len(rows) * (lines * 0.36 + 0.08)), layout="constrained")
    for axes, (name, x) in zip(figure.subplots(len(rows), 1), rows.items(), strict=True):
        grid = x[: lines * columns].unflatten(0, (lines, columns))[:, :, 0]
        axes.imshow(grid.permute(0, 2, 1, 3).flatten(2).flatten(0, 1), cmap="gray", vmin=-1, vmax=1)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.savefig(path, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
