"""Small pictures of a known law, an extractor of their own scale, and sets of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.evaluation.features.seen import Features, Looking
from sfumato.evaluation.sets import PictureSet, of_tensor
from sfumato.noise import Noise

SIDE = 8
TERMS = 12


def basis() -> Tensor:
    """Smooth pictures, (TERMS, 1, SIDE, SIDE)."""
    at = (torch.arange(SIDE) + 0.5) / SIDE
    waves = [torch.cos(torch.pi * i * at) for i in range(4)]
    both = [(i, j) for i in range(4) for j in range(4) if 0 < i + j < 5][:TERMS]
    return torch.stack([torch.outer(waves[i], waves[j]) for i, j in both])[:, None]


def pictures(n: int, use: str, channels: int = 1) -> Tensor:
    """n new pictures, (n, channels, SIDE, SIDE) in [-1, 1]: Gaussian in 12 dimensions, then squashed."""
    weights = Noise.of("fields", use, places=range(n)).normal((channels, TERMS))
    return torch.tanh(0.35 * torch.einsum("nct,tzhw->nchw", weights, basis()))


def copies(of: Tensor, noise: float, use: str) -> Tensor:
    """The same pictures with a little noise."""
    return (of + noise * Noise.of("copies", use, places=range(len(of))).normal(of.shape[1:])).clamp(-1, 1)


def a_set(images: Tensor, name: str, **more: object) -> PictureSet:
    return of_tensor(images, name, **more)


def extractor() -> Looking:
    """Sixteen means, mixed: a fixed linear map of a picture at half its size."""
    mixed = Noise((7,)).normal((24, SIDE * SIDE // 4), "extractor")[0] / 4

    def look(images: Tensor) -> Features:
        return Features(F.adaptive_avg_pool2d(images.mean(1, keepdim=True), SIDE // 2).flatten(1) @ mixed.T)

    return Looking("mixed", "0" * 64, "none", 24, look, torch.device("cpu"))
