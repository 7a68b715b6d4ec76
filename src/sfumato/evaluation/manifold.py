"""How many generated pictures lie where real ones do, and how many real ones they reach.

Around each picture a ball reaches as far as its k-th nearest neighbour in its own set. Precision is the share
of generated pictures in some real ball, recall the share of real ones in some generated ball (Kynkäänniemi et
al. 2019, eqs. 1, 2). Density counts in how many real balls a generated picture lies, over k; coverage is the
share of real balls with a generated picture in them (Naeem et al. 2020, eqs. 3, 4). The last two cannot be
had by a few outliers with large balls; density may exceed 1.

All four depend on n and on k: compare at the same of both. Their intervals, of the mean over such sets, are
by a jackknife that leaves out one of 20 groups of real and of generated pictures at a time, balls and all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation.figure import GROUPS, T95, Figure, group_error
from sfumato.evaluation.neighbours import nearest
from sfumato.noise import permutation

SPARE = 8
"""Neighbours beyond the k-th that are kept, so that k are left without any one group: that 9 of k + 8 fall
into one group happens to one picture in 10^8, which then has the last distance that is kept."""
BLOCK = 1024
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


def precision_recall(real: Tensor, generated: Tensor, k: int = 3, seed: int = 0) -> PrecisionRecall:
    """Of features (n, D) and (m, D); the seed draws the groups of the intervals. Raises SettingsError for
    fewer than 2 GROUPS pictures, and k + 2, of either."""
    _check(real, generated, k)
    x, y = _groups(real, seed, "real"), _groups(generated, seed, "generated")
    inside_real = _counts(generated, real, _radii(real, x, k)) > 0
    inside_generated = _counts(real, generated, _radii(generated, y, k)) > 0
    return PrecisionRecall(_share(inside_real.T, y), _share(inside_generated.T, x))


def density_coverage(real: Tensor, generated: Tensor, k: int = 5, seed: int = 0) -> DensityCoverage:
    """Of features (n, D) and (m, D); the seed draws the groups of the intervals. Raises SettingsError for
    fewer than 2 GROUPS pictures, and k + 2, of either.

    For sets of one law, density is 1 on average, and coverage
    1 - (n - 1) ... (n - k) / ((n + m - 1) ... (n + m - k)) (`coverage_by_chance`).
    """
    _check(real, generated, k)
    x, y = _groups(real, seed, "real"), _groups(generated, seed, "generated")
    radii = _radii(real, x, k)
    counts = _counts(generated, real, radii).T.double() / k
    whole, replicates = _means(counts, y)
    found = nearest(real, generated, min(1 + SPARE, len(generated)))
    closest = _without(found.distances, y[found.indices], 1)
    covered = closest.square() < radii.square() * EDGE
    return DensityCoverage(Figure.of(whole, group_error(replicates), T95, least=0.0), _share(covered, x))


def coverage_by_chance(n: int, m: int, k: int) -> float:
    """The mean coverage of n real by m generated pictures of the same law (Naeem et al. 2020, appendix C):
    a ball is empty if the k nearest of all n + m - 1 others are real."""
    empty = 1.0
    for i in range(1, k + 1):
        empty *= (n - i) / (n + m - i)
    return 1 - empty


def _check(real: Tensor, generated: Tensor, k: int) -> None:
    fewest = max(2 * GROUPS, k + 2)
    if k < 1 or min(len(real), len(generated)) < fewest:
        raise SettingsError(
            f"{len(real)} real and {len(generated)} generated pictures, k = {k}: at least {fewest} of each "
            "are needed, and k at least 1"
        )


def _groups(features: Tensor, seed: int, name: str) -> Tensor:
    """The group of each picture, (n,), all of about one size."""
    return permutation(len(features), seed, "groups", name) % GROUPS


def _radii(features: Tensor, groups: Tensor, k: int) -> Tensor:
    """The radius of each ball, (n, 1 + GROUPS): of the whole set, then without each group; 0 for a ball of
    the group itself, which nothing is inside of."""
    found = nearest(features, features, min(k + SPARE, len(features) - 1), exclude_self=True)
    radii = _without(found.distances, groups[found.indices], k)
    return radii.masked_fill(_own(groups), 0.0)


def _without(distances: Tensor, groups: Tensor, k: int) -> Tensor:
    """The k-th of the ascending distances (n, k'), then the k-th outside of each group: (n, 1 + GROUPS)."""
    columns = [distances[:, k - 1]]
    for group in range(GROUPS):
        rank = (groups != group).cumsum(1)
        at = (rank < k).sum(1).clamp(max=distances.shape[1] - 1)
        columns.append(distances.gather(1, at[:, None])[:, 0])
    return torch.stack(columns, dim=1)


def _own(groups: Tensor) -> Tensor:
    """Whether a picture is left out, (n, 1 + GROUPS): never from the whole."""
    return groups[:, None] == torch.arange(-1, GROUPS)


def _counts(points: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """In how many balls each point lies, (1 + GROUPS, m) int64. Block by block, by
    |a - b|^2 = |a|^2 + |b|^2 - 2 a.b in float64 around the centres' mean."""
    shift = centres[:BLOCK].to("cpu", torch.float64).mean(0)
    counts = torch.zeros(radii.shape[1], len(points), dtype=torch.int64)
    reach = radii.square() * EDGE
    for i in range(0, len(centres), BLOCK):
        a = centres[i : i + BLOCK].to("cpu", torch.float64) - shift
        for j in range(0, len(points), BLOCK):
            b = points[j : j + BLOCK].to("cpu", torch.float64) - shift
            squares = torch.addmm(a.square().sum(1)[:, None] + b.square().sum(1), a, b.T, alpha=-2)
            for group, limits in enumerate(reach[i : i + BLOCK].T):
                counts[group, j : j + BLOCK] += (squares < limits[:, None]).sum(0)
    return counts


def _means(values: Tensor, groups: Tensor) -> tuple[float, Tensor]:
    """The mean of the first column of (n, 1 + GROUPS) over all pictures, and of each other over those that
    are left, (GROUPS,)."""
    values, left = values.double(), ~_own(groups)
    means = (values * left).sum(0) / left.sum(0)
    return float(means[0]), means[1:]


def _share(inside: Tensor, groups: Tensor) -> Figure:
    """The share of pictures, with its interval."""
    whole, replicates = _means(inside, groups)
    return Figure.of_share(whole, group_error(replicates), len(inside))
