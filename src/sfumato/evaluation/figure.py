"""A value and its 95 % interval, from replicates of it or from its standard error."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from sfumato.evaluation.shares import Z95

GROUPS = 20
"""The groups of a delete-a-group jackknife."""
T95 = 2.093024
"""Student's 97.5 % quantile for GROUPS - 1 degrees of freedom."""


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
        """A share of n by Wilson's interval (1927) with the number of independent ones that has this standard
        error, p (1 - p) / error^2, as for the shares of a survey (Korn & Graubard 1998); at most n. Near 0
        and 1, where the error vanishes, the interval still has a width."""
        spread = value * (1 - value)
        alike = n if error == 0 else min(n, spread / error**2)
        z2 = T95**2 / max(alike, 1.0)
        centre = (value + z2 / 2) / (1 + z2)
        reach = math.sqrt(z2 * spread + z2**2 / 4) / (1 + z2)
        return Figure(value, min(value, max(0.0, centre - reach)), max(value, min(1.0, centre + reach)))


def group_error(replicates: Tensor) -> float:
    """The standard error of a statistic from its values (GROUPS,) without one group of the data each:
    sqrt((G - 1) / G sum (T_g - mean T)^2) (Kott 2001). By Efron & Stein (1981) it is too large on average
    rather than too small."""
    groups = len(replicates)
    return math.sqrt((groups - 1) / groups * float((replicates - replicates.mean()).square().sum()))


def jackknife_error(*without_one: Tensor) -> float:
    """The standard error of a statistic of several independent samples from its values without each single
    picture, one tensor (n_s,) a sample: sqrt(sum over samples of (n - 1) / n sum (T_i - mean T)^2)
    (Arvesen 1969)."""
    parts = [(len(t) - 1) / len(t) * float((t - t.mean()).square().sum()) for t in without_one]
    return math.sqrt(sum(parts))
