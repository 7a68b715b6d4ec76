"""Gaussian features, whose distances are formulas, and how often intervals cover them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.evaluation.figure import Figure
from sfumato.evaluation.moments import Moments


@dataclass(frozen=True)
class Gaussian:
    """N(mean, root root^T)."""

    mean: Tensor
    root: Tensor

    @property
    def covariance(self) -> Tensor:
        return self.root @ self.root.T

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(n, len(self.mean), generator=generator, dtype=torch.float64)
        return self.mean + noise @ self.root.T

    def moments(self) -> Moments:
        """As if of infinitely many: covariance is exact."""
        return Moments(1001, self.mean, 1000 * self.covariance)


def gaussian(width: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Gaussian:
    """With random axes and decaying scales."""
    generator = torch.Generator().manual_seed(seed)
    axes, _ = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    scales = scale / torch.arange(1, width + 1, dtype=torch.float64).sqrt()
    return Gaussian(shift * axes.sum(1), axes * scales)


def apart(a: Gaussian, b: Gaussian) -> float:
    """The Fréchet distance by the eigenvalues of C_1 C_2, which are real and not negative."""
    values = torch.linalg.eigvals(a.covariance @ b.covariance)
    assert values.imag.abs().max() < 1e-9
    traces = a.covariance.trace() + b.covariance.trace() - 2 * values.real.clamp(min=0).sqrt().sum()
    return float((a.mean - b.mean).square().sum() + traces)


def mean_kernel(a: Gaussian, b: Gaussian) -> float:
    """E (x . y / D + 1)^3 for independent x of a and y of b.

    Given x, y . x is N(m_b . x, x^T C_b x); what is left are moments of x up to the third.
    """
    width, c, d, m, o = len(a.mean), a.covariance, b.covariance, a.mean, b.mean
    first = m @ o
    second = ((c + torch.outer(m, m)) * (d + torch.outer(o, o))).sum()
    along = first**3 + 3 * first * (o @ c @ o)
    across = first * (m @ d @ m + (c * d).sum()) + 2 * o @ c @ d @ m
    third = along + 3 * across
    return float(third / width**3 + 3 * second / width**2 + 3 * first / width + 1)


def kernel_distance(a: Gaussian, b: Gaussian) -> float:
    """MMD^2 by KID's kernel."""
    return mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b)


def repeated(
    measure: Callable[[Tensor, Tensor], Figure],
    a: Gaussian,
    b: Gaussian,
    sizes: tuple[int, int],
    times: int,
) -> Tensor:
    """value, low, high of so many independent pairs of sets, (times, 3)."""

    def pairs() -> Iterator[Figure]:
        generator = torch.Generator().manual_seed(7)
        for _ in range(times):
            yield measure(a.draw(sizes[0], generator), b.draw(sizes[1], generator))

    return torch.tensor(list(pairs()), dtype=torch.float64)


def covered(found: Tensor, truth: float) -> float:
    """The share of intervals (times, 3) that hold the truth."""
    return float(((found[:, 1] <= truth) & (truth <= found[:, 2])).double().mean())


def chance(times: int, rate: float = 0.95, deviations: float = 3.5) -> float:
    """How far the share of `times` may be from its rate by chance."""
    return deviations * math.sqrt(rate * (1 - rate) / times)


def standard_error(found: Tensor) -> float:
    """Of the mean of the values of (times, 3)."""
    return float(found[:, 0].std()) / math.sqrt(len(found))
