"""How many generated pictures lie where real ones do, and how many real ones they reach.

Around each picture a ball reaches as far as its k-th nearest neighbour in its own set. Precision is the share
of generated pictures in some real ball, recall the share of real ones in some generated ball (Kynkäänniemi et
al. 2019, eqs. 1, 2). Density counts in how many real balls a generated picture lies, over k; coverage is the
share of real balls with a generated picture in them (Naeem et al. 2020, eqs. 3, 4). The last two cannot be
had by a few outliers with large balls; density may exceed 1.

All four depend on n and on k: compare at the same of both. Their intervals, of the mean over such sets, are
from the same on halves of the real and of the generated pictures, cut 20 times by the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation.figure import SPLITS, T95, Figure, halves_error
from sfumato.evaluation.neighbours import Nearest, nearest
from sfumato.noise import permutation

SPARE = 24
"""So many more neighbours than 2 k are kept that k of them lie in the same half but once in 10^6, and the
last that is kept stands for the k-th then."""
FEWEST = 40
"""Fewer pictures have no intervals worth the name."""
BLOCK = 512
EDGE = 1 - 1e-9
"""A ball is open (its own k-th neighbour is outside): squares nearer to its edge than this are on it."""


class PrecisionRecall(NamedTuple):
    """Fidelity and variety, each in [0, 1]."""

    precision: Figure
    recall: Figure


class DensityCoverage(NamedTuple):
    """Fidelity, at least 0 and about 1 for one law; variety in [0, 1]."""

    density: Figure
    coverage: Figure


@dataclass(frozen=True)
class Points:
    """Features (n, D) with the nearest neighbours of each: found once for several metrics and comparisons."""

    features: Tensor
    neighbours: Nearest

    @staticmethod
    def of(features: Tensor, k: int = 5) -> Points:
        """For balls of at most k neighbours. Raises SettingsError for fewer than `FEWEST` pictures."""
        if not 1 <= k < FEWEST // 2 or len(features) < FEWEST:
            raise SettingsError(
                f"{len(features)} pictures, k = {k}: at least {FEWEST} of each set are needed, and k "
                f"from 1 to {FEWEST // 2 - 1}"
            )
        kept = min(2 * k + SPARE, len(features) - 1)
        return Points(features, nearest(features, features, kept, exclude_self=True))

    def radii(self, halves: Tensor, k: int) -> Tensor:
        """Of each ball, in the whole set and in its half of each split, (n, 1 + SPLITS)."""
        return _kth(self.neighbours.distances, halves, halves[self.neighbours.indices], k)


def _points(given: Tensor | Points, k: int) -> Points:
    if isinstance(given, Tensor):
        return Points.of(given, k)
    enough = min(2 * k + SPARE, len(given.features) - 1) <= given.neighbours.distances.shape[1]
    return given if enough else Points.of(given.features, k)


def precision_recall(
    real: Tensor | Points, generated: Tensor | Points, k: int = 3, seed: int = 0
) -> PrecisionRecall:
    """Of features (n, D) and (m, D); the seed draws the halves of the intervals. Raises SettingsError for
    fewer than `FEWEST` pictures of either."""
    a, b = _points(real, k), _points(generated, k)
    x, y = _halves(a, seed, "real"), _halves(b, seed, "generated")
    in_real = _counts(b.features, y, a.features, x, a.radii(x, k)) > 0
    in_generated = _counts(a.features, x, b.features, y, b.radii(y, k)) > 0
    return PrecisionRecall(_share(in_real, y), _share(in_generated, x))


def density_coverage(
    real: Tensor | Points, generated: Tensor | Points, k: int = 5, seed: int = 0
) -> DensityCoverage:
    """Of features (n, D) and (m, D); the seed draws the halves of the intervals. Raises SettingsError for
    fewer than `FEWEST` pictures of either.

    For sets of one law, density is 1 on average, and coverage `coverage_by_chance`.
    """
    a, b = _points(real, k), _points(generated, k)
    x, y = _halves(a, seed, "real"), _halves(b, seed, "generated")
    radii = a.radii(x, k)
    dense, halves = _means(_counts(b.features, y, a.features, x, radii) / k, y)
    found = nearest(a.features, b.features, min(1 + SPARE, len(b.features)))
    closest = _kth(found.distances, x, y[found.indices], 1)
    covered = closest.square() < radii.square() * EDGE
    return DensityCoverage(Figure.of(dense, halves_error(halves), T95, least=0.0), _share(covered, x))


def coverage_by_chance(n: int, m: int, k: int) -> float:
    """The mean coverage of n real by m generated pictures of one law (Naeem et al. 2020, appendix C),
    1 - (n - 1) ... (n - k) / ((n + m - 1) ... (n + m - k)): a ball is empty if the k nearest of all n + m - 1
    others are real."""
    empty = 1.0
    for i in range(1, k + 1):
        empty *= (n - i) / (n + m - i)
    return 1 - empty


def _halves(points: Points, seed: int, name: str) -> Tensor:
    """Which half each picture is in, (n, 1 + SPLITS) of 0 and 1; first the whole, where all are in one."""
    n = len(points.features)
    columns = [permutation(n, seed, "halves", name, i) % 2 for i in range(SPLITS)]
    columns.insert(0, torch.zeros(n, dtype=torch.int64))
    return torch.stack(columns, dim=1)


def _kth(distances: Tensor, own: Tensor, halves: Tensor, k: int) -> Tensor:
    """The k-th of the ascending distances (n, k') to pictures of the same half, (n, 1 + SPLITS); `own` and
    `halves`, (n, k', 1 + SPLITS), say which half a picture and its neighbours are in."""
    rank = (halves == own[:, None]).cumsum(1)
    at = (rank < k).sum(1).clamp(max=distances.shape[1] - 1)
    return distances.gather(1, at)


def _counts(points: Tensor, own: Tensor, centres: Tensor, halves: Tensor, radii: Tensor) -> Tensor:
    """In how many balls of its own half each point lies, (m, 1 + SPLITS) float64. Block by block, by
    |a - b|^2 = |a|^2 + |b|^2 - 2 a.b in float64 around the centres' mean."""
    shift = centres[:BLOCK].to("cpu", torch.float64).mean(0)
    counts = torch.zeros(own.shape, dtype=torch.float64)
    reach = radii.square() * EDGE
    for i in range(0, len(centres), BLOCK):
        a = centres[i : i + BLOCK].to("cpu", torch.float64) - shift
        limits, side = reach[i : i + BLOCK], halves[i : i + BLOCK]
        widest = limits.max(1).values
        for j in range(0, len(points), BLOCK):
            b = points[j : j + BLOCK].to("cpu", torch.float64) - shift
            squares = torch.addmm(a.square().sum(1)[:, None] + b.square().sum(1), a, b.T, alpha=-2)
            ball, point = (squares < widest[:, None]).nonzero(as_tuple=True)
            inside = (squares[ball, point, None] < limits[ball]) & (side[ball] == own[j + point])
            counts.index_add_(0, j + point, inside.double())
    return counts


def _means(values: Tensor, halves: Tensor) -> tuple[float, Tensor]:
    """The mean of the first column of (n, 1 + SPLITS), and of each other over either half, (SPLITS, 2)."""
    values = values.double()
    sides = [(values * (halves == side)).sum(0) / (halves == side).sum(0) for side in (0, 1)]
    return float(values[:, 0].mean()), torch.stack(sides, dim=1)[1:]


def _share(inside: Tensor, halves: Tensor) -> Figure:
    """The share of pictures, with its interval."""
    whole, each = _means(inside, halves)
    return Figure.of_share(whole, halves_error(each), len(inside))
