"""Schedules: curves of levels. t = 0 is the least noise, t = 1 the most; `time` is the exact inverse of
`level`.

Every variance-preserving sigma is `sqrt(-expm1(2 log alpha))` or a product of sines, never `sqrt(1 -
alpha^2)`, which loses its digits near clean data. `time` looks at the ratio sigma : alpha only, so it places
a level of any other curve as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.level import Level


@runtime_checkable
class Schedule(Protocol):
    """A curve of levels, t in [0, 1]."""

    def level(self, t: Tensor) -> Level:
        """The level at time t; float64."""
        ...

    def time(self, level: Level) -> Tensor:
        """The time at which the curve is as noisy as `level`: below 0 or above 1, infinite perhaps, if it
        never is."""
        ...


def preserving(log_alpha: Tensor) -> Level:
    """The level of this log alpha on the unit circle; sigma keeps its digits near clean data."""
    return Level(log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt())


def _spent(level: Level) -> Tensor:
    """-2 log alpha on the variance-preserving curve of the same noisiness: the integral of beta up to this
    level."""
    return torch.log1p((level.sigma / level.alpha) ** 2)


@dataclass(frozen=True)
class RectifiedFlow:
    """alpha = 1 - t, sigma = t (Liu et al. 2022; Lipman et al. 2023)."""

    def level(self, t: Tensor) -> Level:
        return Level(1 - t, t)

    def time(self, level: Level) -> Tensor:
        return level.sigma / (level.alpha + level.sigma)


@dataclass(frozen=True)
class Cosine:
    """alpha-bar = cos^2(pi/2 (t + s)/(1 + s)), normalised to 1 at t = 0 (Nichol & Dhariwal 2021, eq. 17).

    s = 0 is the plain cos^2(pi t / 2) of popular texts, which call alpha what is alpha-bar. alpha(1) == 0
    exactly.
    """

    s: float = 0.008

    def _angles(self) -> tuple[float, float]:
        return math.pi / 2 / (1 + self.s), math.pi / 2 * self.s / (1 + self.s)

    def level(self, t: Tensor) -> Level:
        rate, start = self._angles()
        scale = math.cos(start)
        # cos^2(start) - cos^2(start + rate t) as a product of sines: exactly 0 at t = 0.
        sigma = (torch.sin(t * rate) * torch.sin(t * rate + 2 * start)).clamp(min=0).sqrt()
        return Level(torch.sin((1 - t) * rate) / scale, sigma / scale)

    def time(self, level: Level) -> Tensor:
        rate, start = self._angles()
        # cos(start + rate t) = cos(angle) cos(start), and its sine without 1 - cos^2.
        a = torch.cos(level.angle) * math.cos(start)
        whole = torch.atan2((torch.sin(level.angle) ** 2 + a**2 * math.tan(start) ** 2).sqrt(), a)
        return (whole - start) / rate


@dataclass(frozen=True)
class Linear:
    """beta(t) = lo + (hi - lo) t in continuous time (Song et al. 2021, eq. 32): DDPM's linear betas as T
    grows."""

    lo: float = 0.1
    hi: float = 20.0

    def level(self, t: Tensor) -> Level:
        return preserving(-(t**2) * (self.hi - self.lo) / 4 - t * self.lo / 2)

    def time(self, level: Level) -> Tensor:
        spent = _spent(level)
        time = 2 * spent / (self.lo + (self.lo**2 + 2 * (self.hi - self.lo) * spent).sqrt())
        return torch.where(spent < math.inf, time, spent)


@dataclass(frozen=True)
class ScaledLinear:
    """sqrt(beta) linear in t, in continuous time: the schedule of latent diffusion (Rombach et al. 2022)."""

    lo: float = 0.85
    hi: float = 12.0

    def level(self, t: Tensor) -> Level:
        root, slope = math.sqrt(self.lo), math.sqrt(self.hi) - math.sqrt(self.lo)
        return preserving(-t / 2 * (root**2 + root * slope * t + slope**2 * t**2 / 3))

    def time(self, level: Level) -> Tensor:
        root, slope = math.sqrt(self.lo), math.sqrt(self.hi) - math.sqrt(self.lo)
        spent = _spent(level)
        c = (root**3 + 3 * slope * spent) ** (1 / 3)  # sqrt(beta) at that time
        time = 3 * spent / (c**2 + c * root + root**2)  # (c - root) / slope without the difference
        return torch.where(spent < math.inf, time, spent)


@dataclass(frozen=True)
class ConstantBeta:
    """beta(t) = beta: alpha-bar = exp(-beta t). To first order 1 - beta t, which some texts write for it (as
    "alpha_t")."""

    beta: float = 10.0

    def level(self, t: Tensor) -> Level:
        return preserving(-self.beta * t / 2)

    def time(self, level: Level) -> Tensor:
        return _spent(level) / self.beta


@dataclass(frozen=True)
class LinearAlphaBar:
    """alpha-bar = 1 - beta t, the "alpha_t = 1 - beta t" of popular texts at its word; beta in (0, 1]."""

    beta: float = 1.0

    def level(self, t: Tensor) -> Level:
        return Level((1 - self.beta * t).clamp(min=0).sqrt(), (self.beta * t).sqrt())

    def time(self, level: Level) -> Tensor:
        return torch.sin(level.angle) ** 2 / self.beta


@dataclass(frozen=True)
class Sigmoid:
    """alpha-bar falls along a sigmoid from `start` to `end`, steepness 1/tau (Jabri et al. 2022; Chen 2023).

    Differences of sigmoids are written as sinh(x - y) / (cosh x cosh y), exact at both ends.
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0

    def __post_init__(self) -> None:
        if self.start == self.end or self.tau <= 0:
            raise SettingsError(
                f"a sigmoid from {self.start:g} to {self.end:g} with tau = {self.tau:g} does not rise: give "
                "two ends and a tau above 0"
            )

    def _ends(self) -> tuple[float, float]:
        return self.start / self.tau / 2, self.end / self.tau / 2

    def level(self, t: Tensor) -> Level:
        lo, hi = self._ends()
        z = lo + (hi - lo) * t
        scale = math.sinh(hi - lo) * torch.cosh(z)
        alpha2 = torch.sinh((hi - lo) * (1 - t)) * math.cosh(lo) / scale
        sigma2 = torch.sinh((hi - lo) * t) * math.cosh(hi) / scale
        return Level(alpha2.clamp(min=0).sqrt(), sigma2.clamp(min=0).sqrt())

    def time(self, level: Level) -> Tensor:
        lo, hi = self._ends()
        a, s = level.alpha**2 * math.cosh(hi), level.sigma**2 * math.cosh(lo)
        z = torch.log((a * math.exp(lo) + s * math.exp(hi)) / (a * math.exp(-lo) + s * math.exp(-hi))) / 2
        return (z - lo) / (hi - lo)


@dataclass(frozen=True)
class VE:
    """alpha = 1, sigma geometric from lo to hi (Song et al. 2021; the range of Karras et al. 2022)."""

    lo: float = 0.002
    hi: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.lo < self.hi:
            raise SettingsError(f"sigma must rise from above 0, not go from {self.lo:g} to {self.hi:g}")

    def level(self, t: Tensor) -> Level:
        sigma = self.lo * torch.exp(t * math.log(self.hi / self.lo))
        return Level(torch.ones_like(sigma), sigma)

    def time(self, level: Level) -> Tensor:
        return torch.log(level.sigma / level.alpha / self.lo) / math.log(self.hi / self.lo)


def at_log_snr(log_snr: Tensor) -> Level:
    """The variance-preserving level of a log-SNR: alpha^2 = sigmoid(log-SNR), sigma^2 = sigmoid(-log-SNR)."""
    return Level(torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt())


@dataclass(frozen=True)
class LogLinear:
    """log-SNR falling in a straight line from -gamma_min to -gamma_max, variance-preserving: what VDM's
    learned schedule starts from (Kingma et al. 2021, appendix B).

    Both ends are finite, so the bound of a continuous process is too.
    """

    gamma_min: float = -13.3
    gamma_max: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma_min < self.gamma_max:
            raise SettingsError(f"gamma must rise, not go from {self.gamma_min} to {self.gamma_max}")

    def level(self, t: Tensor) -> Level:
        return at_log_snr(-self.gamma_min - (self.gamma_max - self.gamma_min) * t)

    def time(self, level: Level) -> Tensor:
        return (-level.log_snr - self.gamma_min) / (self.gamma_max - self.gamma_min)


@dataclass(frozen=True)
class Shifted:
    """Another pace on the same curve: log-SNR moved by 2 log b.

    Chen's input scaling by b (2023); the shift of Stable Diffusion 3 (Esser et al. 2024) is 1/b.
    """

    base: Schedule
    b: float

    def __post_init__(self) -> None:
        if not 0 < self.b < math.inf:
            raise SettingsError(f"a schedule cannot be shifted by b = {self.b:g}: give a number above 0")

    def level(self, t: Tensor) -> Level:
        level = self.base.level(t)
        return self.base.level(self.base.time(Level(level.alpha * self.b, level.sigma)))

    def time(self, level: Level) -> Tensor:
        return self.base.time(Level(level.alpha / self.b, level.sigma))
