"""Another style: what is seen is kept by structure, how it is drawn comes from a condition or from a
reference.

Both act on what the model believes, x0, so they go with any model, sampler and guidance, and stop when their
share of the steps is over: the rest is the model's own finish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.editing.first_steps import FirstSteps
from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.predictions import Estimate


def coarse(x: Tensor, factor: int) -> Tensor:
    """The low frequencies of pictures (B, C, H, W): every block of factor x factor as its mean. A projection:
    twice is once. Raises SettingsError for sides that are no multiple of the factor."""
    height, width = x.shape[2:]
    if factor < 1 or height % factor or width % factor:
        raise SettingsError(
            f"blocks of {factor} x {factor} do not fill a picture of {width} x {height}: choose a divisor of "
            "both"
        )
    return F.avg_pool2d(x, factor).repeat_interleave(factor, 2).repeat_interleave(factor, 3)


@dataclass(frozen=True, eq=False)
class Structured:
    """The belief with the low frequencies of a picture: x0 + coarse(picture) - coarse(x0).

    ILVR (Choi et al. 2021, eq. 8) without its noise: it exchanges the same part of x for that of the noised
    picture; exchanged in x0, nothing has to be drawn (as Wang et al. 2023, DDNM, do for any linear operator).
    picture: (B, C, H, W) or (1, C, H, W).
    """

    denoise: Denoiser
    picture: Tensor
    factor: int
    while_: FirstSteps

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        estimate = self.denoise(x, level, seen)
        if not self.while_.holds(level):
            return estimate
        return estimate.but(x0=estimate.x0 + coarse(self.picture.to(x) - estimate.x0, self.factor))

    def take(self, rows: Sequence[int]) -> Structured:
        return replace(self, denoise=self.denoise.take(rows), picture=_rows(self.picture, rows))

    def check(self, level: Level) -> None:
        self.denoise.check(level)


@dataclass(frozen=True, eq=False)
class Statistics:
    """The belief with a reference's statistics, at every scale: AdaIN (Huang & Belongie 2017, eq. 8) of x0's
    bands.

    x0 is parted into bands of frequencies, an octave each; the mean and standard deviation of each channel of
    each band become the reference's. weight: 0 changes nothing, 1 takes all. reference: (B, C, H, W) or (1,
    C, H, W).
    """

    denoise: Denoiser
    reference: Tensor
    weight: float
    while_: FirstSteps

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        estimate = self.denoise(x, level, seen)
        if not self.while_.holds(level):
            return estimate
        styled = restyled(estimate.x0, self.reference.to(x))
        return estimate.but(x0=torch.lerp(estimate.x0, styled, self.weight))

    def take(self, rows: Sequence[int]) -> Statistics:
        return replace(self, denoise=self.denoise.take(rows), reference=_rows(self.reference, rows))

    def check(self, level: Level) -> None:
        self.denoise.check(level)


def bands(x: Tensor) -> list[Tensor]:
    """Pictures as a sum of bands, the finest first: each block's picture less the next larger one's, blocks
    of 1, 2, 4, ... while they fill the sides; last the coarsest itself."""
    levels = [x]
    while all(n % 2 ** len(levels) == 0 and n > 2 ** len(levels) for n in x.shape[2:]):
        levels.append(coarse(x, 2 ** len(levels)))
    return [fine - rough for fine, rough in pairwise(levels)] + levels[-1:]


def restyled(x: Tensor, reference: Tensor) -> Tensor:
    """x with the mean and standard deviation of each channel of each band those of the reference's."""
    return sum(
        (_normal(own, of) for own, of in zip(bands(x), bands(reference), strict=True)),
        start=torch.zeros_like(x),
    )


def _normal(x: Tensor, of: Tensor) -> Tensor:
    """AdaIN: std(of) (x - mean(x)) / std(x) + mean(of), each channel over its places."""
    mean, std = (lambda v: v.mean((2, 3), keepdim=True)), (lambda v: v.std((2, 3), keepdim=True))
    return std(of) * (x - mean(x)) / std(x).clamp(min=1e-6) + mean(of)


def _rows(picture: Tensor, rows: Sequence[int]) -> Tensor:
    return picture if len(picture) == 1 else picture[list(rows)]
