"""Bounds on a belief: what is known of the data's range. Off unless asked for, because it changes every
distribution that is not confined to the range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from sfumato.denoiser import Denoiser
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
