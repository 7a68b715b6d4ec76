"""What a sampling step costs without a network: ours, a bare DDIM loop and diffusers' schedulers, in
microseconds.

    python benchmarks/walk.py [--batch 1] [--repeats 7]

Every contestant is given an estimate that costs nothing and makes the same 50 steps on a (batch, 3, 32, 32)
picture. Rounds are interleaved; the median of the rounds is printed, and its ratio to the bare loop of the
same round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from sfumato.level import Level
from sfumato.noise import Noise
from sfumato.predictions import Estimate
from sfumato.samplers import SAMPLERS
from sfumato.sampling import walk
from sfumato.tables import Table

STEPS = 50
TABLE = Table.linear()


class Free:
    """A denoiser that has its answer ready."""

    def __init__(self, answer: Tensor) -> None:
        self.answer = answer

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        return Estimate.of(x, level, eps=self.answer)

    def take(self, rows: Sequence[int]) -> Free:
        return self

    def check(self, level: Level) -> None:
        return None


def bare(x: Tensor) -> Callable[[], None]:
    """DDIM as one would write it by hand."""
    levels = [
        (float(m.here.alpha), float(m.here.sigma), float(m.there.alpha), float(m.there.sigma))
        for m in SAMPLERS["ddim"].plan(TABLE, STEPS)
    ]
    eps = torch.randn_like(x)

    def run() -> None:
        y = x
        with torch.no_grad():
            for a, s, a2, s2 in levels:
                y = a2 * ((y - s * eps) / a) + s2 * eps

    return run


def ours(x: Tensor, name: str) -> Callable[[], None]:
    sampler = SAMPLERS[name]
    plan, free, noise = sampler.plan(TABLE, STEPS), Free(torch.randn_like(x)), Noise(tuple(range(len(x))))

    def run() -> None:
        for _ in walk(free, x, plan, sampler.solver, noise, sampler.fresh):
            pass

    return run


def theirs(x: Tensor, scheduler: object) -> Callable[[], None]:
    eps = torch.randn_like(x)

    def run() -> None:
        scheduler.set_timesteps(STEPS)  # type: ignore[attr-defined]
        y = x
        with torch.no_grad():
            for t in scheduler.timesteps:  # type: ignore[attr-defined]
                scheduler.scale_model_input(y, t)  # type: ignore[attr-defined]
                y = scheduler.step(eps, t, y).prev_sample  # type: ignore[attr-defined]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.manual_seed(0)
    x = torch.randn(options.batch, 3, 32, 32)
    runs = {
        "bare DDIM loop": bare(x),
        "sfumato ddim": ours(x, "ddim"),
        "sfumato dpmpp-2m": ours(x, "dpmpp-2m"),
        "sfumato dpmpp-3m": ours(x, "dpmpp-3m"),
        "sfumato ddpm (draws noise)": ours(x, "ddpm"),
        "diffusers Euler": theirs(x, EulerDiscreteScheduler()),
        "diffusers DDIM": theirs(x, DDIMScheduler()),
        "diffusers DPM++ 2M": theirs(x, DPMSolverMultistepScheduler()),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(4):
                run()
            times[name].append((time.perf_counter() - start) / 4 / STEPS * 1e6)
    base = times["bare DDIM loop"][1:]
    print("| a step at batch", options.batch, "| microseconds | times the bare loop |\n|---|---|---|")
    for name, seen in times.items():
        ratio = statistics.median(a / b for a, b in zip(seen[1:], base, strict=True))
        print(f"| {name} | {statistics.median(seen[1:]):.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
