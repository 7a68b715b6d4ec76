"""Local blend: an edit by words changes the picture where these words are, and nowhere else.

Where a word is drawn stands in the maps of attention to its tokens. Their mean over heads, layers and the
steps so far, as a share of its largest value, says where it is; beyond the places of the words that change,
in the old picture and in the new one, the new picture is the old one (Hertz et al. 2022, local editing).
Here it is x0 that is kept, around all guidance: so the last x0, the picture, is kept to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.predictions import Estimate


@dataclass(frozen=True, eq=False)
class Places:
    """Where words are in pictures, as far as has been heard.

    tokens: (N,), 1 for the tokens of these words. share: of the largest value of a picture's maps, above
    which a place belongs to the words.
    """

    tokens: Tensor
    share: float
    heard: list[Tensor] = field(default_factory=list[Tensor])

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise SettingsError(f"a share of {self.share:g}: give one from 0, anywhere, to below 1, as 0.3")

    def hear(self, maps: Tensor, size: tuple[int, int]) -> None:
        """Adds the maps (B, heads, T, N) of one layer, T places of a picture of this (height, width)."""
        height = round(math.sqrt(maps.shape[2] * size[0] / size[1]))
        looked = (maps.mean(1) @ self.tokens.to(maps)).unflatten(1, (height, -1))
        grown = F.interpolate(looked[:, None], size, mode="bilinear", align_corners=False)
        self.heard[:] = [sum(self.heard, start=grown)]

    def mask(self, like: Tensor) -> Tensor:
        """(B, 1, H, W), true where the words are in pictures like these (B, C, H, W); nowhere without
        words."""
        if not self.heard or not bool(self.tokens.any()):
            return torch.zeros_like(like[:, :1], dtype=torch.bool)
        return self.heard[0] > self.share * self.heard[0].amax((1, 2, 3), keepdim=True)


@dataclass(frozen=True, eq=False)
class LocalBlend:
    """A denoiser of pairs, old rows and then new ones, whose new x0 is the old one beyond the places of what
    is `gone` from the old picture and of what is `come` into the new one."""

    denoise: Denoiser
    gone: Places
    come: Places

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        estimate = self.denoise(x, level, seen)
        old, new = estimate.x0.chunk(2)
        kept = torch.where(self.gone.mask(old) | self.come.mask(new), new, old)
        return estimate.but(x0=torch.cat([old, kept]))

    def take(self, rows: Sequence[int]) -> LocalBlend:
        return replace(self, denoise=self.denoise.take(rows))

    def check(self, level: Level) -> None:
        self.denoise.check(level)
