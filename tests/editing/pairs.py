"""Pictures of many independent pairs of correlated numbers, (B, 1, H, 2): what a walk does to them is linear,
so the law of every edit is a matrix product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.denoiser import Exact
from sfumato.level import Level
from sfumato.noise import Noise
from sfumato.solvers.moves import Move

COV = 0.25 * torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
MEAN = torch.tensor([0.1, -0.2], dtype=torch.float64)


def gain(alpha: float, sigma: float) -> Tensor:
    """What the best guess of x0 - MEAN is of x - alpha MEAN."""
    return alpha * COV @ torch.linalg.inv(alpha**2 * COV + sigma**2 * torch.eye(2, dtype=torch.float64))


def believed(x: Tensor, level: Level) -> Tensor:
    """E[x0 | x], in x's shape and dtype."""
    alpha, sigma = float(level.alpha), float(level.sigma)
    if sigma == 0:
        return x / alpha
    return (MEAN + (x.double() - alpha * MEAN) @ gain(alpha, sigma).T).to(x)


PAIRS = Exact(believed)


def drawn(height: int, seed: int = 0) -> Tensor:
    """One picture of the data, (1, 1, height, 2), float64."""
    z = Noise((seed,)).normal((1, height, 2), "data").double()
    return MEAN + z @ torch.linalg.cholesky(COV).T


class Law(NamedTuple):
    """Mean (2,) and covariance (2, 2) of a pair."""

    mean: Tensor
    cov: Tensor


def conditional(known: float) -> tuple[float, float]:
    """Mean and variance of a pair's second number, given its first."""
    slope = float(COV[0, 1] / COV[0, 0])
    return float(MEAN[1]) + slope * (known - float(MEAN[0])), float(COV[1, 1] - slope * COV[0, 1])


def repainted(plan: Sequence[Move], known: float, eta: float) -> Law:
    """The law at the end of a RePaint walk of first-order moves, the first number of each pair put back after
    every move (Lugmayr et al. 2022, algorithm 1), with new noise eta times the posterior's."""
    start = plan[0].here
    cov = torch.eye(2, dtype=torch.float64) * (start.alpha**2 + start.sigma**2)
    mean = torch.zeros(2, dtype=torch.float64)
    for move in plan:
        a, s = float(move.here.alpha), float(move.here.sigma)
        b, t = float(move.there.alpha), float(move.there.sigma)
        if move.renoise:
            ratio = b / a
            mean = ratio * mean
            cov = ratio**2 * cov + (t**2 - (ratio * s) ** 2) * torch.eye(2, dtype=torch.float64)
        else:
            share = (a * t) / (b * s)
            new = eta * t * math.sqrt(1 - share**2)
            kept = math.sqrt(t**2 - new**2)
            guess = gain(a, s)
            eps = (torch.eye(2, dtype=torch.float64) - a * guess) / s
            whole = b * guess + kept * eps
            mean = b * MEAN + whole @ (mean - a * MEAN)
            cov = whole @ cov @ whole.T + new**2 * torch.eye(2, dtype=torch.float64)
        mean[0], cov[0, 1], cov[1, 0], cov[0, 0] = b * known, 0.0, 0.0, t**2
    return Law(mean, cov)
