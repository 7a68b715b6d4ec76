"""The loss. Its weight is stated once, on v of unit data, and means the same whatever the network predicts.

At a fixed x = alpha x0 + sigma eps an error in one half is an error in the other: alpha dx0 = -sigma deps.
With r^2 = alpha^2 + sigma^2 and v = (alpha eps - sigma x0) / r,

    |dx0|^2 = (sigma^2/r^2) |dv|^2,    |deps|^2 = (alpha^2/r^2) |dv|^2,
    |d(eps - x0)|^2 = ((alpha + sigma)^2/r^2) |dv|^2.

A weight is a product of powers of alpha, sigma, alpha + sigma and hypot(d alpha, sigma) (or the least of
several), and so is the factor from v to what the network says. Their exponents are added before anything is
computed: nothing is ever multiplied by 0 and divided by it again, and the loss is finite at both ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.level import Level, spread_on
from sfumato.predictions import Clean, Epsilon, Estimate, Flow, Prediction, Score, V


@dataclass(frozen=True)
class Powers:
    """scale alpha^alpha sigma^sigma (alpha + sigma)^sum prod_d hypot(d alpha, sigma)^hypot[d]."""

    scale: float = 1.0
    alpha: int = 0
    sigma: int = 0
    sum: int = 0
    hypot: tuple[tuple[float, int], ...] = ()

    def __mul__(self, other: Powers) -> Powers:
        hypot = dict(self.hypot)
        for data, power in other.hypot:
            hypot[data] = hypot.get(data, 0) + power
        return Powers(
            self.scale * other.scale,
            self.alpha + other.alpha,
            self.sigma + other.sigma,
            self.sum + other.sum,
            tuple((data, power) for data, power in hypot.items() if power),
        )

    def at(self, level: Level) -> Tensor:
        """The value at a level, float64; a power of 0 is not computed."""
        out = torch.full_like(level.alpha, self.scale)
        parts = [(level.alpha, self.alpha), (level.sigma, self.sigma), (level.alpha + level.sigma, self.sum)]
        parts += [(torch.hypot(data * level.alpha, level.sigma), power) for data, power in self.hypot]
        for part, power in parts:
            if power:
                out = out * part**power
        return out


_PER_R2 = Powers(hypot=((1.0, -2),))


@runtime_checkable
class Weight(Protocol):
    """The weight of |dv|^2 at a level, times `factor` (what turns the network's own error into v's), shaped
    like it."""

    def times(self, factor: Powers, level: Level) -> Tensor: ...


@dataclass(frozen=True)
class Product:
    """A weight that is one product of powers."""

    powers: Powers

    def times(self, factor: Powers, level: Level) -> Tensor:
        return (self.powers * factor).at(level)


SIMPLE = Product(Powers(alpha=2) * _PER_R2)
"""|deps|^2: L_simple (Ho et al. 2020, eq. 14)."""
CLEAN_LOSS = Product(Powers(sigma=2) * _PER_R2)
"""|dx0|^2."""
V_LOSS = Product(Powers())
"""|dv|^2: "SNR + 1" on x0 (Salimans & Ho 2022)."""
FLOW_LOSS = Product(Powers(sum=2) * _PER_R2)
"""|d(eps - x0)|^2: conditional flow matching (Lipman et al. 2023)."""


@dataclass(frozen=True)
class MinSnr:
    """min(SNR, gamma) |dx0|^2, the same as min(1, gamma / SNR) |deps|^2 (Hang et al. 2023)."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise SettingsError(f"min-SNR's gamma must be above 0, not {self.gamma}")

    def times(self, factor: Powers, level: Level) -> Tensor:
        low = Powers(alpha=2) * _PER_R2 * factor
        high = Powers(scale=self.gamma, sigma=2) * _PER_R2 * factor
        return torch.minimum(low.at(level), high.at(level))


@dataclass(frozen=True)
class Edm:
    """(sigma^2 + data^2) / (sigma data)^2 |dx0|^2 at alpha = 1 (Karras et al. 2022, table 1).

    That is |d F|^2 for EDM's network F: uniform on V(data, sign).
    """

    data: float = 0.5

    def __post_init__(self) -> None:
        if not self.data > 0:
            raise SettingsError(f"the data's standard deviation must be above 0, not {self.data}")

    def times(self, factor: Powers, level: Level) -> Tensor:
        return (Powers(self.data**-2, hypot=((self.data, 2),)) * _PER_R2 * factor).at(level)


@dataclass(frozen=True)
class Custom:
    """A user's own weight of |dv|^2: level -> tensor shaped like the level, float64."""

    of: Callable[[Level], Tensor]

    def times(self, factor: Powers, level: Level) -> Tensor:
        return self.of(level) * factor.at(level)


def to_v(prediction: Prediction) -> Powers | None:
    """|dv|^2 / |dy|^2 for what the network says, None for a prediction that is not known here."""
    r2 = Powers(hypot=((1.0, 2),))
    if isinstance(prediction, Epsilon):
        return r2 * Powers(alpha=-2)
    if isinstance(prediction, Clean):
        return r2 * Powers(sigma=-2)
    if isinstance(prediction, Score):
        return r2 * Powers(alpha=-2, sigma=2)
    if isinstance(prediction, Flow):
        return r2 * Powers(sum=-2)
    if isinstance(prediction, V):
        return r2 * Powers(prediction.data**2, hypot=((prediction.data, -2),))
    return None


def _measured(prediction: Prediction, level: Level) -> Tensor:
    """|dv|^2 / |dy|^2 of any prediction, from what a change of its output does to both halves (they are
    affine)."""
    one, zero = torch.ones_like(level.alpha), torch.zeros_like(level.alpha)
    x0 = prediction.x0(zero, one, level) - prediction.x0(zero, zero, level)
    eps = prediction.eps(zero, one, level) - prediction.eps(zero, zero, level)
    return ((level.alpha * eps - level.sigma * x0) / level.norm) ** 2


def weight_on(weight: Weight, prediction: Prediction, level: Level) -> Tensor:
    """The weight of the network's own squared error |dy|^2, shaped like the level, float64."""
    factor = to_v(prediction)
    if factor is not None:
        return weight.times(factor, level)
    return weight.times(Powers(), level) * _measured(prediction, level)


@dataclass(frozen=True)
class Trial:
    """One question and its answer: shown x = alpha x0 + sigma eps, the model said `estimate`."""

    x0: Tensor
    eps: Tensor
    level: Level
    estimate: Estimate


@runtime_checkable
class Objective(Protocol):
    """A loss per sample, (B,). Objectives add: `Denoising() + 0.5 * other`."""

    def __call__(self, trial: Trial) -> Tensor: ...

    def check(self, prediction: Prediction, level: Level) -> None:
        """Raises SettingsError if the loss is not finite at one of these levels."""
        ...


@dataclass(frozen=True)
class Sum:
    """A weighted sum of objectives."""

    parts: tuple[tuple[float, Objective], ...]

    def __call__(self, trial: Trial) -> Tensor:
        total = torch.zeros(len(trial.x0), device=trial.x0.device)
        for share, objective in self.parts:
            total = total + share * objective(trial)
        return total

    def check(self, prediction: Prediction, level: Level) -> None:
        for _, objective in self.parts:
            objective.check(prediction, level)

    def __add__(self, other: Objective) -> Sum:
        return Sum(self.parts + (other.parts if isinstance(other, Sum) else ((1.0, other),)))

    def __mul__(self, share: float | int) -> Sum:
        return Sum(tuple((share * s, objective) for s, objective in self.parts))

    __rmul__ = __mul__


@dataclass(frozen=True)
class Denoising:
    """mean over the numbers of a picture of w(level) |y - target|^2, y what the network said on its own
    curve.

    The error is taken in the network's own terms and the weight is converted instead, so nothing is divided
    by a level that vanishes. Levels may be () per batch, (B,) per sample or finer (B, 1, H, W).
    """

    weight: Weight = SIMPLE

    def __call__(self, trial: Trial) -> Tensor:
        said = trial.estimate.said
        target = said.prediction.target(trial.x0, trial.eps, said.level)
        error = (said.y - target) ** 2
        weight = weight_on(self.weight, said.prediction, said.level)
        return (spread_on(weight, error) * error).flatten(1).mean(1)

    def check(self, prediction: Prediction, level: Level) -> None:
        weights = weight_on(self.weight, prediction, level)
        if not bool(torch.isfinite(weights).all()):
            at = int((~torch.isfinite(weights)).nonzero()[0])
            raise SettingsError(
                f"{type(prediction).__name__} prediction with this loss weight has no finite loss at alpha = "
                f"{float(level.alpha[at]):.3g}, sigma = {float(level.sigma[at]):.3g}: predict v or flow, or "
                "choose the simple weight, or a schedule that does not reach this end"
            )

    def __add__(self, other: Objective) -> Sum:
        return Sum(((1.0, self),)) + other

    def __mul__(self, share: float | int) -> Sum:
        return Sum(((float(share), self),))

    __rmul__ = __mul__
