"""Figures as they are read: to the digits that their interval leaves sure, and no more."""

from __future__ import annotations

import math

Number = float | int


def places(low: Number | None, high: Number | None) -> int | None:
    """Decimals that show two digits of an interval's half width; None without an interval."""
    if low is None or high is None or not high > low:
        return None
    return min(12, max(0, 1 - math.floor(math.log10((high - low) / 2))))


def fixed(value: Number, decimals: int | None) -> str:
    """The value to so many decimals, never -0; None: to three significant digits."""
    return f"{value:.3g}" if decimals is None else f"{round(value, decimals) + 0.0:.{decimals}f}"


def figure(
    value: Number, low: Number | None = None, high: Number | None = None, decimals: int | None = None
) -> str:
    """A value with its interval: 0.0221 (0.0194 to 0.0247)."""
    decimals = places(low, high) if decimals is None else decimals
    text = fixed(value, decimals)
    if low is None or high is None:
        return text
    return f"{text} ({fixed(low, decimals)} to {fixed(high, decimals)})"
