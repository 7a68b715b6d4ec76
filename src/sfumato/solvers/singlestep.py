"""Single-step solvers: they look again within the step instead of remembering.

Each is a Runge-Kutta method in the frame of one estimate (x0, eps or flow) on one clock; every row of its
table is a move under the polynomial through what the rows before it saw, see `weights`. ("eps", order 2) is
DPM-Solver-2 and k-diffusion's DPM2, ("eps", order 3) DPM-Solver-3 (Lu et al. 2022, algorithms 1 and 2),
("x0", order 2 | 3) DPM-Solver++ 2S and 3S (Lu et al. 2022b), ("flow", "linear") the midpoint rule and Heun's
third-order rule of flows.

Where noise is drawn anew the step solves the flow from `here` to `kept`, below the level that the noise then
lifts it to: both halves keep the distribution, so the order in distribution is that of the flow. That is
k-diffusion's DPM2-ancestral and 2S-ancestral. Its DPM++ SDE also draws noise for the look within the step, a
part of the step's own; it is of the same order in distribution, and here 2S-ancestral stands for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.predictions import Estimate
from sfumato.solvers.clocks import Clock, tick
from sfumato.solvers.frames import Frame, frame_move, seen
from sfumato.solvers.moves import Leg, Point, carried, refuse_through
from sfumato.solvers.weights import moments, weights

Rule = Literal["published", "exact"]

MOST = 10.0
"""A step by eps that would bring an error of its looks back more than so many times is taken at order one:
with 2 or 3 steps from sigma/alpha = 157 Heun is otherwise off by 75 standard deviations."""

_NODES: dict[int, tuple[float, ...]] = {1: (), 2: (1 / 2,), 3: (1 / 3, 2 / 3)}


class Combination(NamedTuple):
    """x' = of_x x + sum_j seen[j] y_j, in the order of looking."""

    of_x: float
    seen: tuple[float, ...]

    def of(self, x: Tensor, ys: Sequence[Tensor]) -> Tensor:
        """x' from x and what was seen."""
        out = x * self.of_x
        for weight, y in zip(self.seen, ys):
            if weight != 0:
                out = torch.add(out, y, alpha=weight)
        return out


class Look(NamedTuple):
    """A further look: where, and how to get there."""

    level: Level
    way: Combination


class Row(NamedTuple):
    """One step, ready: further looks and the last combination; or the plain move to `order_one`."""

    looks: tuple[Look, ...]
    end: Combination
    order_one: Point | None


def tamed(row: Row, kept: Point) -> Row:
    """A step by eps as it is, or the plain move if a look would bring an error of x0 back more than tenfold.

    eps = (x - alpha x0) / sigma, so a look at a far smaller sigma than the step began with shouts.
    """
    looks = zip(row.looks, row.end.seen[1:], strict=True)
    back = (abs(w * float(at.level.alpha / at.level.sigma)) / kept.alpha for at, w in looks)
    return Row((), Combination(0.0, ()), kept) if max(back, default=0.0) > MOST else row


def stepped(of: Frame, denoise: Denoiser, first: Estimate, row: Row) -> Tensor:
    """The step of a row: every look from those before it, then the last combination."""
    if row.order_one is not None:
        return carried(first, row.order_one)
    ys = [seen(first, of)]
    for look in row.looks:
        ys.append(seen(denoise(look.way.of(first.x, ys), look.level, first), of))
    return row.end.of(first.x, ys)


def point_at(time: float, clock: Clock) -> Point:
    """The level at this time of a clock, the inverse of `tick`; its scale is the clock's own."""
    if clock == "linear":
        return Point(1 - time, time)
    if clock == "ratio":
        return Point(1.0, time)
    return Point(1 / math.sqrt(1 + math.exp(-2 * time)), 1 / math.sqrt(1 + math.exp(2 * time)))


@dataclass(frozen=True)
class Singlestep:
    """The Runge-Kutta method of this order on estimates `of` x0, eps or flow, by this `clock`.

    nodes: where it looks again, as parts of the step in the clock's time, 0 < r <= 1; order - 1 of them, the
    published ones by default (1/2; 1/3 and 2/3). order evaluations a step.
    rule: "published" takes the first moment of a second-order step as 1/2 and leaves the middle estimate out
    of a third-order one, as Lu et al. do (diffusers' "midpoint"); "exact" gives all moments their exact value
    (their "taylor", diffusers' "heun") and is of third order for any two nodes.
    A step that is infinite on its clock, from alpha = 0 or to sigma = 0, is taken at order one, and so is the
    one to sigma = 0 by sigma/alpha; flows look again within it.

    Raises SettingsError for an order other than 1 to 3, nodes that do not fit it, or a frame that has no
    exact move on this clock.
    """

    of: Frame = "x0"
    order: int = 2
    nodes: tuple[float, ...] = ()
    clock: Clock = "log_snr"
    rule: Rule = "published"

    def __post_init__(self) -> None:
        if self.order not in _NODES:
            raise SettingsError(f"a single-step solver of order {self.order}: choose 1, 2 or 3")
        if (self.of, self.clock) not in {
            ("x0", "log_snr"),
            ("eps", "log_snr"),
            ("eps", "ratio"),
            ("flow", "linear"),
        }:
            raise SettingsError(
                f"estimates of {self.of} cannot be averaged exactly on the {self.clock} clock"
            )
        nodes = self.nodes or _NODES[self.order]
        distinct = len(set(nodes)) == len(nodes) == self.order - 1
        if not distinct or not all(0 < r <= 1 for r in nodes):
            raise SettingsError(
                f"nodes {self.nodes} for order {self.order}: give {self.order - 1} different parts of a step "
                "above 0, at most 1"
            )
        if self.order == 3 and self.rule == "published" and abs(nodes[1] - 2 / 3) > 1e-12:
            raise SettingsError(
                f"the published third-order rule is of order 3 with its second node at 2/3 only, not "
                f'{nodes[1]:.4g}: choose rule="exact"'
            )
        if self.order == 3 and abs(nodes[0] - 2 / 3) < 1e-6:
            raise SettingsError(
                "a third-order rule cannot look at 2/3 first: swap the nodes or move the first"
            )
        object.__setattr__(self, "nodes", tuple(nodes))

    def prepare(self, legs: Sequence[Leg]) -> list[Row]:
        """The coefficients of every step of a plan, as floats; steps that would go astray at order one.
        Raises SettingsError for a move through levels that this order has no use for."""
        rows = [self.row(leg) for leg in legs]
        return [
            tamed(row, leg.kept) if self.of == "eps" else row for leg, row in zip(legs, rows, strict=True)
        ]

    def row(self, leg: Leg) -> Row:
        """The coefficients of one step, however long it is."""
        start, end = tick(leg.here, self.clock), tick(leg.kept, self.clock)
        span = end - start
        # Below the grid's last noisy level only a flow, which is trained all the way down, may be asked.
        ends = leg.kept.sigma == 0 and self.clock != "linear"
        still = span == 0 or leg.here == leg.there  # standing moves, of Langevin, are plain
        nodes = self.nodes if leg.through is None else self._parts(leg)
        if not nodes or still or ends or not math.isfinite(span):
            return Row((), Combination(0.0, ()), leg.kept)
        points = [point_at(start + r * span, self.clock) for r in nodes]
        if any(point.sigma <= 0 for point in points):
            return Row((), Combination(0.0, ()), leg.kept)
        rate = 0.0 if self.clock != "log_snr" else span if self.of == "x0" else -span

        def way(there: Point, shares: Sequence[float]) -> Combination:
            of_x, of_y = frame_move(self.of, leg.here, there)
            return Combination(of_x, tuple(of_y * share for share in shares))

        stages = zip(points, _inner(nodes, rate), strict=True)
        looks = tuple(Look(Level.of(*point), way(point, shares)) for point, shares in stages)
        exact = self.rule == "exact" or (len(nodes) == 2 and abs(nodes[1] - 2 / 3) > 1e-9)
        return Row(looks, way(leg.kept, _last(nodes, rate, exact)), None)

    def _parts(self, leg: Leg) -> tuple[float, ...]:
        """The levels that the move goes through, as parts of it in the clock's time. Fewer than the order has
        room for lower the order of the step."""
        start, end = tick(leg.here, self.clock), tick(leg.there, self.clock)
        if not math.isfinite(end - start) or start == end:
            return ()
        parts = tuple((tick(point, self.clock) - start) / (end - start) for point in leg.through or ())
        falls = all(a < b for a, b in pairwise((0.0, *parts))) and all(part <= 1 for part in parts)
        if len(parts) >= self.order or not falls or (len(parts) == 2 and abs(parts[0] - 2 / 3) < 1e-6):
            raise SettingsError(
                f"a move looks again at {', '.join(f'{part:.3g}' for part in parts)} of its way: a step of "
                f"order {self.order} takes at most {self.order - 1}, one after the other, the first of two "
                "not at 2/3 (plans.Strides of the solver's order gives such)"
            )
        return parts

    def step(
        self, denoise: Denoiser, first: Estimate, row: Row, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step from what is seen now and at the nodes."""
        return stepped(self.of, denoise, first, row), ()


def _inner(nodes: Sequence[float], rate: float) -> list[list[float]]:
    """What the moves to the nodes average, for a step of this rate."""
    if len(nodes) == 1:
        return [[1.0]]
    first, second = nodes
    mean = lambda r: moments(2, rate * r)[1] * r
    # A rule whose last row uses the first node carries that node's second-order error; the second node
    # is given the opposite one. Nothing where the second node is 2/3, whose last row needs no first.
    _, w1, w2 = weights([0.0, first, second], 0.0)
    part = (mean(second) + w1 * first / (w2 * second) * mean(first)) / first
    return [[1.0], [1 - part, part]]


def _last(nodes: Sequence[float], rate: float, exact: bool) -> list[float]:
    """What the whole move averages."""
    if exact:
        return weights([0.0, *nodes], rate)
    part = (0.5 if len(nodes) == 1 else moments(2, rate)[1]) / nodes[-1]
    return [1 - part, *[0.0] * (len(nodes) - 1), part]


@dataclass(frozen=True)
class Heun:
    """The trapezoidal rule: look at both ends and average (Karras et al. 2022, algorithm 1, for `of` =
    "eps").

    eps is averaged on the sigma/alpha clock and flow on sigma/(alpha + sigma), in which the move is a plain
    integral of them: `Singlestep` with its node at 1. The last move, to sigma = 0, and one from alpha = 0 on
    the first clock, are plain moves: two evaluations otherwise.
    """

    of: Literal["eps", "flow"] = "eps"

    @property
    def order(self) -> int:
        """Two."""
        return 2

    @property
    def _rule(self) -> Singlestep:
        return Singlestep(self.of, 2, (1.0,), "ratio" if self.of == "eps" else "linear")

    def prepare(self, legs: Sequence[Leg]) -> list[Row]:
        """The coefficients of every step of a plan, as floats. Raises SettingsError for a plan of strides."""
        refuse_through(legs, self)
        return self._rule.prepare(legs)

    def step(
        self, denoise: Denoiser, first: Estimate, row: Row, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step from what is seen at both ends."""
        return self._rule.step(denoise, first, row, state)
