"""Mode coverage: how many of the kinds of pictures in the data a model makes at all, and how often.

The kinds are clusters of training pictures in an extractor's space, found in one half of them. All counting
is by the other half, so the clusters fit it no better than they fit samples. Two counts are made: clusters
that samples reach, and clusters whose shares differ (the number of statistically different bins, NDB:
Richardson & Weiss 2018, section 3); each beside what new pictures would give.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation.clusters import clusters, owners
from sfumato.evaluation.neighbours import nearest
from sfumato.evaluation.shares import Z95
from sfumato.noise import permutation

MOST = 100
"""Clusters; with fewer than 4,000 training pictures one for every 40."""
EACH = 40
FEWEST = 80
LEVEL = 0.05
_NAMED = 12


@dataclass(frozen=True)
class Missing:
    """A cluster that surely has too few samples. example: the row of the training picture at its middle."""

    cluster: int
    example: int
    due: float
    share: float


@dataclass(frozen=True)
class Modes:
    """n samples over the clusters of the training pictures.

    reached: clusters with a sample; expected, error: of as many training pictures, mean and at most its
    standard deviation. different: clusters whose share differs at 5 %, usual: how many 95 % of models without
    bias stay below. held: the same count for the held-out pictures, None without enough of them. missing: the
    under-served clusters, worst first, each sure at 5 % for all clusters together (Bonferroni).
    """

    clusters: int
    samples: int
    reached: int
    expected: float
    error: float
    different: int
    usual: int
    held: int | None
    missing: tuple[Missing, ...]

    @property
    def under(self) -> bool:
        """Surely leaves some kinds of pictures out."""
        return self.reached < self.expected - 3 * self.error or bool(self.missing)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "clusters": self.clusters,
            "samples": self.samples,
            "reached": self.reached,
            "expected": self.expected,
            "error": self.error,
            "different": self.different,
            "different_usual": self.usual,
            "different_held_out": self.held,
            "under_served": [
                {"cluster": one.cluster, "example": one.example, "due": one.due, "share": one.share}
                for one in self.missing
            ],
        }

    def lines(self) -> Iterator[str]:
        """The same for people."""
        yield (
            f"modes: {self.reached} of {self.clusters} clusters reached; as many training pictures reach "
            f"{self.expected:.1f} +- {self.error:.1f}"
        )
        held = "" if self.held is None else f", held-out pictures {self.held}"
        yield (
            f"  {self.different} clusters differ in share; without bias up to {self.usual}{held} "
            f"({len(self.missing)} have surely too few samples)"
        )
        for one in self.missing[:_NAMED]:
            yield (
                f"  cluster {one.cluster:>3}, as training picture {one.example}: due {one.due:.1%}, "
                f"has {one.share:.1%}"
            )


def modes(train: Tensor, held: Tensor, samples: Tensor, seed: int = 0, count: int | None = None) -> Modes:
    """The coverage of the clusters of `train` by `samples`, features (n, D) each.

    count: of clusters. Raises SettingsError for too few training pictures or samples.
    """
    if len(train) < FEWEST or len(samples) < FEWEST:
        raise SettingsError(
            f"{len(train):,} training pictures and {len(samples):,} samples: clusters need {FEWEST} of each"
        )
    k = min(MOST, len(train) // EACH) if count is None else count
    order = permutation(len(train), seed, "modes")
    first, other = order[: len(order) // 2], order[len(order) // 2 :]
    centres = clusters(train[first], k, seed)
    known, made = (_counts(points, centres) for points in (train[other], samples))
    shares = known.double() / len(other)
    missed = (1 - shares) ** len(samples)
    z = _differences(made, known)
    sure = -_quantile(LEVEL / 2 / k)
    worst: list[int] = z.argsort(stable=True).tolist()
    short = [cluster for cluster in worst if float(z[cluster]) < -sure]
    middle = nearest(centres, train).indices[:, 0]
    enough = len(held) >= FEWEST
    return Modes(
        clusters=k,
        samples=len(samples),
        reached=int((made > 0).sum()),
        expected=float((1 - missed).sum()),
        error=math.sqrt(float((missed * (1 - missed)).sum())),
        different=int((z.abs() > Z95).sum()),
        usual=_usual(k),
        held=int((_differences(_counts(held, centres), known).abs() > Z95).sum()) if enough else None,
        missing=tuple(
            Missing(c, int(middle[c]), float(shares[c]), float(made[c]) / len(samples)) for c in short
        ),
    )


def _counts(points: Tensor, centres: Tensor) -> Tensor:
    return torch.bincount(owners(points, centres), minlength=len(centres))


def _differences(counts: Tensor, others: Tensor) -> Tensor:
    """z of the difference of two shares in each cluster, pooled; 0 where both are empty."""
    n, m = int(counts.sum()), int(others.sum())
    pooled = (counts + others).double() / (n + m)
    error = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    return torch.where(error > 0, (counts / n - others / m) / error, 0.0)


def _quantile(p: float) -> float:
    """Of the standard normal."""
    return float(torch.special.ndtri(torch.tensor(p, dtype=torch.float64)))


def _usual(k: int) -> int:
    """The 95 % quantile of a binomial: of k tests at 5 %, so many are failed by chance."""
    j = torch.arange(k + 1, dtype=torch.float64)
    whole = torch.tensor(float(k), dtype=torch.float64)
    ways = torch.lgamma(whole + 1) - torch.lgamma(j + 1) - torch.lgamma(whole - j + 1)
    upto = (ways + j * math.log(LEVEL) + (whole - j) * math.log1p(-LEVEL)).exp().cumsum(0)
    return int((upto < 0.95).sum())
