"""Clocks: the time in which a solver draws its polynomial. Each is a function of sigma : alpha alone.

A solver never sees a schedule, so a clock is read off the level:

- "log_snr"   log(alpha / sigma), half the log-SNR: exponential integrators (Lu et al. 2022)
- "ratio"     sigma / alpha: LMS and DEIS's rho-AB
- "linear"    sigma / (alpha + sigma): the time of rectified flow
- "angle"     atan2(sigma, alpha)
- "bounded"   log-SNR that comes to rest at both ends
- "time"      the time of the linear variance-preserving schedule, whatever the model's own: DEIS's t-AB
- "index"     the number of the step: PLMS
"""

from __future__ import annotations

import math
from typing import Literal

from sfumato.solvers.moves import Point

Clock = Literal["log_snr", "ratio", "linear", "angle", "bounded", "time", "index"]

BETA_MIN, BETA_MAX = 0.1, 20.0
"""The linear schedule of the clock "time" (Song et al. 2021, eq. 33; DEIS, Zhang & Chen 2023)."""

REST = (0.04, 8.0)
"""Where the clock "bounded" comes to rest, in sigma / alpha: on data of about unit scale nothing is decided
above the second, and the flow is straight below the first."""


def half_log_snr(point: Point) -> float:
    """lambda = log(alpha / sigma), infinite at both ends."""
    if point.alpha == 0 or point.sigma == 0:
        return -math.inf if point.alpha == 0 else math.inf
    return math.log(point.alpha / point.sigma)


def at_half_log_snr(lam: float) -> Point:
    """The level of unit norm at lambda = log(alpha / sigma)."""
    tail = math.exp(-abs(lam))
    large, small = 1 / math.hypot(1.0, tail), tail / math.hypot(1.0, tail)
    return Point(large, small) if lam > 0 else Point(small, large)


def tick(point: Point, clock: Clock) -> float:
    """The time of a level on a clock that is read off levels (all but "index")."""
    a, s = point
    if clock == "log_snr":
        return half_log_snr(point)
    if clock == "linear":
        return s / (a + s)
    if clock == "bounded":
        return math.log((s + REST[0] * a) / (s + REST[1] * a))
    if clock == "angle":
        return math.atan2(s, a)
    if a == 0:
        return math.inf
    if clock == "ratio":
        return s / a
    if clock == "time":  # -2 log alpha of unit norm is beta_min t + (beta_max - beta_min) t^2 / 2
        q = math.log1p((s / a) ** 2)
        return 2 * q / (BETA_MIN + math.sqrt(BETA_MIN**2 + 2 * (BETA_MAX - BETA_MIN) * q))
    raise ValueError("the number of a step is not read off its level")
