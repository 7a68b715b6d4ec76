"""Successive halving (Jamieson & Talwalkar 2016): all on few pictures, the best of them on more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
SHARE = 3
"""One of so many goes on to the next round, which looks at so many times the pictures."""


class Kept(NamedTuple):
    """What was seen of one that is still in the race: a row for each picture, and what that comes to."""

    seen: Tensor
    figure: float


def rounds(first: int, last: int) -> list[int]:
    """How many pictures have been looked at after each round: first, three times as many, ..., last."""
    sizes = [min(first, last)]
    while sizes[-1] < last:
        sizes.append(min(SHARE * sizes[-1], last))
    return sizes


def halve(
    racing: Sequence[T],
    look: Callable[[T, range], Tensor],
    figure: Callable[[Tensor], float],
    sizes: Sequence[int],
    told: Callable[[int, int, int, int], None] = lambda race, done, total, pictures: None,
) -> dict[T, Kept]:
    """The few that were looked at to the end, best (least figure) first.

    `look(one, rows)` gives a row for each of the pictures `rows`, which are not asked for again. `told(round,
    done, total, pictures)` hears of each look. An infinite figure leaves the race at once.
    """
    kept = {one: Kept(torch.empty(0), math.inf) for one in racing}
    before = 0
    for at, size in enumerate(sizes):
        for done, one in enumerate(kept, 1):
            new = look(one, range(before, size))
            seen = torch.cat([kept[one].seen, new]) if before else new
            kept[one] = Kept(seen, figure(seen))
            told(at, done, len(kept), size)
        order = sorted((one for one in kept if math.isfinite(kept[one].figure)), key=lambda o: kept[o].figure)
        last = at == len(sizes) - 1
        kept = {one: kept[one] for one in (order if last else order[: -(-len(order) // SHARE)])}
        before = size
    return kept
