"""A multistep solver whose first steps are made by another, so that its history is full and its order kept.

A solver that remembers starts at order one and climbs. The error of those few steps, of order h^2 for the
first, is never made good: the global order stays 2 (3 with a corrector), however many estimates are averaged
later. A Runge-Kutta start, as in PNDM (Liu et al. 2022, sec. 3.3), costs a few evaluations more at the
noisiest levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.predictions import Estimate
from sfumato.solvers import singlestep
from sfumato.solvers.moves import Leg
from sfumato.solvers.multistep import Multistep
from sfumato.solvers.rungekutta import RungeKutta
from sfumato.solvers.singlestep import Singlestep
from sfumato.solvers.unipc import UniPC


class StartedRow(NamedTuple):
    """One step: of the start (none once the history is full), and of the solver that is started."""

    start: singlestep.Row | None
    then: Any


@dataclass(frozen=True)
class Started:
    """`solver`, its first steps (one fewer than the estimates that it averages) made by `start`.

    PNDM is `Started(Multistep("eps", "index", 4), RungeKutta("eps", 4))`. Each stretch between renoising
    moves is started anew. Raises SettingsError if the start would cost the solver its order.
    """

    solver: Multistep | UniPC
    start: RungeKutta | Singlestep

    def __post_init__(self) -> None:
        if self.start.order < self.order - 1:
            raise SettingsError(
                f"a start of order {self.start.order} for a solver of order {self.order}: "
                f"choose order {self.order - 1} or more"
            )

    @property
    def order(self) -> int:
        """The solver's own."""
        return self.solver.order

    def prepare(self, legs: Sequence[Leg]) -> list[StartedRow]:
        """The coefficients of every step of a plan, as floats."""
        rows: list[StartedRow] = []
        made = 0
        for leg, start, then in zip(legs, self.start.prepare(legs), self.solver.prepare(legs), strict=True):
            made = 0 if leg.restart else made + 1
            rows.append(StartedRow(start if made < self.solver.remembers else None, then))
        return rows

    def step(
        self, denoise: Denoiser, first: Estimate, row: StartedRow, state: tuple[Any, ...]
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """One step of whichever is due; the solver remembers what the start began from."""
        if row.start is None:
            return self.solver.step(denoise, first, row.then, state)
        x, _ = self.start.step(denoise, first, row.start, ())
        return x, self.solver.remember(first, state)
