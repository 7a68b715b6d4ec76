"""Finding and showing directions for the command line; see `editing.directions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sfumato.cli.drawing import GRID
from sfumato.cli.edits.easel import Easel
from sfumato.cli.edits.starts import bench_of, starts
from sfumato.editing.directions import (
    SPACES,
    Directions,
    Listening,
    load_directions,
    picture_of,
    principal_features,
    principal_noise,
    slide,
)
from sfumato.editing.job import Job, bench, perform
from sfumato.errors import SettingsError
from sfumato.noise import Noise
from sfumato.plans import descend
from sfumato.sampling import prior

LOOKED = {"features": 128, "noise": 8}
ROUGH = 5
"""Steps of the way from noise to picture whose Jacobian is followed."""


def find(easel: Easel, space: str, count: int, pictures: int | None) -> tuple[Directions, tuple[str, ...]]:
    """The directions of a run under the recipe's conditions, and what is to be told of them."""
    if space not in SPACES:
        raise SettingsError(f"--space is one of {', '.join(SPACES)}, not {space!r}")
    n = LOOKED[space] if pictures is None else pictures
    if not 1 <= n <= 100_000:
        raise SettingsError(f"--pictures {n}: give a number from 1 to 100,000")
    if space == "noise":
        found = _in_noise(easel, count, n)
        words = [
            f"direction {i}: moves the picture {v:.2f} for each unit of noise" for i, v in _numbered(found)
        ]
    else:
        found = _in_features(easel, count, n)
        words = [f"direction {i}: {v:.1%} of what varies" for i, v in _numbered(found)]
    return found, tuple(words)


def _numbered(found: Directions) -> list[tuple[int, float]]:
    return list(enumerate(found.strength.tolist(), 1))


def _in_features(easel: Easel, count: int, n: int) -> Directions:
    """Of pictures that are drawn for it, seeds from the recipe's own on."""
    first = easel.recipe.seeds[0]
    recipe = replace(easel.recipe.take([0] * n), seeds=tuple(range(first, first + n)))
    batches: list[Listening] = []
    for part in recipe.parts():
        b = bench(easel.run, part)
        heard = Listening(b.denoise)
        x = prior(b.levels[0], easel.run.card.image.shape, b.noise).to(easel.run.device)
        for _ in perform(Job(heard, x, descend(b.levels)), b.how, b.noise):
            pass
        batches.append(heard)
    features = [torch.cat(parts) for parts in zip(*(heard.features for heard in batches), strict=True)]
    return principal_features(features, batches[0].angles, count)


def _in_noise(easel: Easel, count: int, n: int) -> Directions:
    """Around the given pictures' noises, or around those of seeds from the recipe's own on."""
    recipe = easel.recipe
    if easel.images:
        x = torch.cat([start.x for start in starts(easel)[1]])
    else:
        seeds = tuple(range(recipe.seeds[0], recipe.seeds[0] + n))
        levels = bench(easel.run, recipe.take([0])).levels
        x = prior(levels[0], easel.run.card.image.shape, Noise(seeds)).to(easel.run.device)
    rough = bench(easel.run, replace(recipe.take([0] * len(x)), sampler="ddim", steps=ROUGH, eta=None))
    return principal_noise(picture_of(rough.denoise, rough.levels), x, rough.levels[0], count)


def opened(easel: Easel, path: Path) -> tuple[Directions, tuple[str, ...]]:
    """The directions in a file; told: where they are those of other weights."""
    if not path.exists():
        raise SettingsError(f"{path} is not there: find directions first, with sfumato edit directions")
    found, about = load_directions(path)
    other = about.get("weights") != easel.run.sha256
    return found, (f"{path}: found with other weights than these",) if other else ()


def shown(easel: Easel, found: Directions, which: Sequence[int], amounts: Sequence[float]) -> Tensor:
    """The first picture, or that of the first seed, moved along each direction: a row for each, an amount a
    column."""
    if len(which) * len(amounts) > GRID:
        raise SettingsError(f"{len(which)} directions by {len(amounts)} amounts: at most {GRID:,} pictures")
    one, start = starts(easel, () if easel.images else easel.recipe.seeds[:1])
    steps = torch.tensor(list(amounts), dtype=torch.float64)
    rows: list[Tensor] = []
    for number in which:
        b = bench_of(easel, easel.recipe.take([0] * len(steps)))
        rows.append(b.finished(slide(b.denoise, start[0].x, one.levels, found, number, steps)))
    return torch.cat(rows)
