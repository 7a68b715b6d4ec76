"""Weights of the loss. Each is stated once, on v of unit data, and means the same whatever the network
predicts.

At a fixed x = alpha x0 + sigma eps an error in one half is an error in the other: alpha dx0 = -sigma deps.
With r^2 = alpha^2 + sigma^2 and v = (alpha eps - sigma x0) / r,

    |dx0|^2 = (sigma^2/r^2) |dv|^2,    |deps|^2 = (alpha^2/r^2) |dv|^2,
    |d(eps - x0)|^2 = ((alpha + sigma)^2/r^2) |dv|^2.

A weight is a product of powers of alpha, sigma, alpha + sigma and hypot(d alpha, sigma) (or the least of
several), and so is the factor from v to what the network says. Their exponents are added before anything is
computed: nothing is ever multiplied by 0 and divided by it again, and the loss is finite at both ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.bound import lowest_variance
from sfumato.errors import SettingsError
from sfumato.forward import largest_variance, transition
from sfumato.level import Level
from sfumato.predictions import Clean, Epsilon, Flow, Prediction, Score, V
from sfumato.tables import Table


@dataclass(frozen=True)
class Powers:
    """scale alpha^alpha sigma^sigma (alpha + sigma)^sum prod_d hypot(d alpha, sigma)^hypot[d]."""

    scale: float = 1.0
    alpha: float | int = 0
    sigma: float | int = 0
    sum: float | int = 0
    hypot: tuple[tuple[float, float | int], ...] = ()

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
class P2:
    """|deps|^2 / (k + SNR)^gamma: less of the levels where only fine detail is missing (Choi et al. 2022, eq.
    8)."""

    gamma: float | int = 1.0
    k: float | int = 1.0

    def __post_init__(self) -> None:
        if not (self.gamma >= 0 and self.k > 0):
            raise SettingsError(
                f"P2's gamma must not be negative and its k above 0, not {self.gamma}, {self.k}"
            )

    def times(self, factor: Powers, level: Level) -> Tensor:
        own = Powers(
            self.k**-self.gamma, 2, 2 * self.gamma, hypot=((1 / math.sqrt(self.k), -2 * self.gamma),)
        )
        return (own * _PER_R2 * factor).at(level)


@dataclass(frozen=True)
class SigmoidWeight:
    """sigmoid(bias - log-SNR) |deps|^2 (Kingma & Gao 2023, section 4; Hoogeboom et al. 2024, eq. 9).

    Both papers write an integral over the log-SNR: it is theirs where the training levels are even in
    log-SNR, and otherwise weighed by their density, as every weight here. Up to a constant it is P2 with
    gamma = 1 and k = e^bias.
    """

    bias: float | int = 0.0

    def __post_init__(self) -> None:
        if not abs(self.bias) <= 100:
            raise SettingsError(f"the sigmoid weight's bias is a log-SNR in [-100, 100], not {self.bias}")

    def times(self, factor: Powers, level: Level) -> Tensor:
        own = Powers(alpha=2, sigma=2, hypot=((math.exp(-self.bias / 2), -2),))
        return (own * _PER_R2 * factor).at(level)


@dataclass(frozen=True)
class InverseVariance:
    """1 / (2 sigma_t^2) |deps|^2, sigma_t^2 the variance of the reverse step: as popular texts state the
    variational bound.

    It is not the bound's weight. That is `Ddpm`, which has the factor beta_t^2 / (alpha_t (1 - alpha-bar_t))
    beside it: between 4e-5 and 4e-4 over DDPM's thousand linear steps, and over eight powers of ten on the
    cosine table, so the two train different models. At the first step, where beta-tilde is 0, the second
    one's is taken.
    """

    table: Table
    variance: Literal["small", "large"] = "small"

    @cached_property
    def _steps(self) -> tuple[Tensor, Tensor]:
        """For each node: the gain from an error in x0 to one of the posterior's mean, and the variance."""
        t = torch.arange(self.table.steps + 1, dtype=torch.float64) / self.table.steps
        here, there = self.table.level(t[1:]), self.table.level(t[:-1])
        gain = there.alpha * transition(there, here).variance / here.sigma**2
        large = largest_variance(here, there)
        small = lowest_variance(here, there)
        small = torch.cat([small[1:2] if len(small) > 1 else large[:1], small[1:]])
        return gain, large if self.variance == "large" else small

    def _at(self, level: Level) -> tuple[Tensor, Tensor]:
        node = (self.table.time(level) * self.table.steps).round().long().clamp(1, self.table.steps) - 1
        gain, variance = self._steps
        return gain[node], variance[node]

    def times(self, factor: Powers, level: Level) -> Tensor:
        return SIMPLE.times(factor, level) / (2 * self._at(level)[1])


@dataclass(frozen=True)
class Ddpm(InverseVariance):
    """beta_t^2 / (2 sigma_t^2 alpha_t (1 - alpha-bar_t)) |deps|^2, in DDPM's notation: the KL of a step, but
    for what no estimate changes (Ho et al. 2020, eq. 12).

    Computed on x0, where it is finite at alpha-bar = 0 as well.
    """

    def times(self, factor: Powers, level: Level) -> Tensor:
        gain, variance = self._at(level)
        return CLEAN_LOSS.times(factor, level) * gain**2 / (2 * variance)


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
