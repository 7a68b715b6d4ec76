"""Schedules: curves of levels. t = 0 is the least noise, t = 1 the most; `time` is the exact inverse of
`level`.

Every variance-preserving sigma is `sqrt(-expm1(2 log alpha))` or a product of sines, never `sqrt(1 -
alpha^2)`, which loses its digits near clean data. `time` looks at the ratio sigma : alpha only, so it places
a level of any other curve as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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
        """The time at which the curve is as noisy as `level`: below 0 or above 1 if it never is."""
        ...


def _preserving(log_alpha: Tensor) -> Level:
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
        return _preserving(-(t**2) * (self.hi - self.lo) / 4 - t * self.lo / 2)

    def time(self, level: Level) -> Tensor:
        spent = _spent(level)
        return 2 * spent / (self.lo + (self.lo**2 + 2 * (self.hi - self.lo) * spent).sqrt())


@dataclass(frozen=True)
class ScaledLinear:
    """sqrt(beta) linear in t, in continuous time: the schedule of latent diffusion (Rombach et al. 2022)."""

    lo: float = 0.85
    hi: float = 12.0

    def level(self, t: Tensor) -> Level:
        root, slope = math.sqrt(self.lo), math.sqrt(self.hi) - math.sqrt(self.lo)
        return _preserving(-t / 2 * (root**2 + root * slope * t + slope**2 * t**2 / 3))

    def time(self, level: Level) -> Tensor:
        root, slope = math.sqrt(self.lo), math.sqrt(self.hi) - math.sqrt(self.lo)
        cube = root**3 + 3 * slope * _spent(level)  # of sqrt(beta) at that time
        c = cube ** (1 / 3)
        return 3 * _spent(level) / (c**2 + c * root + root**2)  # (c - root) / slope without the difference


@dataclass(frozen=True)
class ConstantBeta:
    """beta(t) = beta: alpha-bar = exp(-beta t). To first order 1 - beta t, which some texts write for it (as
    "alpha_t")."""

    beta: float = 10.0

    def level(self, t: Tensor) -> Level:
        return _preserving(-self.beta * t / 2)

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

    def level(self, t: Tensor) -> Level:
        sigma = self.lo * torch.exp(t * math.log(self.hi / self.lo))
        return Level(torch.ones_like(sigma), sigma)

    def time(self, level: Level) -> Tensor:
        return torch.log(level.sigma / level.alpha / self.lo) / math.log(self.hi / self.lo)


@dataclass(frozen=True)
class Shifted:
    """Another pace on the same curve: log-SNR moved by 2 log b.

    Chen's input scaling by b (2023); the shift of Stable Diffusion 3 (Esser et al. 2024) is 1/b.
    """

    base: Schedule
    b: float

    def level(self, t: Tensor) -> Level:
        level = self.base.level(t)
        return self.base.level(self.base.time(Level(level.alpha * self.b, level.sigma)))

    def time(self, level: Level) -> Tensor:
        return self.base.time(Level(level.alpha / self.b, level.sigma))


@dataclass(frozen=True)
class Table:
    """A process trained in T discrete steps. Node j sits at t = (j + 1) / T and t = 0 is clean; between nodes
    the angle atan2(sigma, alpha) is interpolated, so levels stay on the unit circle. Nodes are met exactly.

    alpha, sigma: T numbers each. Build one with `from_betas`, `from_alpha_bars` or a named one.
    """

    alpha: tuple[float, ...]
    sigma: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.alpha or len(self.alpha) != len(self.sigma):
            raise SettingsError("a schedule table needs as many sigmas as alphas, and at least one")
        flat = ~(self._angles.diff() > 0)
        if bool(flat.any()):
            raise SettingsError(
                f"a schedule table must grow noisier at each step; step {int(flat.nonzero()[0])} does not"
            )

    @staticmethod
    def from_betas(betas: Sequence[float] | Tensor) -> Table:
        """beta_j in (0, 1]: alpha-bar is the running product of 1 - beta (Ho et al. 2020)."""
        values = torch.as_tensor(betas, dtype=torch.float64)
        if values.ndim != 1 or not bool(((values > 0) & (values <= 1)).all()):
            raise SettingsError("betas must be a list of numbers in (0, 1]")
        return Table._of(_preserving(torch.log1p(-values).cumsum(0) / 2))

    @staticmethod
    def from_alpha_bars(alpha_bars: Sequence[float] | Tensor) -> Table:
        """alpha-bar_j in [0, 1), falling: 0 is allowed at the end (zero terminal SNR)."""
        values = torch.as_tensor(alpha_bars, dtype=torch.float64)
        if values.ndim != 1 or not bool(((values >= 0) & (values < 1)).all()):
            raise SettingsError("alpha-bars must be a list of numbers in [0, 1)")
        return Table._of(_preserving(values.log() / 2))

    @staticmethod
    def _of(level: Level) -> Table:
        return Table(tuple(level.alpha.tolist()), tuple(level.sigma.tolist()))

    @staticmethod
    def linear(steps: int = 1000, lo: float = 1e-4, hi: float = 0.02) -> Table:
        """Betas linear from lo to hi (Ho et al. 2020), meant for T = 1000: else scale them by 1000/T."""
        return Table.from_betas(torch.linspace(lo, hi, steps, dtype=torch.float64))

    @staticmethod
    def scaled_linear(steps: int = 1000, lo: float = 0.00085, hi: float = 0.012) -> Table:
        """sqrt(beta) linear (Rombach et al. 2022): Stable Diffusion's."""
        return Table.from_betas(torch.linspace(lo**0.5, hi**0.5, steps, dtype=torch.float64) ** 2)

    @staticmethod
    def cosine(steps: int = 1000, s: float = 0.008, largest: float = 0.999) -> Table:
        """Nichol & Dhariwal's cosine table, betas capped at `largest`; 1 keeps the exact zero at its end."""
        curve = Cosine(s).level(torch.linspace(0, 1, steps + 1, dtype=torch.float64))
        ratio = (curve.alpha[1:] / curve.alpha[:-1]) ** 2
        return Table.from_betas((1 - ratio).clamp(max=largest))

    @staticmethod
    def constant(beta: float = 0.01, steps: int = 1000) -> Table:
        """The same beta at each step."""
        return Table.from_betas(torch.full((steps,), beta, dtype=torch.float64))

    @staticmethod
    def sampled(schedule: Schedule, steps: int) -> Table:
        """The nodes t = 1/T .. 1 of any variance-preserving curve."""
        level = schedule.level(torch.arange(1, steps + 1, dtype=torch.float64) / steps)
        return Table._of(level.scaled(1 / level.norm))

    def zero_terminal_snr(self) -> Table:
        """Moves and stretches sqrt(alpha-bar) so that it ends at exactly 0 (Lin et al. 2024, algorithm 1)."""
        a = torch.tensor(self.alpha, dtype=torch.float64)
        a = (a - a[-1]) * (a[0] / (a[0] - a[-1])) if len(a) > 1 else torch.zeros_like(a)
        return Table._of(Level(a, ((1 - a) * (1 + a)).sqrt()))

    @property
    def steps(self) -> int:
        return len(self.alpha)

    @property
    def alpha_bar(self) -> Tensor:
        """alpha-bar at the nodes, (T,), float64."""
        return torch.tensor(self.alpha, dtype=torch.float64) ** 2

    @property
    def betas(self) -> Tensor:
        """beta_j = 1 - alpha-bar_j / alpha-bar_{j-1}, (T,), float64."""
        alpha_bar = self.alpha_bar
        return 1 - alpha_bar / torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])

    def nodes(self) -> Level:
        """The T levels, as one vector."""
        return Level(self._with_clean.alpha[1:], self._with_clean.sigma[1:])

    @cached_property
    def _with_clean(self) -> Level:
        alpha, sigma = (1.0, *self.alpha), (0.0, *self.sigma)
        return Level(torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64))

    @cached_property
    def _angles(self) -> Tensor:
        return self._with_clean.angle

    def level(self, t: Tensor) -> Level:
        nodes, angles = self._with_clean, self._angles
        place = _at_whole_numbers(t * self.steps)
        low = place.floor().clamp(0, self.steps - 1).long()
        part = place - low
        gap = angles[low + 1] - angles[low]
        a, b = torch.sin((1 - part) * gap) / torch.sin(gap), torch.sin(part * gap) / torch.sin(gap)
        between = lambda values: a * values[low] + b * values[low + 1]
        return Level(between(nodes.alpha), between(nodes.sigma))

    def time(self, level: Level) -> Tensor:
        angles, angle = self._angles, level.angle
        low = (torch.searchsorted(angles, angle.contiguous(), right=True) - 1).clamp(0, self.steps - 1)
        return _at_whole_numbers(low + (angle - angles[low]) / (angles[low + 1] - angles[low])) / self.steps


def _at_whole_numbers(place: Tensor) -> Tensor:
    """Within rounding of a node is at the node: (j + 1) / T * T must give j + 1."""
    whole = place.round()
    return torch.where((place - whole).abs() < 1e-9 * whole.abs().clamp(min=1), whole, place)
