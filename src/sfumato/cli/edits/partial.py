"""Pictures from less than themselves: by the task that a run was trained for, or by solving for what was
measured, whichever is asked for or possible."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfumato.cli.edits.easel import Easel, fitted, in_range
from sfumato.data.fit import fit, plain
from sfumato.editing.upscale import for_task, trained
from sfumato.editing.zero_shot import METHODS, Method, solve
from sfumato.errors import SettingsError
from sfumato.operators import Operator, convolution
from sfumato.operators import blur as gaussian_blur
from sfumato.runs import Recipe
from sfumato.training.hints import Hint

TRAINED = "trained"


@dataclass(frozen=True, eq=False)
class Partial:
    """How a task is done: by the run's own hint, or else by a method that solves."""

    easel: Easel
    name: str
    hint: Hint | None
    method: Method

    @staticmethod
    def of(easel: Easel, name: str, method: str | None, noise: float, scale: float | None) -> Partial:
        """As the options ask. Without a method it is the run's training, if it was trained for the task.
        Raises SettingsError for what cannot be done so."""
        task = trained(easel.run)
        hint = None if task is None else dict(task.parts).get(name)
        chosen = method or (METHODS[0] if hint is None else TRAINED)
        if chosen != TRAINED:
            return Partial(easel, name, None, Method(chosen, noise, scale))
        if hint is None:
            others = f"; any run can do it by --method {', '.join(METHODS)}" if name != "edges" else ""
            raise SettingsError(
                f"{easel.run.path} was not trained for this (sfumato train --task {name}){others}"
            )
        if noise or scale is not None:
            raise SettingsError(
                f"{name} by what the run was trained for takes no --noise and no --scale: leave them out, or "
                f"say --method {METHODS[0]}"
            )
        return Partial(easel, name, hint, Method())

    def told(self, make: Callable[[Recipe], Tensor]) -> Tensor:
        """The pictures of each batch, by a recipe that says the task to a model of several."""
        run = self.easel.run
        return torch.cat([make(for_task(run, part, self.name)) for part in self.easel.recipe.parts()])

    def solved(self, operator: Operator, y: Tensor) -> Tensor:
        """Pictures that give y, (1, ...), where they are measured by the operator."""
        run, parts = self.easel.run, self.easel.recipe.parts()
        return torch.cat([solve(run, part, operator, y, self.method) for part in parts])

    def rounded(self) -> Partial:
        """The same, told that the file's numbers are rounded: where a measurement all but loses something,
        that is a noise to reckon with. DPS is told no noise."""
        if self.hint is not None or self.method.name == "dps":
            return self
        step = 1 / (float(np.iinfo(self.easel.pixels().dtype).max) * math.sqrt(12))
        return replace(self, method=replace(self.method, noise=math.hypot(self.method.noise, step)))


def own_size(easel: Easel) -> Tensor:
    """The pictures in their own size, all the same, and in the model's channels and range, (n, C, h, w)."""
    every = [(easel.pixels(path), path) for path in easel.images]
    size = every[0][0].shape[0], every[0][0].shape[1]
    made = [in_range(easel.run, fitted(easel.run, a, path, easel.resize, size)) for a, path in every]
    return torch.stack(made)


def canvas(easel: Easel) -> Tensor:
    """The same, if it is as large as the model's pictures or larger; otherwise fitted to them if --resize
    says how, or refused."""
    shown, image = easel.pixels(), easel.run.card.image
    large = shown.shape[0] >= image.height and shown.shape[1] >= image.width
    return own_size(easel) if large and easel.resize is None else easel.picture()[None]


def blurring(easel: Easel, picture: Tensor, blur: float | None, kernel: Path | None) -> Operator:
    """What blurred a picture (1, C, H, W): a Gaussian of `blur` pixels, or the kernel in a file, its numbers
    scaled to add up to 1. Raises SettingsError unless one of the two is said."""
    shape = picture.shape[1:]
    if (blur is None) == (kernel is None):
        raise SettingsError(
            "how was the picture blurred? Say --blur and how many pixels, or --kernel and a picture of it, "
            "but not both"
        )
    if kernel is None:
        return gaussian_blur(shape, 0.0 if blur is None else blur)
    shown = fit(
        plain(easel.pixels(kernel, "kernel")), easel.pixels(kernel, "kernel").shape[:2], "crop", 1, True
    )
    weights = torch.from_numpy(shown[..., 0].astype(np.float64))
    return convolution(shape, weights / weights.sum().clamp(min=1))


def written(easel: Easel, made: Tensor) -> Tensor:
    """Pictures in the model's range as their files hold them: cut off at black and white, whole numbers."""
    image, steps = easel.run.card.image, 2**easel.run.card.image.bits - 1
    unit = ((made - image.low) / span(easel)).clamp(0, 1)
    return (unit * steps).round() / steps * span(easel) + image.low


def span(easel: Easel) -> float:
    """Of the model's range."""
    return easel.run.card.image.high - easel.run.card.image.low
