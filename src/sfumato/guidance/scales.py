"""How strongly to guide, at which level: a number, or a function of the level."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.level import Level

Weight = float | int | Callable[[Level], float | int | Tensor]
"""A number, or a function of the level to its number: () or, where the level has parts of their own, such as
(B,), shaped like it. What differs from picture to picture for another reason is no weight: rows may be
taken from a batch."""


def weight_at(weight: Weight, level: Level) -> Tensor:
    """The weight at a level, float64: () or shaped like the level. Raises SettingsError for another shape."""
    said = weight(level) if callable(weight) else weight
    value = torch.as_tensor(said, dtype=torch.float64, device="cpu")
    if value.ndim and value.shape != level.alpha.shape:
        raise SettingsError(
            f"a scale of guidance is one number at each level, ({', '.join(map(str, level.alpha.shape))}), "
            f"not {tuple(value.shape)}: it cannot differ from picture to picture"
        )
    return value


@dataclass(frozen=True)
class Between:
    """`scale` where low < sigma/alpha <= high and `outside` elsewhere (Kynkaanniemi et al. 2024, eq. 5).

    sigma/alpha is the noise of one unit of signal, the sigma of EDM; high may be infinite, which includes
    pure noise.
    """

    scale: Weight
    low: float | int
    high: float | int
    outside: Weight = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise SettingsError(
                f"guidance between sigma/alpha = {self.low} and {self.high} is on nowhere: give two numbers "
                "from 0, the lower one first"
            )

    def __call__(self, level: Level) -> Tensor:
        ratio = level.sigma / level.alpha
        inside = (ratio > self.low) & (ratio <= self.high)
        return torch.where(inside, weight_at(self.scale, level), weight_at(self.outside, level))


@dataclass(frozen=True)
class Ramp:
    """From `noisy` at pure noise to `clean` at clean data, linearly in the level's angle.

    A scale that rises towards clean data keeps the variety that strong guidance takes early on (Chang et al.
    2023, section 2.7; Wang et al. 2024).
    """

    noisy: float | int
    clean: float | int

    def __call__(self, level: Level) -> Tensor:
        share = level.angle * (2 / math.pi)
        return self.clean + (self.noisy - self.clean) * share


@dataclass(frozen=True)
class Sum:
    """sum_i c_i w_i, at every level."""

    terms: tuple[tuple[float | int, Weight], ...]

    def __call__(self, level: Level) -> Tensor:
        zero = torch.zeros((), dtype=torch.float64)
        return sum((c * weight_at(w, level) for c, w in self.terms), start=zero)


def between(scale: Weight, low: float | int, high: float | int, outside: Weight = 1.0) -> Between:
    """Guidance on an interval of noise: `scale` for low < sigma/alpha <= high.

    Elsewhere `outside`, which should be what does not guide: 1 for mixtures (classifier-free), 0 for
    `Steered`.
    """
    return Between(scale, low, high, outside)


def ramp(noisy: float | int, clean: float | int) -> Ramp:
    """A scale that goes from `noisy` at pure noise to `clean` at clean data."""
    return Ramp(noisy, clean)


def added(*terms: tuple[float | int, Weight]) -> Weight:
    """sum_i c_i w_i: a number where all are numbers."""
    numbers = [c * w for c, w in terms if not callable(w)]
    return sum(numbers) if len(numbers) == len(terms) else Sum(terms)
