"""Draws for intervals: pictures drawn again, and shares as they could as well have come out."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato import noise


def again(n: int, times: int, *key: object) -> Tensor:
    """n rows of n, drawn with replacement (the bootstrap, Efron 1979), (times, n) int64."""
    return (noise.uniform(times * n, "again", *key) * n).long().clamp(max=n - 1).reshape(times, n)


def counted(places: Tensor, count: int) -> Tensor:
    """How often each of 0 .. count - 1 stands in each row of (times, n), (times, count) int64."""
    rows = torch.arange(len(places))[:, None] * count
    return torch.bincount((places + rows).flatten(), minlength=len(places) * count).reshape(-1, count)


def drawn(shares: Tensor, n: int, times: int, *key: object) -> Tensor:
    """How often each of K comes in n draws with these shares, (times, K) int64."""
    upto = shares.double().cumsum(0)
    places = torch.searchsorted(upto, noise.uniform(times * n, "drawn", *key) * upto[-1], right=True)
    return counted(places.clamp(max=len(shares) - 1).reshape(times, n), len(shares))


def plausible(counts: Tensor, times: int, *key: object) -> Tensor:
    """Shares that counts (K,) make plausible, (times, K) float64: draws of their posterior under Jeffreys'
    prior, Dirichlet(counts + 1/2). Its gammas of half a whole number are halved sums of squared normals."""
    squares = 2 * counts.long() + 1
    many = int(squares.sum())
    normals = noise.Noise((noise.key_of("plausible", *key),)).normal((times, many), "squares")[0]
    owner = torch.repeat_interleave(torch.arange(len(counts)), squares)
    gammas = torch.zeros(times, len(counts), dtype=torch.float64)
    gammas = gammas.index_add_(1, owner, normals.double().square())
    return gammas / gammas.sum(1, keepdim=True)
