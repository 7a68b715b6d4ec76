"""The nearest of many points, exactly, in bounded memory.

Screened by |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, one product of matrices, which loses the digits of near copies.
So a few more than k are kept, their distances are computed anew from differences in float64, and where
rounding might have left a nearer point out (by the bound for sums of products, Higham 2002, section 3.1), the
row is looked at once more by differences alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.errors import SettingsError

_SPARE = 8
"""So many more than k are computed anew."""
_NUMBERS = 1 << 22
"""The most numbers of a block."""
_ROWS = 2048


class Nearest(NamedTuple):
    """distances: (n, k) float64, ascending; indices: (n, k) int64; both on the CPU."""

    distances: Tensor
    indices: Tensor


def nearest(queries: Tensor, among: Tensor, k: int = 1, *, exclude_self: bool = False) -> Nearest:
    """The k points of `among`, (m, D), that are nearest to each of the queries, (n, D), by |a - b|.

    Exact to float64's rounding of the differences, copies included; of points equally far the first is taken
    where it can be told. `exclude_self`: query i is point i itself, which does not count. Both may be memory
    maps: they are read in blocks. The products are computed where the queries are, in float64 where there
    is such. Raises SettingsError for unlike widths, and for fewer than k points.
    """
    left = len(among) - exclude_self
    if queries.ndim != 2 or among.ndim != 2 or queries.shape[1] != among.shape[1]:
        raise SettingsError(
            f"neighbours are of points (n, D) among points (m, D), not {tuple(queries.shape)} among "
            f"{tuple(among.shape)}"
        )
    if exclude_self and len(queries) != len(among):
        raise SettingsError("without themselves, points are looked for among the same points")
    if not 1 <= k <= left:
        raise SettingsError(f"{k} nearest of {left} points: give a number from 1 to {left}")
    size = _rows(queries.shape[1])
    shift = among[:size].to("cpu", torch.float64).mean(0)
    blocks = [
        _block(queries[start : start + size], among, k, shift, start if exclude_self else None)
        for start in range(0, len(queries), size)
    ]
    if not blocks:
        return Nearest(torch.empty(0, k, dtype=torch.float64), torch.empty(0, k, dtype=torch.int64))
    return Nearest(torch.cat([d for d, _ in blocks]), torch.cat([i for _, i in blocks]))


def _rows(width: int) -> int:
    return min(_ROWS, max(1, _NUMBERS // max(1, width)))


def _block(queries: Tensor, among: Tensor, k: int, shift: Tensor, first: int | None) -> Nearest:
    """The neighbours of a block of queries; `first` is the index of its first point, if it is of `among`."""
    screened, indices, error = _screen(queries, among, k, shift, first)
    indices = indices.sort(1).values
    exact = _exact(queries, among, indices)
    distances, order = exact.sort(stable=True, dim=1)
    indices = indices.gather(1, order)[:, :k]
    distances = distances[:, :k].clone()
    left_out = len(among) - (first is not None) > screened.shape[1]
    nearer = distances[:, -1].square() > (screened[:, -1] - error).clamp(min=0)
    rows: list[int] = nearer.nonzero()[:, 0].tolist() if left_out else []
    for row in rows:
        own = None if first is None else first + row
        distances[row], indices[row] = _alone(queries[row], among, k, own)
    return Nearest(distances, indices)


def _screen(
    queries: Tensor, among: Tensor, k: int, shift: Tensor, first: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """A few more than k candidates a row: |a - b|^2 as the product gives it, (n, k'), ascending, their
    indices, and how far these squares may be wrong, (n,). On the CPU."""
    device = queries.device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    shift = shift.to(device, dtype)
    a = queries.to(dtype) - shift
    own = a.square().sum(1)
    best = torch.empty(len(a), 0, dtype=dtype, device=device)
    where = torch.empty(len(a), 0, dtype=torch.int64, device=device)
    largest = torch.zeros((), dtype=dtype, device=device)
    size = _rows(queries.shape[1])
    for start in range(0, len(among), size):
        b = among[start : start + size].to(device, dtype) - shift
        squares = b.square().sum(1)
        largest = torch.maximum(largest, squares.max())
        found = torch.addmm(own[:, None] + squares, a, b.T, alpha=-2)
        if first is not None:
            rows = torch.arange(len(a), device=device)
            inside = (rows + first >= start) & (rows + first < start + len(b))
            found[rows[inside], rows[inside] + first - start] = torch.inf
        places = torch.arange(start, start + len(b), device=device).expand(len(a), -1)
        every, at = torch.cat([best, found], 1), torch.cat([where, places], 1)
        best, order = every.topk(min(k + _SPARE, every.shape[1]), largest=False)
        where = at.gather(1, order)
    if first is not None:  # the point itself stands last, with distance inf, where all points are kept
        kept = min(k + _SPARE, len(among) - 1)
        best, where = best[:, :kept], where[:, :kept]
    error = 2 * (queries.shape[1] + 4) * torch.finfo(dtype).eps * (own.sqrt() + largest.sqrt()) ** 2
    return best.to("cpu", torch.float64), where.cpu(), error.to("cpu", torch.float64)


def _exact(queries: Tensor, among: Tensor, indices: Tensor) -> Tensor:
    """|a - b| of each candidate, (n, k'), by differences in float64."""
    out = torch.empty(indices.shape, dtype=torch.float64)
    rows = max(1, _NUMBERS // max(1, queries.shape[1] * indices.shape[1]))
    for start in range(0, len(indices), rows):
        part = slice(start, start + rows)
        points = among[indices[part].to(among.device)].to("cpu", torch.float64)
        out[part] = (points - queries[part].to("cpu", torch.float64)[:, None]).square().sum(2).sqrt()
    return out


def _alone(query: Tensor, among: Tensor, k: int, own: int | None) -> tuple[Tensor, Tensor]:
    """The neighbours of one query by differences alone."""
    a, size = query.to("cpu", torch.float64), _rows(among.shape[1])
    parts = [
        (among[start : start + size].to("cpu", torch.float64) - a).square().sum(1)
        for start in range(0, len(among), size)
    ]
    squares = torch.cat(parts)
    if own is not None:
        squares[own] = torch.inf
    found, order = squares.sort(stable=True)
    return found[:k].sqrt(), order[:k]
