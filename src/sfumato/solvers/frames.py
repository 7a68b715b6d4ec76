"""Frames: what a solver averages along a move, and the exact move that goes with it.

A frame says y = p x0 + q eps of an estimate. The probability flow dx = x0 dalpha + eps dsigma, written for y
by variation of constants, is in every frame the same formula (g the gain and k the place of a level):

    x' / g' = x / g + integral of y dk

    y = x0:          g = sigma                   k = alpha / sigma            Lu et al. 2022b, eq. 8
    y = eps:         g = alpha                   k = sigma / alpha            Song et al. 2021, eq. 14
    y = eps - x0:    g = alpha + sigma           k = sigma / (alpha + sigma)  Liu et al. 2022
    y = v of data s: g = hypot(s alpha, sigma)   k = atan2(sigma, s alpha)    Salimans & Ho 2022 (s = 1)

The last holds the first two as its limits s = 0 and s = infinity, and is exact for Gaussian data of standard
deviation s, whose v is 0 everywhere. For a y that does not change the first three moves are one, DDIM's.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from sfumato.level import Level
from sfumato.predictions import Clean, Epsilon, Estimate, Flow, Prediction, Said, V
from sfumato.solvers.moves import Point

Frame = Literal["x0", "eps", "flow", "v"] | V
"""What is averaged: the clean half, the noise half, the velocity eps - x0, or v ("v" is V(data=1))."""

_UNIT = V()
_PREDICTIONS: dict[str, Prediction] = {"x0": Clean(), "eps": Epsilon(), "flow": Flow()}


def velocity(frame: Frame) -> V | None:
    """The frame's v, or None for x0, eps and flow."""
    return frame if isinstance(frame, V) else _UNIT if frame == "v" else None


def seen(estimate: Estimate, frame: Frame) -> Tensor:
    """What the estimate says in this frame, shaped like x."""
    v = velocity(frame)
    if v is not None:
        return v.target(estimate.x0, estimate.eps, estimate.level)
    return estimate.x0 if frame == "x0" else estimate.eps if frame == "eps" else estimate.flow


def saying(frame: Frame, x: Tensor, level: Level, y: Tensor) -> Estimate:
    """The estimate at (x, level) that says y in this frame."""
    return Estimate(x, level, Said(x, level, y, velocity(frame) or _PREDICTIONS[str(frame)]))


def frame_move(frame: Frame, here: Point, there: Point) -> tuple[float, float]:
    """(g'/g, g' (k' - k)): the move x' = c_x x + c_y y for a y that keeps its value, without cancellation.

    Raises ZeroDivisionError where the frame cannot tell the other half (eps at alpha = 0, x0 at sigma = 0).
    """
    a, s = here
    v = velocity(frame)
    if v is not None:
        a, b = a * v.data, there.alpha * v.data
        turn = math.atan2(there.sigma * a - b * s, a * b + s * there.sigma)
        gain = math.hypot(b, there.sigma)
        return gain / math.hypot(a, s), v.sign * gain * turn
    if frame == "x0":
        return there.sigma / s, there.alpha - there.sigma * a / s
    if frame == "eps":
        return there.alpha / a, there.sigma - there.alpha * s / a
    return (there.alpha + there.sigma) / (a + s), (there.sigma * a - there.alpha * s) / (a + s)


def plain_move(frame: Frame, here: Point, there: Point) -> tuple[float, float]:
    """DDIM's move, which keeps x0 and eps, as x' = c_x x + c_y y.

    It is `frame_move` for x0, eps and flow; v turns while they stay: c_x = g'/g cos(turn), c_y = g' sin(turn)
    (Salimans & Ho 2022, eq. 8, for data = 1).
    """
    v = velocity(frame)
    if v is None:
        return frame_move(frame, here, there)
    (a, s), (b, t) = here, there
    a, b = a * v.data, b * v.data
    gain = math.hypot(a, s)
    return (a * b + s * t) / gain**2, v.sign * (t * a - b * s) / gain


def place(frame: Frame, point: Point) -> float:
    """k, in which the frame's move is a plain integral; infinite where the frame says too little."""
    a, s = point
    v = velocity(frame)
    if v is not None:
        return v.sign * math.atan2(s, a * v.data)
    if frame == "x0":
        return a / s if s > 0 else math.inf
    if frame == "eps":
        return s / a if a > 0 else math.inf
    return s / (a + s)


def at_place(frame: Frame, k: float) -> Point:
    """The level of unit norm at the place k: the inverse of `place`."""
    v = velocity(frame)
    if v is not None:
        k *= v.sign
        angle = math.atan2(v.data * math.sin(k), math.cos(k))
    elif frame == "x0":
        angle = math.atan2(1.0, k)
    elif frame == "eps":
        angle = math.atan(k)
    else:
        angle = math.atan2(k, 1 - k)
    return Point(math.cos(angle), math.sin(angle))


def log_density(frame: Frame, half_log_snr: float) -> float:
    """log |dk / dlambda| but for a constant, at lambda = log(alpha / sigma)."""
    v = velocity(frame)
    if v is not None:
        away = abs(half_log_snr + math.log(v.data))
        return -away - math.log1p(math.exp(-2 * away))
    if frame == "flow":
        away = abs(half_log_snr)
        return -away - 2 * math.log1p(math.exp(-away))
    return half_log_snr if frame == "x0" else -half_log_snr
