"""Multistep solvers: Adams-Bashforth in the frame of one prediction, on one clock.

`of` is what is averaged (x0, eps or flow) and `clock` the time in which its polynomial is drawn. ("x0",
"log_snr", 2) is DPM-Solver++(2M), order 3 its third-order form; ("eps", "ratio", k) LMS; ("flow", "linear",
k) Adams-Bashforth on rectified flow. Order 1 is DDIM whatever the rest. Weights are derived from the moments
of the step, see `weights`.

A multistep method starts at order one and climbs as its history fills, so the error of its very first steps
caps the global order at 2 unless the history is seeded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.predictions import Estimate
from sfumato.solvers.moves import Leg, Point, carried
from sfumato.solvers.weights import weights

Frame = Literal["x0", "eps", "flow"]
Clock = Literal["log_snr", "ratio", "linear"]


def tick(point: Point, clock: Clock) -> float:
    """The time of a level on a clock: half log-SNR, sigma/alpha, or sigma/(alpha + sigma)."""
    if clock == "linear":
        return point.sigma / (point.alpha + point.sigma)
    if clock == "ratio":
        return point.sigma / point.alpha if point.alpha > 0 else math.inf
    if point.alpha == 0 or point.sigma == 0:
        return -math.inf if point.alpha == 0 else math.inf
    return math.log(point.alpha / point.sigma)


def seen(estimate: Estimate, frame: Frame) -> Tensor:
    """The half, or the velocity, that a solver averages."""
    return estimate.x0 if frame == "x0" else estimate.eps if frame == "eps" else estimate.flow


def frame_move(frame: Frame, here: Point, there: Point) -> tuple[float, float]:
    """(c_x, c_y) of the move x' = c_x x + c_y y for an estimate that says y in this frame.

    From x' = alpha' X + sigma' E with alpha X + sigma E = x and y one of X, E, E - X. Raises
    ZeroDivisionError where the frame cannot tell the other half (eps at alpha = 0, x0 at sigma = 0).
    """
    a, s = here
    if frame == "x0":
        return there.sigma / s, there.alpha - there.sigma * a / s
    if frame == "eps":
        return there.alpha / a, there.sigma - there.alpha * s / a
    return (there.alpha + there.sigma) / (a + s), (there.sigma * a - there.alpha * s) / (a + s)


class Row(NamedTuple):
    """One step, ready: x' = of_x x + sum_j past[j] y_j, newest first; or the plain move to `order_one`."""

    of_x: float
    past: tuple[float, ...]
    order_one: Point | None


@dataclass(frozen=True)
class Multistep:
    """Adams-Bashforth of this order on estimates `of` x0, eps or flow, by this `clock`."""

    of: Frame = "x0"
    clock: Clock = "log_snr"
    order: int = 2

    def __post_init__(self) -> None:
        if (self.of, self.clock) not in {
            ("x0", "log_snr"),
            ("eps", "log_snr"),
            ("eps", "ratio"),
            ("flow", "linear"),
        }:
            raise SettingsError(
                f"estimates of {self.of} cannot be averaged exactly on the {self.clock} clock"
            )
        if not 1 <= self.order <= 6:
            raise SettingsError(f"a multistep solver of order {self.order}: choose 1 to 6")

    def prepare(self, legs: Sequence[Leg]) -> list[Row]:
        """The coefficients of every step of a plan, as floats."""
        rows: list[Row] = []
        history: list[Point] = []
        for leg in legs:
            history = [leg.here, *([] if leg.restart else history)][: self.order]
            rows.append(self._row(leg, history))
        return rows

    def _row(self, leg: Leg, history: Sequence[Point]) -> Row:
        start = tick(leg.here, self.clock)
        # The polynomial spans the whole move; its density is that of the part which is carried (SDE-DPM-
        # Solver++).
        span, pull = tick(leg.there, self.clock) - start, tick(leg.kept, self.clock) - start
        plain = Row(0.0, (), leg.kept)
        if self.order == 1 or not math.isfinite(span) or not math.isfinite(pull) or span == 0:
            return plain  # an infinite span is taken at order one
        nodes = [(tick(point, self.clock) - start) / span for point in history]
        used = [k for k, node in enumerate(nodes) if math.isfinite(node)]  # infinitely far away: says nothing
        if len(used) < 2:
            return plain
        rate = 0.0 if self.clock != "log_snr" else 1.0 if self.of == "x0" else -1.0
        of_x, of_y = frame_move(self.of, leg.here, leg.kept)
        past = [0.0] * len(history)
        for k, w in zip(used, weights([nodes[k] for k in used], rate * pull), strict=True):
            past[k] = of_y * w
        return Row(of_x, tuple(past), None)

    def step(
        self, denoise: Denoiser, first: Estimate, row: Row, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step from what is seen now and what was seen before, newest first."""
        ys = (seen(first, self.of), *state)[: self.order] if self.order > 1 else ()
        if row.order_one is not None:
            return carried(first, row.order_one), ys
        x = first.x * row.of_x
        for weight, y in zip(row.past, ys):
            if weight != 0:
                x = torch.add(x, y, alpha=weight)
        return x, ys
