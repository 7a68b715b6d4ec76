"""Which size a data set gets when nobody says: decided from the headers of its pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median_low

from sfumato.errors import DataError

LARGEST = 64
"""The longest side chosen unasked: what trains in minutes on a laptop."""


def rounded(side: float | int, multiple: int) -> int:
    """The multiple nearest to a side, upwards when between two, at least one."""
    return max(1, math.floor(side / multiple + 0.5)) * multiple


def choose_size(sizes: Sequence[tuple[int, int]], multiple: int, largest: int = LARGEST) -> tuple[int, int]:
    """(height, width), divisible by `multiple`, no side above `largest` where that can be met.

    Pictures all of one size keep it and its shape, scaled down if too large. Otherwise a square whose side
    is the power of two nearest to the median of the shorter sides.
    """
    if len(set(sizes)) == 1:
        height, width = sizes[0]
        scale = min(1.0, largest / max(height, width))
        sides = (rounded(height * scale, multiple), rounded(width * scale, multiple))
    else:
        shorter = median_low(min(size) for size in sizes)
        side = rounded(min(2 ** round(math.log2(shorter)), largest), multiple)
        sides = (side, side)
    most = max(multiple, largest // multiple * multiple)
    return min(sides[0], most), min(sides[1], most)


def check_size(size: int | tuple[int, int], multiple: int) -> tuple[int, int]:
    """A size that was asked for, as (height, width). Raises DataError if it is not divisible as the network
    needs.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise DataError(f"the size {height} x {width} has no pixels: give sides from {multiple}")
    if height % multiple or width % multiple:
        near = (rounded(max(1, height), multiple), rounded(max(1, width), multiple))
        raise DataError(
            f"the size {height} x {width} must be divisible by {multiple} on both sides, "
            f"for example {near[0]} x {near[1]}"
        )
    return height, width
