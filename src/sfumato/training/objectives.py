"""Objectives: losses per sample, which add: `Denoising() + 0.001 * VariationalBound(mean=False)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from sfumato.denoiser import Condition
from sfumato.errors import SettingsError
from sfumato.grids import ends
from sfumato.level import Level, spread_on
from sfumato.model import Model
from sfumato.predictions import Estimate
from sfumato.schedules import Schedule
from sfumato.training.weights import SIMPLE, Weight, weight_on


@dataclass(frozen=True)
class Trial:
    """One question and its answer: shown x = alpha x0 + sigma eps, the model said `estimate`. `schedule` is
    the model's own, for losses that look at a step or at a density of levels; `told` is what it was told."""

    x0: Tensor
    eps: Tensor
    level: Level
    estimate: Estimate
    schedule: Schedule | None = None
    told: Mapping[str, Condition] = field(default_factory=dict[str, Condition])


@runtime_checkable
class Objective(Protocol):
    """A loss per sample, (B,). Objectives add: `Denoising() + 0.5 * other`."""

    def __call__(self, trial: Trial) -> Tensor: ...

    def check(self, model: Model) -> None:
        """Raises SettingsError if this model cannot be trained so: its loss is not finite at some level, or
        it lacks what the objective is about."""
        ...


class Addable:
    """What makes an objective a term of a sum."""

    def __add__(self, other: Objective) -> Sum:
        return Sum(((1.0, cast(Objective, self)),)) + other

    def __mul__(self, share: float | int) -> Sum:
        return Sum(((float(share), cast(Objective, self)),))

    __rmul__ = __mul__


@dataclass(frozen=True)
class Sum:
    """A weighted sum of objectives."""

    parts: tuple[tuple[float, Objective], ...]

    def __call__(self, trial: Trial) -> Tensor:
        total = torch.zeros(len(trial.x0), device=trial.x0.device)
        for share, objective in self.parts:
            total = total + share * objective(trial)
        return total

    def check(self, model: Model) -> None:
        for _, objective in self.parts:
            objective.check(model)

    def __add__(self, other: Objective) -> Sum:
        return Sum(self.parts + (other.parts if isinstance(other, Sum) else ((1.0, other),)))

    def __mul__(self, share: float | int) -> Sum:
        return Sum(tuple((share * s, objective) for s, objective in self.parts))

    __rmul__ = __mul__


@dataclass(frozen=True)
class Denoising(Addable):
    """mean over the numbers of a picture of w(level) |y - target|^2, y what the network said on its own
    curve.

    The error is taken in the network's own terms and the weight is converted instead, so nothing is divided
    by a level that vanishes. Levels may be () per batch, (B,) per sample or finer (B, 1, H, W).

    With `huber` = c > 0 each weighted square e^2 becomes 2 c^2 (sqrt(1 + e^2/c^2) - 1), the pseudo-Huber loss
    (Charbonnier et al. 1997): e^2 below c and 2 c |e| above, so that outliers pull less.
    """

    weight: Weight = SIMPLE
    huber: float | int = 0.0

    def __post_init__(self) -> None:
        if not self.huber >= 0:
            raise SettingsError(f"the Huber loss's c must not be negative, not {self.huber}")

    def __call__(self, trial: Trial) -> Tensor:
        said = trial.estimate.said
        target = said.prediction.target(trial.x0, trial.eps, said.level)
        error = (said.y - target) ** 2
        weight = weight_on(self.weight, said.prediction, said.level)
        square = spread_on(weight, error) * error
        if self.huber:
            square = 2 * square / (torch.sqrt(1 + square / self.huber**2) + 1)
        return square.flatten(1).mean(1)

    def check(self, model: Model) -> None:
        prediction, level = model.prediction, ends(model.schedule)
        weights = weight_on(self.weight, prediction, level)
        if not bool(torch.isfinite(weights).all()):
            at = int((~torch.isfinite(weights)).nonzero()[0])
            raise SettingsError(
                f"{type(prediction).__name__} prediction with this loss weight has no finite loss at alpha = "
                f"{float(level.alpha[at]):.3g}, sigma = {float(level.sigma[at]):.3g}: predict v or flow, or "
                "choose the simple weight, or a schedule that does not reach this end"
            )
