"""The span of a move on a clock, and the mean of each power of its time under the frame's kernel.

This is the one integral behind every averaging solver: a polynomial in the clock's time s, from 0 here to 1
there, integrated against dk (see `frames`). It is a closed form for x0 and eps in log-SNR and where the
clock is the frame's own place, and a Gauss-Legendre quadrature, exact to rounding, otherwise: done once per
plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from sfumato.solvers.clocks import Clock, at_half_log_snr, half_log_snr, tick
from sfumato.solvers.frames import Frame, log_density, place
from sfumato.solvers.moves import Point
from sfumato.solvers.weights import moments

OWN: frozenset[tuple[Frame, Clock]] = frozenset({("eps", "ratio"), ("flow", "linear"), ("v", "angle")})
"""Where the clock is the frame's place: the kernel is flat."""

TAIL = 45.0
"""Beyond this many units of log-SNR a kernel that falls off as exp(-|lambda|) holds less than 1e-19."""


class Span(NamedTuple):
    """A move on a clock: s = (tick - start) / unit, and E[s^k] for k = 0, 1, ... under the frame's kernel."""

    start: float
    unit: float
    moments: list[float]


def span(frame: Frame, clock: Clock, here: Point, there: Point, kept: Point, n: int) -> Span | None:
    """The first n moments of a move from `here` to `there`, or None where only order one has a meaning.

    unit is the move's length, so that s ends at 1. A move that is infinite on the clock is of order one: no
    curve through what was seen may be stretched without end. Where some noise is drawn anew (kept is cleaner
    than there) the polynomial spans the whole move, and the kernel is that of the part which is carried: for
    x0 in log-SNR SDE-DPM-Solver++ (Lu et al. 2022b, sec. 5).
    """
    if clock == "index":
        return Span(0.0, 1.0, flat(n))
    start, end = tick(here, clock), tick(there, clock)
    # renewing all noise leaves nothing to carry
    if (
        not (math.isfinite(start) and math.isfinite(end))
        or start == end
        or math.isfinite(half_log_snr(there)) != math.isfinite(half_log_snr(kept))
    ):
        return None
    if not math.isfinite(place(frame, here)):
        return None
    unit = end - start
    if not math.isfinite(place(frame, there)):  # all weight at the end
        return Span(start, unit, [1.0] * n)
    if (frame, clock) in OWN and kept == there:
        return Span(start, unit, flat(n))
    if clock == "log_snr" and frame in ("x0", "eps"):
        rate = 1.0 if frame == "x0" else -1.0
        return Span(start, unit, moments(n, rate * (half_log_snr(kept) - start)))
    sums = [0.0] * n
    for weight, s in _kernel(frame, clock, here, there, kept, start, unit):
        for k in range(n):
            sums[k] += weight * s**k
    return Span(start, unit, [value / sums[0] for value in sums])


def flat(n: int) -> list[float]:
    """The moments of an even density on [0, 1]: 1, 1/2, 1/3, ..."""
    return [1 / (k + 1) for k in range(n)]


def _kernel(
    frame: Frame, clock: Clock, here: Point, there: Point, kept: Point, start: float, unit: float
) -> Iterator[tuple[float, float]]:
    """(weight, s) pairs whose sums are the integrals over the move: panels of at most one unit of lambda."""
    low, high, carried = half_log_snr(here), half_log_snr(there), half_log_snr(kept)
    if math.isinf(low) and math.isinf(high):
        low, high = math.copysign(TAIL, low), math.copysign(TAIL, high)
        carried = high
    if math.isinf(low):
        low = math.copysign(max(TAIL, TAIL - math.copysign(high, low)), low)
    if math.isinf(high):
        high = carried = math.copysign(max(TAIL, TAIL + math.copysign(low, high)), high)
    panels = max(1, math.ceil(max(abs(high - low), abs(carried - low))))
    marks = [((i + x) / panels, w) for i in range(panels) for x, w in gauss_legendre(14)]
    logs = [log_density(frame, low + (carried - low) * at) for at, _ in marks]
    top = max(logs)
    for (at, w), log in zip(marks, logs, strict=True):
        now = tick(at_half_log_snr(low + (high - low) * at), clock)
        yield w * math.exp(log - top), (now - start) / unit


@cache
def gauss_legendre(n: int) -> tuple[tuple[float, float], ...]:
    """Nodes and weights on [0, 1], exact for polynomials of degree 2n - 1 (Newton's method)."""
    out: list[tuple[float, float]] = []
    for i in range(n):
        x, slope = math.cos(math.pi * (i + 0.75) / (n + 0.5)), 1.0
        for _ in range(8):
            before, value = 1.0, x
            for k in range(2, n + 1):
                before, value = value, ((2 * k - 1) * x * value - (k - 1) * before) / k
            slope = n * (x * value - before) / (x * x - 1)
            x -= value / slope
        out.append(((1 + x) / 2, 1 / ((1 - x * x) * slope**2)))
    return tuple(out)
