"""Outpainting: a picture goes on beyond its edges, on a canvas of the model's size or larger."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from sfumato.denoiser import Denoiser
from sfumato.editing.inpaint import inpaint
from sfumato.editing.job import Job
from sfumato.editing.masks import feathered
from sfumato.errors import SettingsError
from sfumato.level import Levels
from sfumato.noise import Noise


class Margins(NamedTuple):
    """How many pixels are added on each side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def around(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """The canvas (..., C, H, W), its edges carried on, and the mask (H, W) of what is added. Raises
        SettingsError for negative margins, or where there are none."""
        if min(self) < 0 or max(self) == 0:
            raise SettingsError(f"margins of {tuple(self)} pixels: give at least one above 0, and none below")
        sides = (self.left, self.right, self.top, self.bottom)
        mask = pad(torch.zeros(picture.shape[-2:]), sides, value=1.0)
        flat = picture.reshape(1, -1, *picture.shape[-2:])
        return pad(flat, sides, mode="replicate").reshape(*picture.shape[:-2], *mask.shape), mask


def outpaint(
    denoise: Denoiser,
    picture: Tensor,
    margins: Margins,
    levels: Levels,
    noise: Noise,
    *,
    feather: int = 0,
    times: int = 5,
    jump: int = 1,
) -> Job:
    """The picture (B, C, H, W) with margins drawn around it: `inpaint` of what is added. The denoiser must
    know the canvas: `tiles.Tiled` for one that is larger than the model's pictures (`Bench.over`). feather:
    so many pixels of the picture's rim are redrawn in part; without it every pixel stays to the bit."""
    canvas, mask = margins.around(picture)
    return inpaint(denoise, canvas, feathered(mask, feather), levels, noise, times=times, jump=jump)
