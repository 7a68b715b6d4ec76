"""How well pictures come back from less than themselves, with a run that was not trained for it.

    python benchmarks/inverse.py runs/digits [--data digits -n 32 --steps 20 --noise 0.05]

Held-out pictures are measured (made 4 times smaller, blurred, with a hole, by a fifth of random numbers; in
grey where they have colour) and solved for by each method, one picture from each measurement. Told in
decibels, the mean over pictures with its standard error: to the picture that was measured, and how well the
result, measured again, keeps to the measurement. "+" is the pseudo-inverse, what the measurement says without
any model. After the solutions come the seconds for each picture.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

import sfumato
from sfumato.editing.upscale import decibels
from sfumato.editing.zero_shot import METHODS, Method, solve
from sfumato.evaluation.pictures import choose
from sfumato.noise import Noise
from sfumato.operators import Operator, blur, downsample, grey, mask, sensing
from sfumato.runs import Run


def measurements(shape: tuple[int, int, int]) -> Mapping[str, Operator]:
    """What is measured of pictures (C, H, W)."""
    channels, height, width = shape
    known = torch.ones(height, width, dtype=torch.bool)
    known[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = False
    found: dict[str, Operator] = {
        "4 times smaller": downsample(shape, (height // 4, width // 4)),
        "a blur of 1.5 pixels": blur(shape, 1.5),
        "a hole of a quarter": mask(known, channels),
        "a fifth of random numbers": sensing(shape, 0.2),
    }
    return found | ({"grey": grey(shape)} if channels == 3 else {})


def solved(run: Run, operator: Operator, y: Tensor, method: Method, steps: int | None) -> Tensor:
    """One picture from each row of y."""
    recipe = run.recipe(len(y), steps=steps, classes=[None] * len(y) if run.classes else None)
    return solve(run, recipe, operator, y, method)


def said(values: Tensor) -> str:
    """Mean and standard error."""
    whole = values.clamp(max=99)
    return f"{float(whole.mean()):.1f} +- {float(whole.std() / len(whole) ** 0.5):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", default="digits")
    parser.add_argument("-n", type=int, default=32)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--dps-steps", type=int, default=100)
    parser.add_argument("--noise", type=float, default=0.0)
    options = parser.parse_args()
    run = sfumato.load(options.run)
    pictures = choose(run, options.data, n=options.n)
    truth = pictures.x0.float()
    span = run.card.image.high - run.card.image.low
    print(f"{', '.join(pictures.about)}; noise {options.noise:g}\n")
    print("| measured | by | to the picture, dB | to the measurement, dB | s |\n|---|---|---|---|---|")
    ways = [(Method(name, 0.0 if name == "dps" else options.noise), name) for name in METHODS]
    for name, operator in measurements(truth.shape[1:]).items():
        y = operator(truth)
        y = y + options.noise * span * Noise(tuple(range(len(y)))).normal(y.shape[1:], "measured")
        print(f"| {name} | + | {said(decibels(operator.inverse(y), truth, span))} | | |", flush=True)
        for method, words in ways:
            began = time.perf_counter()
            steps = options.dps_steps if method.name == "dps" else options.steps
            made = solved(run, operator, y, method, steps)
            took = (time.perf_counter() - began) / len(y)
            fits = decibels(operator(made), y, span)
            print(
                f"| | {words} | {said(decibels(made, truth, span))} | {said(fits)} | {took:.2f} |", flush=True
            )


if __name__ == "__main__":
    main()
