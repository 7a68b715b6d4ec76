"""Random holes for training to fill: blocks, strokes, and all but a block, a third of each."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.noise import Noise

POINTS = 6
"""Corners of a stroke, where it may turn."""


def holes(size: tuple[int, int], noise: Noise) -> Tensor:
    """One mask a stream of the noise: (B, H, W) bool, True where the picture is hidden."""
    kind = (3 * noise.uniform((1, 1), "hole kind")).long()
    block = blocks(size, noise)
    return torch.where(kind == 0, block, torch.where(kind == 1, ~block, strokes(size, noise)))


def blocks(size: tuple[int, int], noise: Noise) -> Tensor:
    """A rectangle of a quarter to three quarters of each side, wholly inside: (B, H, W) bool."""
    drawn = noise.uniform((4,), "hole block")
    inside: list[Tensor] = []
    for n, length, place in zip(size, drawn[:, :2].T, drawn[:, 2:].T, strict=True):
        side = (n * (0.25 + 0.5 * length)).round().clamp(min=1)[:, None]
        start = (place[:, None] * (n - side + 1)).floor()
        at = torch.arange(n)
        inside.append((at >= start) & (at < start + side))
    return inside[0][:, :, None] & inside[1][:, None, :]


def strokes(size: tuple[int, int], noise: Noise) -> Tensor:
    """A brush stroke through six random points, as wide as a twentieth to a fifth of the shorter side:
    (B, H, W) bool (free-form holes, Yu et al. 2019)."""
    height, width = size
    points = noise.uniform((POINTS, 2), "hole points") * torch.tensor([height, width])
    radius = min(size) * (0.025 + 0.075 * noise.uniform((1, 1), "hole width"))
    at = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), dim=-1) + 0.5
    nearest = torch.full((len(noise), height, width), math.inf)
    for a, b in zip(points[:, :-1].unbind(1), points[:, 1:].unbind(1), strict=True):
        nearest = torch.minimum(nearest, _distance(at, a[:, None, None], b[:, None, None]))
    return nearest <= radius.clamp(min=0.75)


def _distance(at: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """From each place to the segment a b."""
    way = b - a
    share = ((at - a) * way).sum(-1) / way.square().sum(-1).clamp(min=1e-12)
    return (at - a - share.clamp(0, 1)[..., None] * way).norm(dim=-1)
