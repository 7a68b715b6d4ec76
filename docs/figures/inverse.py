"""The figures of docs/inverse.md, from a run on the digits: `python docs/figures/inverse.py runs/digits`.

Colourisation is by the model of emoji that ships; with an upscaler of the digits (`--upscaler runs/upscaler`)
also the picture of a trained task.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

import sfumato
from sfumato.editing.upscale import enlarged, trained
from sfumato.editing.zero_shot import Method, solve
from sfumato.evaluation.pictures import choose
from sfumato.operators import Operator, blur, downsample, grey, mask, sensing
from sfumato.runs import Run
from sfumato.training.figures import write_grid
from sfumato.training.hints import Upscale

IMAGES = Path(__file__).parents[1] / "images" / "inverse"
MANY = 8


def drawn(run: Run, operator: Operator, y: Tensor, name: str) -> Tensor:
    """One picture from each row of y, by a method."""
    steps = 100 if name == "dps" else None
    recipe = run.recipe(len(y), steps=steps, classes=[None] * len(y) if run.classes else None)
    return solve(run, recipe, operator, y, Method(name))


def sheet(run: Run, truth: Tensor, operator: Operator, shown: Tensor, path: Path) -> None:
    """A row each: the picture, what was measured, and what Pi-GDM, DDRM and DPS make of it."""
    y = operator(truth)
    rows = [truth, shown, *(drawn(run, operator, y, name) for name in ("pigdm", "ddrm", "dps"))]
    write_grid(path, torch.cat(rows), len(truth))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--upscaler", type=Path)
    options = parser.parse_args()
    run = sfumato.load(options.run)
    truth = choose(run, options.data, n=MANY).x0.float()
    shape = truth.shape[1:]
    height, width = shape[1:]
    small = downsample(shape, (height // 4, width // 4))
    known = torch.ones(height, width, dtype=torch.bool)
    known[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = False
    hole, soft, few = mask(known, shape[0]), blur(shape, 1.5), sensing(shape, 0.2)
    large = interpolate(small(truth), (height, width), mode="nearest")
    sheet(run, truth, small, large, IMAGES / "upscale.png")
    sheet(run, truth, soft, soft(truth), IMAGES / "deblur.png")
    sheet(run, truth, hole, torch.where(known, truth, torch.zeros(())), IMAGES / "hole.png")
    sheet(run, truth, few, few.inverse(few(truth)), IMAGES / "sense.png")
    run = sfumato.load("emoji")
    truth = choose(run, "emoji", n=MANY).x0.float()
    light = grey(truth.shape[1:])
    sheet(run, truth, light, light(truth).expand(-1, 3, -1, -1), IMAGES / "colourise.png")
    if options.upscaler is not None:
        run = sfumato.load(options.upscaler)
        truth = choose(run, options.data, n=MANY).x0.float()
        task = trained(run)
        by = dict(task.parts)["upscale"] if task is not None else None
        if not isinstance(by, Upscale):
            raise SystemExit(f"{options.upscaler} was not trained by --task upscale")
        small_ones = by.shrunk(truth)
        recipe = run.recipe(len(truth), classes=[None] * len(truth) if run.classes else None)
        size = truth.shape[2], truth.shape[3]
        shown = [
            truth,
            interpolate(small_ones, size, mode="nearest"),
            interpolate(small_ones, size, mode="bicubic"),
        ]
        made = enlarged(run, recipe, small_ones, by)
        write_grid(IMAGES / "trained.png", torch.cat([*shown, made]), len(truth))


if __name__ == "__main__":
    main()
