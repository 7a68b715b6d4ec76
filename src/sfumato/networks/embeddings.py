"""How numbers become vectors: sinusoids of a label or a place, and the small network behind them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoids(label: Tensor, channels: int, flip_sin_to_cos: bool, freq_shift: float | int) -> Tensor:
    """[sin(label w_i), cos(label w_i)], w_i = 10000^(-i / (channels/2 - freq_shift)) (Vaswani et al. 2017).

    `flip_sin_to_cos` puts the cosines first. (B,) -> (B, channels), float32; an odd last channel is zero.
    """
    half = channels // 2
    exponent = torch.arange(half, dtype=torch.float32, device=label.device) / (half - freq_shift)
    angle = label.float()[:, None] * torch.exp(-math.log(10000.0) * exponent)
    pair = (angle.cos(), angle.sin()) if flip_sin_to_cos else (angle.sin(), angle.cos())
    return F.pad(torch.cat(pair, dim=-1), (0, channels - 2 * half))


def places(size: Sequence[int], reach: int, channels: int) -> Tensor:
    """Sinusoids of each place of a grid, (sites, channels), float64; the last axis has the first channels.

    Coordinates run from 0 to `reach` along every axis whatever its length, so a larger grid is a finer one.
    As in DiT (Peebles & Xie 2023), for any number of axes and any, also unequal, lengths.
    """
    axes = [torch.arange(n, dtype=torch.float64) * (reach / n) for n in size]
    grid = torch.meshgrid(*axes, indexing="ij")
    each = channels // (2 * len(size))
    frequency = 10000.0 ** (-torch.arange(each, dtype=torch.float64) / max(each, 1))
    parts: list[Tensor] = []
    for coordinate in reversed(grid):
        angle = coordinate.reshape(-1, 1) * frequency
        parts += [angle.sin(), angle.cos()]
    return F.pad(torch.cat(parts, dim=1), (0, channels - 2 * each * len(size)))


class TimeEmbedding(nn.Module):
    """Two linear layers with a SiLU between them: (B, in_channels) -> (B, channels)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, channels)
        self.linear_2 = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))
