"""Runge-Kutta in the place of a frame: the classical rules, up to the fourth order.

In its own place k a frame's flow is a plain integral, x' / g' = x / g + integral of y dk (see `frames`), so
any rule for dz/dk = y applies as it stands. Of eps, with the classical rule, this is the pseudo Runge-Kutta
method of PNDM (Liu et al. 2022, eq. 13), which puts its middle looks half-way in the schedule's time
instead; of flow the midpoint rule and RK4 of rectified flow. For exponential integrators in log-SNR see
`singlestep`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.predictions import Estimate
from sfumato.solvers.frames import Frame, at_place, frame_move, place
from sfumato.solvers.moves import Leg, Point, refuse_through
from sfumato.solvers.singlestep import Combination, Look, Row, stepped, tamed

# Butcher's tables: (node, what the move to it averages) for every further look, then what the step averages.
_Table = tuple[tuple[tuple[float, tuple[float, ...]], ...], tuple[float, ...]]
_TABLES: dict[int, _Table] = {
    1: ((), (1.0,)),
    2: (((1 / 2, (1.0,)),), (0.0, 1.0)),  # the midpoint rule
    3: (((1 / 2, (1.0,)), (1.0, (-1.0, 2.0))), (1 / 6, 4 / 6, 1 / 6)),  # Kutta 1901
    4: (((1 / 2, (1.0,)), (1 / 2, (0.0, 1.0)), (1.0, (0.0, 0.0, 1.0))), (1 / 6, 2 / 6, 2 / 6, 1 / 6)),
}


@dataclass(frozen=True)
class RungeKutta:
    """The classical rule of this order, 1 to 4, in the place of the frame `of`: as many evaluations a step.

    A move from where the frame's place is infinite (eps at alpha = 0), and the one to sigma = 0, is taken at
    order one.
    """

    of: Frame = "eps"
    order: int = 4

    def __post_init__(self) -> None:
        if self.order not in _TABLES:
            raise SettingsError(f"a classical Runge-Kutta solver of order {self.order}: choose 1 to 4")

    def prepare(self, legs: Sequence[Leg]) -> list[Row]:
        """The coefficients of every step of a plan, as floats; steps that would go astray at order one.
        Raises SettingsError for a plan of strides."""
        refuse_through(legs, self)
        rows = [self._row(leg) for leg in legs]
        return [
            tamed(row, leg.kept) if self.of == "eps" else row for leg, row in zip(legs, rows, strict=True)
        ]

    def _row(self, leg: Leg) -> Row:
        start, end = place(self.of, leg.here), place(self.of, leg.kept)
        still = start == end or leg.here == leg.there  # standing moves, of Langevin, are plain
        if leg.kept.sigma == 0 or still or not math.isfinite(start) or not math.isfinite(end):
            return Row((), Combination(0.0, ()), leg.kept)
        here, there = math.hypot(*leg.here), math.hypot(*leg.kept)
        looks, last = _TABLES[self.order]

        def way(to: Point, shares: Sequence[float]) -> Combination:
            of_x, of_y = frame_move(self.of, leg.here, to)
            return Combination(of_x, tuple(of_y * share for share in shares))

        def look(node: float, shares: Sequence[float]) -> Look:
            scale = here ** (1 - node) * there**node  # any will do; this keeps x as large as the curve does
            to = at_place(self.of, start + node * (end - start))
            to = leg.kept if node == 1 else Point(to.alpha * scale, to.sigma * scale)
            return Look(Level.of(*to), way(to, shares))

        return Row(tuple(look(*at) for at in looks), way(leg.kept, last), None)

    def step(
        self, denoise: Denoiser, first: Estimate, row: Row, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step from what is seen now and at the further looks."""
        return stepped(self.of, denoise, first, row), ()
