"""A value and its 95 % interval, from replicates of it or from its standard error."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from sfumato.evaluation.shares import Z95, wilson

SPLITS = 20
"""How often the pictures are cut into halves."""
T95 = 2.085963
"""Student's 97.5 % quantile for SPLITS degrees of freedom."""


class Figure(NamedTuple):
    """A value in its 95 % interval, low <= value <= high."""

    value: float
    low: float
    high: float

    @staticmethod
    def of(value: float, error: float, quantile: float = Z95, least: float = -math.inf) -> Figure:
        """value +- quantile x its standard error, cut at the least that it can be."""
        return Figure(value, min(value, max(least, value - quantile * error)), value + quantile * error)

    @staticmethod
    def of_share(value: float, error: float, n: int) -> Figure:
        """A share of n with this standard error by Wilson's interval, with the number of independent
        pictures that would have this error, as for the shares of a survey (Korn & Graubard 1998); at most n.
        Near 0 and 1 the error vanishes and the interval keeps a width."""
        z2 = T95**2
        drawn_in = (value * n + z2 / 2) / (n + z2)  # Agresti & Coull's: never 0 or 1
        alike = min(float(n), drawn_in * (1 - drawn_in) / error**2) if error else float(n)
        low, high = wilson(value, alike, T95)
        return Figure(value, min(value, low), max(value, high))


def halves_error(halves: Tensor) -> float:
    """The standard error of a statistic from its values on both halves of the data, (SPLITS, 2), cut anew
    each time: two halves are independent, so (T - T')^2 / 2 is on average the variance of a half, and that of
    the whole is half as much (Politis & Romano 1994, subsampling). It asks of the statistic nothing but that,
    where a jackknife of nearest neighbours is too large by a half."""
    return 0.5 * math.sqrt(float((halves[:, 0] - halves[:, 1]).square().mean()))


def jackknife_error(*without_one: Tensor) -> float:
    """The standard error of a statistic of several independent samples from its values without each single
    picture, one tensor (n_s,) a sample: sqrt(sum over samples of (n - 1) / n sum (T_i - mean T)^2)
    (Arvesen 1969)."""
    parts = [(len(t) - 1) / len(t) * float((t - t.mean()).square().sum()) for t in without_one]
    return math.sqrt(sum(parts))
