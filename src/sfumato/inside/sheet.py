"""The trajectory sheet: x on its way from noise to picture, with what is guessed of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfumato.card import ImageSettings
from sfumato.errors import SettingsError
from sfumato.inside.figure import literal
from sfumato.inside.panel import Row, panel, shown, write_panel
from sfumato.level import Level, spread_on
from sfumato.predictions import Estimate
from sfumato.runs import Recipe, Run

MOST = 8
"""The most pictures on one sheet."""
_CORNER = "t\nlog-SNR"
_FINE = 16
_EPS = 3.0
"""Noise from -3 to 3 is shown from black to white."""


@dataclass(frozen=True, eq=False)
class Moment:
    """What the step of this number was made from: x (n, C, H, W) on the scale of unit data, and the two
    halves believed. The level is one for all pictures, (), or where they step by themselves, (n,)."""

    step: int
    level: Level
    t: Tensor
    x: Tensor
    x0: Tensor
    eps: Tensor

    @property
    def alike(self) -> bool:
        """Whether all pictures are at one level."""
        return self.level.alpha.ndim == 0

    def words(self, i: int = 0) -> str:
        """The time and log-SNR of picture i."""
        return f"{float(self.t.reshape(-1)[0 if self.alike else i]):.2f}\n{log_snr_words(self.level, i)}"


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Some moments of a walk, the noisiest first, and where it ended, (n, C, H, W)."""

    moments: Sequence[Moment]
    pictures: Tensor


def log_snr_words(level: Level, i: int = 0) -> str:
    """A level's log-SNR with one decimal, that of picture i if they differ; the ends by infinity's sign."""
    values = level.log_snr.reshape(-1)
    value = float(values[i if len(values) > 1 else 0])
    if math.isfinite(value):
        return f"{round(value, 1) + 0.0:.1f}".replace("-", "−")
    return "∞" if value > 0 else "−∞"


def trajectory(run: Run, recipe: Recipe, moments: int = 8) -> Trajectory:
    """Walks the recipe in one batch and keeps `moments` of its estimates, spread evenly over its moves.

    Raises SettingsError for fewer than one moment, and what the walk itself raises.
    """
    if moments < 1:
        raise SettingsError(f"{moments} moments of a walk: give at least 1")
    kept: list[Moment] = []
    last: Moment | None = None
    x, seen, stride = torch.empty(0), 0, 1
    for step in run.walk(recipe):
        x = step.x
        if step.estimate is None:
            continue
        last = _moment(run, step.i + 1, step.estimate)
        if seen % stride == 0:
            kept.append(last)
        if len(kept) > _FINE * moments:  # a long walk is not held whole
            kept, stride = kept[::2], 2 * stride
        seen += 1
    kept += [last] if last is not None and kept[-1] is not last else []
    places = torch.linspace(0, len(kept) - 1, min(moments, len(kept)), dtype=torch.float64).round()
    return Trajectory([kept[int(i)] for i in places], run.finished(x, recipe))


def _moment(run: Run, step: int, e: Estimate) -> Moment:
    t = run.model.schedule.time(e.level).clamp(0, 1)
    return Moment(step, e.level, t, (e.x / spread_on(e.level.norm, e.x)).cpu(), e.x0.cpu(), e.eps.cpu())


def check_sheet(path: Path | None, moments: int) -> None:
    """Raises SettingsError for a name that is no PNG's, or for no moments: before any work is done."""
    if path is not None and path.suffix.lower() != ".png":
        raise SettingsError(f"--sheet {path}: a trajectory sheet is a PNG: give a name that ends in .png")
    if moments < 1:
        raise SettingsError(f"--sheet-steps {moments}: give a whole number from 1")


def write_sheet(run: Run, recipe: Recipe, path: Path, moments: int = 8) -> Path:
    """Writes the sheet of the recipe's first 8 pictures, three lines each, as PNG; gives its path.

    Top line: x_t on the scale of unit data. Middle: the guess of x0, at the end the picture. Bottom: the
    guess of eps, -3 black and 3 white. They are walked in a batch of their own, so their pictures agree with
    others' of the recipe up to rounding. Raises SettingsError for a name that does not end in .png.
    """
    check_sheet(path, moments)
    recipe = recipe.take(range(min(MOST, len(recipe.seeds))))
    found = trajectory(run, recipe, moments)
    image, alike = run.card.image, all(m.alike for m in found.moments)
    rows: list[Row] = []
    for i, seed in enumerate(recipe.seeds):
        number = None if recipe.classes is None else recipe.classes[i]
        title = f"seed {seed}" + ("" if number is None else f"\n“{literal(run.classes[number][:12])}”")
        x = [shown(m.x[i], image) for m in found.moments]
        x0 = [shown(m.x0[i], image) for m in found.moments]
        eps = [_noise(m.eps[i], image) for m in found.moments]
        rows.append(Row([*x, None], "$x_t$", "", True))
        rows.append(Row([*x0, shown(found.pictures[i], image)], "$\\hat x_0$", title))
        notes = () if alike else [m.words(i) for m in found.moments]
        rows.append(Row([*eps, None], "$\\hat\\epsilon$", notes=notes, noted=_CORNER if notes else ""))
    heads = [m.words() if alike else f"step {m.step}" for m in found.moments]
    return write_panel(path, panel([*heads, "the picture"], rows, _CORNER if alike else ""))


def _noise(eps: Tensor, image: ImageSettings) -> np.ndarray:
    """Noise as a picture of its colours, without what would be transparency."""
    colours = eps[:-1] if len(eps) in (2, 4) else eps
    return shown(colours / _EPS * (image.high - image.low) / 2 + (image.high + image.low) / 2, image)
