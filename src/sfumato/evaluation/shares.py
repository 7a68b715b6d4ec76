"""How many of n, as a share with its interval, and how many there would be by chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Z95 = 1.959963984540054
"""The standard normal's 97.5 % quantile: 95 % lie within it on both sides."""


def wilson(share: float, of: float | int, quantile: float = Z95) -> tuple[float, float]:
    """Wilson's interval of a share of `of` (1927): all p with |share - p| <= q sqrt(p (1 - p) / of)."""
    squared = quantile**2
    centre, scale = share + squared / (2 * of), 1 + squared / of
    reach = quantile * math.sqrt(share * (1 - share) / of + squared / (4 * of**2))
    low, high = (centre - reach) / scale, (centre + reach) / scale
    return 0.0 if share == 0 else max(0.0, low), 1.0 if share == 1 else min(1.0, high)


@dataclass(frozen=True)
class Share:
    """`count` of `of`, which is at least 1."""

    count: int
    of: int

    @property
    def value(self) -> float:
        """count / of."""
        return self.count / self.of

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        return wilson(self.value, self.of)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        low, high = self.interval
        return {"count": self.count, "of": self.of, "share": self.value, "low": low, "high": high}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} ({low:.1%} to {high:.1%})"


def below(n: int, known: int, rank: int) -> Tensor:
    """P(K = j), j = 0 .. n, (n + 1,) float64: K of n new values lie below the `rank`-th smallest of `known`.

    All values alike and independent, none equal: every order of the n + known is as likely as any other, so
    P(K = j) = C(j + rank - 1, j) C(n - j + known - rank, n - j) / C(n + known, n), whatever their law (the
    negative hypergeometric distribution). That the limit is itself drawn is part of it.
    """
    j = torch.arange(n + 1, dtype=torch.float64)
    whole = torch.tensor([float(n), float(known)], dtype=torch.float64)
    ways = _log_choose(j + rank - 1, j) + _log_choose(n - j + known - rank, n - j)
    return (ways - _log_choose(whole.sum(), whole[0])).exp()


def chance(count: int, n: int, known: int, rank: int) -> float:
    """P(K >= count) for K as in `below`: the p-value of so many."""
    return min(1.0, float(below(n, known, rank)[count:].sum()))


def most(n: int, known: int, rank: int, level: float) -> int:
    """The largest count with P(K >= count) > level: one more has that p-value at most."""
    tails = below(n, known, rank).flip(0).cumsum(0).flip(0)
    return int((tails > level).nonzero()[-1])


def _log_choose(n: Tensor, k: Tensor) -> Tensor:
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
