"""How exact is inversion, and what is it good for? On mixtures with a known answer, and on a run's digits.

    python benchmarks/inversion.py [runs/digits] [--pictures 16] [--steps 50]

Prints the largest error of the round trip (picture, noise, picture) on an exact mixture by plain DDIM
inversion and by the exact one, with the looks a move; then the same on real digits that the run has not seen,
with and without guidance. Last, attributes: each digit is made again as each of the ten classes, and a
separate classifier says which it sees.
"""

from __future__ import annotations

import argparse

import torch
from digits import train_judge
from torch import Tensor

import sfumato
from sfumato.data.prepare import prepare
from sfumato.data.toy import Mixture
from sfumato.denoiser import Denoiser, Exact
from sfumato.editing.invert import Refine, invert, regenerate
from sfumato.editing.job import descending
from sfumato.level import Levels
from sfumato.noise import Noise
from sfumato.plans import trailing
from sfumato.runs import Run
from sfumato.samplers import sampler
from sfumato.schedules import RectifiedFlow, Schedule
from sfumato.tables import Table

WAYS = {"plain": Refine(looks=1), "exact": Refine()}


def round_trip(name: str, denoise: Denoiser, picture: Tensor, levels: Levels) -> None:
    for way, refine in WAYS.items():
        found = invert(denoise, picture, levels, refine)
        apart = (regenerate(denoise, found.x, levels) - picture).abs()
        rms, looks = float(apart.square().mean().sqrt()), found.looks / (len(levels) - 1)
        print(f"{name:<34} {way}: {rms:.1e} rms, {float(apart.max()):.1e} at most, {looks:.1f} looks a move")


def mixtures(steps: int) -> None:
    means = torch.tensor([[-0.8, 0.1], [0.2, 0.7], [0.6, -0.5]], dtype=torch.float64)
    data = Mixture(torch.ones(3, dtype=torch.float64), means, torch.full_like(means, 0.35))
    denoise = Exact(lambda x, level: data.posterior_mean(x, level.alpha, level.sigma))
    picture = data.sample(Noise(tuple(range(256))))
    curves: dict[str, Schedule] = {
        "linear": Table.linear(),
        "cosine": Table.cosine(),
        "flow": RectifiedFlow(),
    }
    for name, schedule in curves.items():
        round_trip(f"mixture, {name}, {steps} steps", denoise, picture, trailing(schedule, steps))


def denoiser(run: Run, classes: list[int], guidance: float) -> Denoiser:
    return run.denoiser(run.recipe(len(classes), classes=classes, guidance=guidance, sampler="ddim"))


def attributes(run: Run, x: Tensor, y: list[int], levels: Levels) -> None:
    judge, accuracy = train_judge()
    print(f"the judge knows {accuracy:.1%} of real digits")
    judge.requires_grad_(False)
    asked = [digit for _ in y for digit in range(10)]
    own = torch.tensor([10 * i + digit for i, digit in enumerate(y)])
    for up, down in ((1.0, 1.0), (1.0, 2.0), (2.0, 2.0), (3.0, 3.0)):
        noise = invert(denoiser(run, y, up), x, levels).x
        made = regenerate(denoiser(run, asked, down), noise.repeat_interleave(10, 0), levels).clamp(-1, 1)
        hit = (judge(made).argmax(1) == torch.tensor(asked)).float().mean()
        apart = float((made[own] - x).square().mean().sqrt())
        print(
            f"guidance {up:g} up, {down:g} down: {float(hit):.1%} of {len(asked)} are the class asked for; "
            f"made again as what it was, a digit is {apart:.1e} rms away"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    mixtures(options.steps)
    if options.run is None:
        return
    run, data = sfumato.load(options.run), prepare("digits")
    held = data.held_out(options.pictures)
    x, y = held.images, [] if held.classes is None else held.classes.tolist()
    levels = descending(sampler("ddim"), run.model.schedule, options.steps)
    for guidance in (1.0, 3.0):
        name = f"{len(y)} real digits, guidance {guidance:g}"
        round_trip(name, denoiser(run, y, guidance), x, levels)
    attributes(run, x, y, levels)


if __name__ == "__main__":
    main()
