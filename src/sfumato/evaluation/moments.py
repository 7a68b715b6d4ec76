"""Mean and covariance of a stream of features, in float64 and in memory that does not grow with it.

Each batch is centred on its own mean, and batches are merged by the pairwise formula of Chan, Golub & LeVeque
(1979): nothing is ever the small difference of large sums. So the order of the rows and their batches change
the result by no more than rounding, some 1e-15 of its size; the tests hold it to 1e-12.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from sfumato.errors import SettingsError

ROWS = 2048
"""Rows that are read at once."""


@dataclass(frozen=True)
class Moments:
    """Of n rows: mean (D,), and scatter (D, D), the sum of (x - mean)(x - mean)^T. float64 on the CPU."""

    count: int
    mean: Tensor
    scatter: Tensor

    @staticmethod
    def of(rows: Tensor) -> Moments:
        """Of a batch (n, D), n >= 1."""
        x = rows.to("cpu", torch.float64)
        mean = x.mean(0)
        centred = x - mean
        return Moments(len(x), mean, centred.T @ centred)

    @property
    def covariance(self) -> Tensor:
        """(D, D), with n - 1 below, as numpy.cov. Raises SettingsError for fewer than 2 rows."""
        if self.count < 2:
            raise SettingsError(f"{self.count} picture has no covariance: give at least 2")
        return self.scatter / (self.count - 1)

    def merge(self, other: Moments) -> Moments:
        """Of the rows of both: S = S_a + S_b + d d^T n_a n_b / n, d = mean_b - mean_a (Chan et al. 1979)."""
        count = self.count + other.count
        apart = other.mean - self.mean
        scatter = self.scatter + other.scatter
        scatter = scatter.addr_(apart, apart, alpha=self.count * other.count / count)
        return Moments(count, self.mean + apart * (other.count / count), scatter)


def moments(batches: Iterable[Tensor]) -> Moments:
    """Of all rows of the batches, each (n, D); they are asked for one at a time. Raises SettingsError for
    none."""
    each = (Moments.of(batch) for batch in batches if len(batch))
    first = next(each, None)
    if first is None:
        raise SettingsError("no pictures: their mean and covariance need some")
    return reduce(Moments.merge, each, first)


def in_blocks(features: Tensor, rows: int = ROWS) -> Iterator[Tensor]:
    """Features (n, D), or a map of them on disk, as float64 blocks of at most so many rows."""
    for start in range(0, len(features), rows):
        yield features[start : start + rows].to("cpu", torch.float64)
