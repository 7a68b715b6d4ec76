"""Finding and showing directions for the command line; see `editing.directions`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sfumato.cli.drawing import GRID
from sfumato.cli.edits.easel import DIRECTIONS, Easel
from sfumato.cli.edits.starts import Start, bench_of, conditional, starts
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
from sfumato.guidance.bound import Clipped
from sfumato.noise import Noise
from sfumato.plans import descend
from sfumato.runs import Recipe
from sfumato.sampling import prior

LOOKED = {"features": 64, "noise": 8}
ROUGH = 5
"""Steps of the way from noise to picture whose Jacobian is followed."""


def looked_at(space: str, count: int, pictures: int | None, amounts: int) -> int:
    """How many pictures are looked at. Raises SettingsError for what cannot be found or shown."""
    if space not in SPACES:
        raise SettingsError(f"--space is one of {', '.join(SPACES)}, not {space!r}")
    n = LOOKED[space] if pictures is None else pictures
    if not 1 <= n <= 100_000:
        raise SettingsError(f"--pictures {n}: give a number from 1 to 100,000")
    most = GRID // amounts if space == "noise" else min(n - 1, GRID // amounts)
    if not 1 <= count <= most:
        more = " or more --pictures" if space == "features" and most == n - 1 else ""
        raise SettingsError(f"--count {count}: give 1 to {most}{more}")
    return n


def begun(easel: Easel) -> list[Start]:
    """Where the pictures start, or that of the first seed."""
    return starts(easel, () if easel.images else easel.recipe.seeds[:1])[1]


def find(
    easel: Easel, space: str, count: int, n: int, of: Sequence[Start]
) -> tuple[Directions, tuple[str, ...]]:
    """The directions of a run under the recipe's conditions, or around the noise of the given pictures `of`;
    and what is to be told of them."""
    if space == "noise":
        found = _in_noise(easel, count, n, of)
        words = [
            f"direction {i}: moves the picture {v:.2f} for each unit of noise" for i, v in _numbered(found)
        ]
    else:
        found = _in_features(easel, count, n)
        words = [f"direction {i}: {v:.1%} of what varies" for i, v in _numbered(found)]
    return found, tuple(words)


def _numbered(found: Directions) -> list[tuple[int, float]]:
    return list(enumerate(found.strength.tolist(), 1))


def _seeded(recipe: Recipe, n: int) -> Recipe:
    """n pictures under the recipe's conditions in turns, of seeds from its first on."""
    rows = [row % len(recipe.seeds) for row in range(n)]
    return replace(recipe.take(rows), seeds=tuple(range(recipe.seeds[0], recipe.seeds[0] + n)))


def _in_features(easel: Easel, count: int, n: int) -> Directions:
    """Of pictures that are drawn for it, unguided."""
    recipe = _seeded(easel.recipe, n)
    batches: list[Listening] = []
    for part in recipe.parts():
        b = bench(easel.run, part)
        image, told = easel.run.card.image, conditional(b, part.wishes())
        heard = Listening(Clipped(told, image.low, image.high) if part.clip else told)
        x = prior(b.levels[0], image.shape, b.noise).to(easel.run.device)
        for _ in perform(Job(heard, x, descend(b.levels)), b.how, b.noise):
            pass
        batches.append(heard)
    features = [torch.cat(parts) for parts in zip(*(heard.features for heard in batches), strict=True)]
    return principal_features(features, batches[0].angles, count)


def _in_noise(easel: Easel, count: int, n: int, of: Sequence[Start]) -> Directions:
    """Around the given pictures' noises, or around those of seeds from the recipe's own on."""
    recipe = easel.recipe
    if easel.images:
        x = torch.cat([start.x for start in of])
        recipe = recipe.take([0] * len(x))
    else:
        recipe = _seeded(recipe, n)
        level = bench(easel.run, recipe.take([0])).levels[0]
        x = prior(level, easel.run.card.image.shape, Noise(recipe.seeds)).to(easel.run.device)
    rough = bench(easel.run, replace(recipe, sampler="ddim", steps=ROUGH, eta=None))
    return principal_noise(picture_of(rough.denoise, rough.levels), x, rough.levels[0], count)


def opened(easel: Easel, path: Path) -> tuple[Directions, tuple[str, ...]]:
    """The directions in a file; told: where they are those of other weights."""
    if not path.exists():
        raise SettingsError(f"{path} is not there: find directions first, with sfumato edit directions")
    easel.pixels(path, DIRECTIONS)
    found, about = load_directions(path)
    other = about.get("weights") != easel.run.sha256
    return found, (f"{path}: found with other weights than these",) if other else ()


def shown(
    easel: Easel, found: Directions, of: Start, which: Sequence[int], amounts: Sequence[float]
) -> Tensor:
    """The picture that starts there, moved along each direction: a row for each, an amount a column."""
    steps = torch.tensor(list(amounts), dtype=torch.float64)
    rows: list[Tensor] = []
    for number in which:
        b = bench_of(easel, easel.recipe.take([0] * len(steps)))
        rows.append(b.finished(slide(b.denoise, of.x, b.levels, found, number, steps)))
    return torch.cat(rows)
