"""Predictions: what a network's output y means. Each kind is y = p x0 + q eps for some p, q of the level.

Each gives back both halves, x0 and eps, of x = alpha x0 + sigma eps. V and Flow never divide by zero; Epsilon
and Score cannot tell x0 at alpha = 0, and Clean and Mean cannot tell eps at sigma = 0, because there the
network did not say it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.forward import posterior, transition
from sfumato.level import Level, spread_on
from sfumato.tables import Table


@runtime_checkable
class Prediction(Protocol):
    """What a network's output means: how to make its target, and how to read both halves from it."""

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """What the network should have said."""
        ...

    def x0(self, x: Tensor, y: Tensor, level: Level) -> Tensor:
        """The clean half, from the network's output y at x."""
        ...

    def eps(self, x: Tensor, y: Tensor, level: Level) -> Tensor:
        """The noise half, from the network's output y at x."""
        ...

    def tells(self, level: Level) -> bool:
        """Whether both halves can be told at this level."""
        ...


@dataclass(frozen=True)
class Epsilon:
    """The noise (Ho et al. 2020)."""

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return eps

    def x0(self, x: Tensor, y: Tensor, level: Level) -> Tensor:
        alpha, sigma = level.on(x)
        return (x - sigma * y) / alpha

    def eps(self, x: Tensor, y: Tensor, level: Level) -> Tensor:
        return y

    def tells(self, level: Level) -> bool:
        return bool((level.alpha > 0).all())


@dataclass(frozen=True)
class Clean:
    """The data itself."""

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return x0

    def x0(self, x: Tensor, y: Tensor, level: Level) -> Tensor:
        return y

    def eps(self, x: Tensor, y: Tensor, level: Level) -> Tensor:
        alpha, sigma = level.on(x)
        return (x - alpha * y) / sigma

    def tells(self, level: Level) -> bool:
        return bool((level.sigma > 0).all())


@dataclass(frozen=True)
class Score:
    """The score of q(x_t), grad log q = -eps / sigma (Song et al. 2021)."""

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return -eps / level.on(eps)[1]

    def x0(self, x: Tensor, y: Tensor, level: Level) -> Tensor:
        alpha, sigma = level.on(x)
        return (x + sigma**2 * y) / alpha

    def eps(self, x: Tensor, y: Tensor, level: Level) -> Tensor:
        return -level.on(x)[1] * y

    def tells(self, level: Level) -> bool:
        return bool(((level.alpha > 0) & (level.sigma > 0)).all())


@dataclass(frozen=True)
class Flow:
    """The velocity eps - x0 of the straight path (Liu et al. 2022; Lipman et al. 2023)."""

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return eps - x0

    def x0(self, x: Tensor, y: Tensor, level: Level) -> Tensor:
        alpha, sigma = level.on(x)
        return (x - sigma * y) / (alpha + sigma)

    def eps(self, x: Tensor, y: Tensor, level: Level) -> Tensor:
        alpha, sigma = level.on(x)
        return (x + alpha * y) / (alpha + sigma)

    def tells(self, level: Level) -> bool:
        return True


@dataclass(frozen=True)
class V:
    """v = (alpha eps - sigma x0) / r on data of standard deviation `data` (Salimans & Ho 2022, for data = 1).

    With a = alpha data and r = hypot(a, sigma): v = sign (a eps - sigma x0 / data) / r. Turning the sign,
    with data = 0.5, is the preconditioning of EDM: F = -v, c_skip and c_out come out (Karras et al. 2022, eq.
    7 and table 1).
    """

    data: float = 1.0
    sign: float = 1.0

    def _on(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        r = torch.hypot(level.alpha * self.data, level.sigma)
        return spread_on(level.alpha * self.data / r, x), spread_on(level.sigma / r, x)

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        cos, sin = self._on(x0, level)
        return self.sign * (cos * eps - sin * x0 / self.data)

    def x0(self, x: Tensor, y: Tensor, level: Level) -> Tensor:
        cos, sin = self._on(x, level)
        r = spread_on(torch.hypot(level.alpha * self.data, level.sigma), x)
        return self.data * (cos * x / r - self.sign * sin * y)

    def eps(self, x: Tensor, y: Tensor, level: Level) -> Tensor:
        cos, sin = self._on(x, level)
        r = spread_on(torch.hypot(level.alpha * self.data, level.sigma), x)
        return sin * x / r + self.sign * cos * y

    def tells(self, level: Level) -> bool:
        return True


@dataclass(frozen=True)
class Mean:
    """The mean of the posterior one table step down, mu(x_t, x0) (Ho et al. 2020, eq. 7): it depends on two
    levels."""

    table: Table

    def _below(self, level: Level) -> Level:
        """One step towards clean data, on the level's own scale."""
        below = self.table.level((self.table.time(level) - 1 / self.table.steps).clamp(min=0))
        return below.scaled(level.norm / below.norm)

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        alpha, sigma = level.on(x0)
        return posterior(alpha * x0 + sigma * eps, x0, level, self._below(level)).mean

    def x0(self, x: Tensor, y: Tensor, level: Level) -> Tensor:
        below = self._below(level)
        gain, variance = transition(below, level)
        weight = below.alpha * variance / level.sigma**2
        from_x = spread_on(gain * below.sigma**2 / level.sigma**2 / weight, x)
        return spread_on(1 / weight, x) * y - from_x * x

    def eps(self, x: Tensor, y: Tensor, level: Level) -> Tensor:
        return Clean().eps(x, self.x0(x, y, level), level)

    def tells(self, level: Level) -> bool:
        return bool((level.sigma > 0).all())


@dataclass(frozen=True)
class Said:
    """What a network said: its input x on the curve it was trained on, its output y, and what y means."""

    x: Tensor
    level: Level
    y: Tensor
    prediction: Prediction


@dataclass(frozen=True, eq=False)
class Estimate:
    """What is believed at (x, level): two halves, computed when asked for, with alpha x0 + sigma eps = x,
    always.

    The halves do not depend on the curve's scale, so they are told on the network's own curve (`said`).
    `spread` is the learned variance's interpolation, if the network has one: per pixel, 0 for beta-tilde and
    1 for beta.
    """

    x: Tensor
    level: Level
    said: Said
    spread: Tensor | None = None

    @staticmethod
    def of(x: Tensor, level: Level, *, x0: Tensor | None = None, eps: Tensor | None = None) -> Estimate:
        """The estimate with this clean half, or with this noise half."""
        if x0 is not None and eps is None:
            return Estimate(x, level, Said(x, level, x0, Clean()))
        if eps is not None and x0 is None:
            return Estimate(x, level, Said(x, level, eps, Epsilon()))
        raise TypeError("an estimate is made of one half: x0 or eps")

    @cached_property
    def x0(self) -> Tensor:
        """The clean half."""
        return self.said.prediction.x0(self.said.x, self.said.y, self.said.level)

    @cached_property
    def eps(self) -> Tensor:
        """The noise half."""
        return self.said.prediction.eps(self.said.x, self.said.y, self.said.level)

    @property
    def flow(self) -> Tensor:
        """eps - x0, the velocity of the straight path."""
        return self.eps - self.x0

    def but(self, *, x0: Tensor) -> Estimate:
        """The same place, another belief: guidance, clipping, thresholding. eps follows from x0; spread
        stays."""
        return Estimate(self.x, self.level, Said(self.x, self.level, x0, Clean()), self.spread)
