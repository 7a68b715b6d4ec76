"""What learning more than the mean is worth, in bits.

    python benchmarks/objectives.py [--data digits --minutes 4 -n 256 --steps 25]

1. A learned variance beside the fixed ones: one network, trained by the hybrid loss; the bound on held-out
   pictures at `--steps` DDPM steps with beta-tilde, beta and the learned variance, same pictures, same noise.
2. A learned schedule beside a straight log-SNR: one network, trained with its schedule by the bound; bits and
   the variance of the bound's estimate from one level a picture, on the learned shape and on a straight line
   between the same ends. And where the ends went, beside a run that kept its straight line.

Three runs of `--minutes` each, then 2 minutes. It ends with 1 where the learned one is not the better.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sfumato
from sfumato.bound import Variance
from sfumato.data.dataset import DataSet
from sfumato.data.prepare import prepare
from sfumato.evaluation import likelihood
from sfumato.evaluation.mean import Mean
from sfumato.evaluation.pictures import Pictures, choose
from sfumato.forward import noised
from sfumato.learned import Learned
from sfumato.noise import Noise
from sfumato.runs import Run
from sfumato.schedules import LogLinear, Schedule
from sfumato.training.levels import Stratified
from sfumato.training.objectives import Trial
from sfumato.training.recipes import pixels
from sfumato.training.run import train_run
from sfumato.training.variational import VariationalBound

ROUNDS = 16
"""Levels asked of each picture."""


def trained(data: DataSet, out: Path, minutes: float, seed: int, **settings: Any) -> Run:
    """A run on this data, opened; its pace follows the clock."""
    train = {"minutes": minutes, "seed": seed, "weight": settings.pop("weight", None)}
    said = {name: value for name, value in train.items() if value is not None}
    *_, last = train_run(data, pixels(data, train=said, **settings), out, sample_share=0.0)
    print(f"  {out.name}: {last.step:,} steps, loss {last.loss:.3f}", flush=True)
    return sfumato.load(out)


def learned_variance(run: Run, pictures: Pictures, steps: int, seed: int) -> bool:
    """Prints the bound with each variance; whether the learned one has least, by 2 standard errors."""
    print(f"\n| variance of {steps} steps | bits per dimension |\n|---|---|")
    found: dict[Variance, Tensor] = {}
    kinds: tuple[Variance, ...] = ("small", "large", "learned")
    for kind in kinds:
        bound = likelihood.bound(run, pictures, likelihood.process_of(run, steps, kind, steps), seed=seed)
        found[kind] = bound.bits
        print(f"| {kind} | {bound.total} |", flush=True)
    better = min((found["small"], found["large"]), key=lambda bits: float(bits.mean()))
    gain = Mean.of(better - found["learned"])
    print(f"| the better fixed one less the learned one | {gain} |")
    return gain.value > 2 * gain.error


@torch.no_grad()
def estimates(run: Run, pictures: Pictures, schedule: Schedule, seed: int) -> Tensor:
    """The bound of each picture from one level, (pictures, rounds), in bits per dimension."""
    x0 = pictures.x0
    model = run.model
    cond = {} if pictures.classes is None else {"classes": torch.tensor(pictures.classes)}
    model.schedule, own = schedule, model.schedule
    rounds: list[Tensor] = []
    for i in range(ROUNDS):
        places = range(i * len(x0), (i + 1) * len(x0))
        level = Stratified()(schedule, places, seed)
        eps = Noise.of(seed, "benchmark", places=places).normal(x0.shape[1:], "eps")
        estimate = model(noised(x0, eps, level), level, **cond)
        rounds.append(
            VariationalBound(bins=pictures.bins)(Trial(x0, eps, level, estimate, schedule)).double()
        )
    model.schedule = own
    return torch.stack(rounds, 1)


def learned_schedule(run: Run, other: Run, pictures: Pictures, seed: int) -> bool:
    """Prints bits and variances; whether the learned shape varies less than a straight line."""
    own = run.model.schedule
    assert isinstance(own, Learned)
    line = LogLinear(own.gamma_min, own.gamma_max)
    straight = other.model.schedule
    assert isinstance(straight, LogLinear)
    print("\n| schedule | log-SNR | bits per dimension | variance of one estimate |\n|---|---|---|---|")
    variances: list[float] = []
    for name, which, schedule in (
        ("learned", run, own),
        ("the same network on a straight line", run, line),
        ("a network trained on a straight line", other, straight),
    ):
        bits = estimates(which, pictures, schedule, seed)
        mean = Mean.of(bits.mean(1))
        variances.append(float(bits.var()))
        reach = f"{-schedule.gamma_min:.2f} to {-schedule.gamma_max:.2f}"
        print(
            f"| {name} | {reach} | {mean.value:.4f} +- {mean.error:.4f} | {variances[-1]:.4f} |", flush=True
        )
    return variances[0] < variances[1]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("-n", type=int, default=256)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data, home = prepare(options.data, multiple=4), Path(tempfile.mkdtemp())
    about = f"{options.minutes:g} minutes each"
    print(f"training three times on {options.data}, {about}", flush=True)
    settings: dict[str, dict[str, Any]] = {
        "learned-variance": {"learned_variance": True},
        "learned-schedule": {"schedule": "learned"},
        "straight": {"schedule": "log-linear", "weight": "bound"},
    }
    hybrid, learned, straight = (
        trained(data, home / name, options.minutes, options.seed, **said) for name, said in settings.items()
    )
    pictures = choose(hybrid, options.data, n=options.n, seed=options.seed)
    print(", ".join(pictures.about))
    good = [
        learned_variance(hybrid, pictures, options.steps, options.seed),
        learned_schedule(learned, straight, pictures, options.seed),
    ]
    print(f"\nthe learned variance is better: {good[0]}; the learned schedule varies less: {good[1]}")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
