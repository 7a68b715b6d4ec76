"""Where an edit's way starts: the noise of a picture, of a noise file, or of a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sfumato.cli.edits.easel import Easel, fitted, in_range
from sfumato.conditions.schema import Wish
from sfumato.denoiser import Denoiser
from sfumato.editing.invert import Unseen, check_plain, invert, regenerate
from sfumato.editing.job import Bench, bench
from sfumato.errors import SettingsError
from sfumato.noise import Noise
from sfumato.runs import Recipe
from sfumato.sampling import prior


class Start(NamedTuple):
    """Noise x (1, C, H, W) at the first level of a way down, and what is to be told of it."""

    x: Tensor
    told: tuple[str, ...] = ()


def bench_of(easel: Easel, recipe: Recipe) -> Bench:
    """The bench for some of the results, on the way down from what was inverted if there are pictures."""
    b = bench(easel.run, recipe)
    return replace(b, denoise=Unseen(b.denoise)) if easel.images else b


def conditional(b: Bench, wishes: Sequence[Wish]) -> Denoiser:
    """The model alone, told these wishes, one for each row: what guidance goes around."""
    rows = b.run.conditions.rows(wishes)
    return b.run.model.given(**{name: value.to(b.run.device) for name, value in rows.items()})


def of_seed(b: Bench, seed: int) -> Start:
    """What `sfumato sample --seed` starts from."""
    return Start(prior(b.levels[0], b.run.card.image.shape, Noise((seed,))).to(b.run.device))


def of_file(easel: Easel, b: Bench, denoise: Denoiser, path: Path) -> Start:
    """The noise in a file of `sfumato edit invert`, or that of a picture, inverted under the conditions of
    `denoise`, a denoiser of one row."""
    shown = easel.pixels(path)
    if shown.dtype.kind == "f":
        return Start(noise_of(b, shown, path))
    check_plain(b.how)
    picture = in_range(b.run, fitted(b.run, shown, path, easel.resize))[None].to(b.run.device)
    x = invert(denoise, picture, b.levels).x
    return Start(x, (missed(path, picture, regenerate(denoise, x, b.levels), b),))


def noise_of(b: Bench, shown: np.ndarray, path: Path) -> Tensor:
    """The noise that a file holds, (1, C, H, W), at the first of the bench's levels."""
    if shown.shape != b.run.card.image.shape:
        raise SettingsError(
            f"{path} is the noise of pictures of shape {shown.shape}, and the model's are "
            f"{b.run.card.image.shape}: invert the picture with this model"
        )
    return torch.from_numpy(shown)[None].to(b.run.device) * float(b.levels[0].norm)


def starts(easel: Easel, seeds: Sequence[int] = ()) -> tuple[Bench, list[Start]]:
    """The bench of one picture, and where each of the easel's files and then of these seeds starts, under the
    recipe's own conditions."""
    b = bench_of(easel, easel.recipe.take([0]))
    found = [of_file(easel, b, b.denoise, path) for path in easel.images]
    return b, found + [of_seed(b, seed) for seed in seeds]


def missed(path: Path, picture: Tensor, again: Tensor, b: Bench) -> str:
    """How far a picture that is made again from its noise is from itself, in words."""
    low, high = b.run.card.image.low, b.run.card.image.high
    apart = (again - picture).double() * 255 / (high - low)
    rms, largest = float(apart.square().mean().sqrt()), float(apart.abs().max())
    said = f"{rms:.2g} of 255 (root mean square), {largest:.2g} at most"
    return f"{path}: made again from its noise it is off by {said}"


def numbers(text: str, option: str) -> list[float]:
    """ "-2,-1,0.5" as numbers. Raises SettingsError with the option's name."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not bool(np.isfinite(found).all()) or len(found) > 1000:
        raise SettingsError(f"{option} {text!r}: give numbers with commas between, such as -2,-1,0,1,2")
    return found


def whole(text: str, option: str) -> list[int]:
    """ "3,8,12" as whole numbers. Raises SettingsError with the option's name."""
    found = numbers(text, option)
    if any(value != int(value) for value in found):
        raise SettingsError(f"{option} {text!r}: give whole numbers with commas between, such as 3,8,12")
    return [int(value) for value in found]
