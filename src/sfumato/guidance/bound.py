"""Bounds on a belief: what is known of the data's range. Off unless asked for, because it changes every
distribution that is not confined to the range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.predictions import Estimate


@dataclass(frozen=True)
class Clipped:
    """The estimate's x0 held between lo and hi; eps follows, so alpha x0 + sigma eps = x stays true (Ho et
    al. 2020)."""

    denoise: Denoiser
    lo: float = -1.0
    hi: float = 1.0

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        estimate = self.denoise(x, level, seen)
        return estimate.but(x0=estimate.x0.clamp(self.lo, self.hi))

    def take(self, rows: Sequence[int]) -> Clipped:
        return Clipped(self.denoise.take(rows), self.lo, self.hi)

    def check(self, level: Level) -> None:
        self.denoise.check(level)


def check_threshold(share: float | int) -> None:
    """Raises SettingsError for what is no quantile above the least."""
    if not 0 < share <= 1:
        raise SettingsError(
            f"dynamic thresholding at the quantile {share}: give a share above 0 and at most 1, as 0.995"
        )


@dataclass(frozen=True)
class Thresholded:
    """Dynamic thresholding (Saharia et al. 2022, section 2.3): x0 is clipped where a picture's numbers leave
    the range by more than a share of them does, and what is left is shrunk into the range.

    On the range [-1, 1], s = max(1, the `share` quantile of |x0| over the picture) and x0 becomes
    clip(x0, -s, s) / s; another range is brought there and back. Strong guidance then no longer saturates.
    """

    denoise: Denoiser
    share: float | int = 0.995
    lo: float = -1.0
    hi: float = 1.0

    def __post_init__(self) -> None:
        check_threshold(self.share)

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        estimate = self.denoise(x, level, seen)
        middle, half = (self.lo + self.hi) / 2, (self.hi - self.lo) / 2
        unit = (estimate.x0 - middle) / half
        bound = quantile(unit.abs().flatten(1), self.share).clamp(min=1)
        bound = bound.reshape(-1, *([1] * (x.ndim - 1)))
        return estimate.but(x0=middle + half * (unit.clamp(-bound, bound) / bound))

    def take(self, rows: Sequence[int]) -> Thresholded:
        return Thresholded(self.denoise.take(rows), self.share, self.lo, self.hi)

    def check(self, level: Level) -> None:
        self.denoise.check(level)


def quantile(values: Tensor, share: float | int) -> Tensor:
    """The quantile of each row, (B, N) -> (B,), between two values linearly: `torch.quantile` without its
    limit of 2^24 numbers."""
    place = share * (values.shape[1] - 1)
    low, high = (values.kthvalue(1 + k, dim=1).values for k in (math.floor(place), math.ceil(place)))
    return low + (high - low) * (place - math.floor(place))
