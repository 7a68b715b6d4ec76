"""k-means: the clusters of a cloud of points, the same at every call."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.noise import uniform

ROUNDS = 50
_ROWS = 4096


def clusters(points: Tensor, k: int, seed: int = 0) -> Tensor:
    """k centres of points (n, D), (k, D) float64: Lloyd's iteration (1982) from k-means++ (Arthur &
    Vassilvitskii 2007), until no point changes its cluster, 50 times at most.

    A centre that loses all its points goes to the point that is farthest from its own. Raises SettingsError
    unless 1 <= k <= n.
    """
    if not 1 <= k <= len(points):
        raise SettingsError(f"{k} clusters of {len(points)} points: give a number from 1 to {len(points)}")
    points = points.double()
    centres, owner = _spread_out(points, k, seed), torch.full((len(points),), -1)
    for _ in range(ROUNDS):
        found = owners(points, centres)
        if bool((found == owner).all()):
            break
        owner = found
        sizes = torch.bincount(owner, minlength=k)
        sums = torch.zeros_like(centres).index_add_(0, owner, points)
        empty = (sizes == 0).nonzero()[:, 0]
        away = (points - centres[owner]).square().sum(1).argsort(descending=True, stable=True)
        centres = sums / sizes.clamp(min=1)[:, None]
        centres[empty] = points[away[: len(empty)]]
    return centres


def owners(points: Tensor, centres: Tensor) -> Tensor:
    """The number of the centre that is nearest to each point, (n,) int64, the first of several."""
    squares = centres.square().sum(1)
    parts = [(squares - 2 * part.double() @ centres.T).argmin(1) for part in points.split(_ROWS)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)


def _spread_out(points: Tensor, k: int, seed: int) -> Tensor:
    """k of the points, each drawn with a probability like its squared distance to those before it."""
    draws = uniform(k, seed, "clusters").tolist()
    chosen = [int(draws[0] * len(points))]
    squares = torch.full((len(points),), torch.inf, dtype=torch.float64)
    for draw in draws[1:]:
        squares = torch.minimum(squares, (points - points[chosen[-1]]).square().sum(1))
        upto = squares.cumsum(0)
        place = int(torch.searchsorted(upto, draw * upto[-1], right=True))
        chosen.append(min(place, len(points) - 1))
    return points[chosen]
