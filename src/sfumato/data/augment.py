"""Random flips, crops and colours, each a function of (seed, position) alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import DataError
from sfumato.noise import Noise

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Augment:
    """What is done to each picture on its way to the network.

    flip: mirrored left to right, half of the time. brightness, contrast, saturation: each multiplies by a
    factor drawn evenly from [1 - a, 1 + a], 0 <= a <= 1: the values, their distance from the picture's mean
    luma, their distance from each pixel's luma (the last for colour only). Alpha is left alone. Random
    crops come from a data set prepared with room.
    """

    flip: bool = False
    brightness: float | int = 0.0
    contrast: float | int = 0.0
    saturation: float | int = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")

    @property
    def colours(self) -> bool:
        """Whether the values of pixels change, and not only their places."""
        return self.brightness > 0 or self.contrast > 0 or self.saturation > 0


def draws(seed: int, positions: Sequence[int]) -> np.ndarray:
    """Six numbers in [0, 1) for each position, (B, 6): flip, top, left, brightness, contrast, saturation."""
    return Noise.of(seed, "augment", places=positions).uniform((6,), "augment").numpy()


def place(stored: np.ndarray, size: tuple[int, int], flip: bool, drawn: np.ndarray) -> np.ndarray:
    """Cuts (B, H, W, C) to size at random places and flips some: drawn as by `draws`."""
    room = stored.shape[1] - size[0], stored.shape[2] - size[1]
    if room != (0, 0):
        tops = (drawn[:, 1].astype(np.float64) * (room[0] + 1)).astype(np.int64)
        lefts = (drawn[:, 2].astype(np.float64) * (room[1] + 1)).astype(np.int64)
        rows = tops[:, None] + np.arange(size[0])
        columns = lefts[:, None] + np.arange(size[1])
        stored = stored[np.arange(len(stored))[:, None, None], rows[:, :, None], columns[:, None, :]]
    if flip:
        turned = drawn[:, 0] < 0.5
        stored = stored.copy()
        stored[turned] = stored[turned, :, ::-1]
    return stored


def colour(images: Tensor, augment: Augment, drawn: np.ndarray) -> Tensor:
    """Brightness, then contrast, then saturation of (B, C, H, W) in [-1, 1], clamped to it."""
    factor = torch.from_numpy(drawn)[:, 3:, None, None, None] * 2 - 1
    c = images.shape[1]
    seen = (images[:, :3] if c == 4 else images) / 2 + 0.5
    seen = seen * (1 + augment.brightness * factor[:, 0])
    mean = _luma(seen).mean((1, 2, 3), keepdim=True)
    seen = mean + (seen - mean) * (1 + augment.contrast * factor[:, 1])
    if c >= 3:
        luma = _luma(seen)
        seen = luma + (seen - luma) * (1 + augment.saturation * factor[:, 2])
    seen = seen.clamp(0, 1) * 2 - 1
    return torch.cat([seen, images[:, 3:]], 1) if c == 4 else seen


def _luma(seen: Tensor) -> Tensor:
    if seen.shape[1] == 1:
        return seen
    return (seen * torch.tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
