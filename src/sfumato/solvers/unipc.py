"""UniPC: a multistep solver that looks back at its last move (Zhao et al. 2023).

What is seen at the end of a move also tells how the move should have been made. The corrector redoes it with
the polynomial through one node more, the move's own end, and adds the difference to x where it now stands.
It needs no further evaluation, and the order rises by one: UniPC-p is of order p + 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.predictions import Estimate
from sfumato.solvers.clocks import Clock
from sfumato.solvers.frames import Frame, frame_move, plain_move, saying, seen
from sfumato.solvers.moves import Leg, Point, refuse_through
from sfumato.solvers.multistep import Kind, Multistep, Row, histories, stepped


class UniRow(NamedTuple):
    """One step, ready: correct the last move by `of_x` times where it began plus `of_seen` times what has
    been seen since and before, newest first (none: nothing to correct); then `move`."""

    of_x: float
    of_seen: tuple[float, ...]
    move: Row


class Left(NamedTuple):
    """What a step leaves: x at its end, how often that tensor had been written to, x at its start, and what
    was seen, newest first."""

    x: Tensor
    written: int
    before: Tensor
    seen: tuple[Tensor, ...]


@dataclass(frozen=True)
class UniPC:
    """UniPC-p in any frame by any clock; published for x0 or eps in log-SNR (Zhao et al. 2023, algorithms
    1-4).

    `kind` is how two estimates are weighted, by UniPC-2's predictor and UniPC-1's corrector: "midpoint" is
    B2(h) (bh2), "bh1" B1(h), "exact" the derived weights. With more estimates B cancels.

    A move is corrected only if x still is what the move left: not where noise was drawn anew, and not where a
    hook returned another tensor or wrote into it.
    """

    p: int = 2
    of: Frame = "x0"
    clock: Clock = "log_snr"
    kind: Kind = "midpoint"

    def __post_init__(self) -> None:
        self._multistep()

    def _multistep(self) -> Multistep:
        return Multistep(self.of, self.clock, self.p, self.kind)

    @property
    def order(self) -> int:
        """p + 1."""
        return self.p + 1

    def prepare(self, legs: Sequence[Leg]) -> list[UniRow]:
        """The coefficients of every step of a plan, as floats. Raises SettingsError for a plan of strides."""
        refuse_through(legs, self)
        solver = self._multistep()
        moves = [(leg, past, solver.row(leg, past)) for leg, past in histories(legs, self.p)]
        rows = [UniRow(0.0, (), moves[0][2])] if moves else []
        for last, (leg, _, move) in itertools.pairwise(moves):
            of_x, of_seen = (0.0, ()) if leg.restart else self._correction(solver, *last)
            rows.append(UniRow(of_x, of_seen, move))
        return rows

    def _correction(
        self, solver: Multistep, leg: Leg, past: Sequence[Point], made: Row
    ) -> tuple[float, tuple[float, ...]]:
        """The move through its own end as well, less the move that was made."""
        if leg.kept != leg.there:
            return 0.0, ()
        nodes = list(range(1, -len(past), -1)) if self.clock == "index" else [leg.there, *past]
        through = solver.averaged(leg, nodes)
        if through is None:
            return 0.0, ()
        of_x, of_y = frame_move(self.of, leg.here, leg.there)
        made_x, made_of = made.of_x, made.past
        if made.order_one is not None:
            made_x, made_y = plain_move(self.of, leg.here, leg.there)
            made_of = (made_y,)
        of_seen = [of_y * w for w in through]
        for k, weight in enumerate(made_of, 1):
            of_seen[k] -= weight
        return of_x - made_x, tuple(of_seen)

    def step(
        self, denoise: Denoiser, first: Estimate, row: UniRow, state: tuple[()] | Left
    ) -> tuple[Tensor, Left]:
        """Corrects the last move by what is seen now, and makes the next."""
        y, x = seen(first, self.of), first.x
        ys = (y, *(state.seen if isinstance(state, Left) else ()))
        if isinstance(state, Left) and x is state.x and _written(x) == state.written and row.of_seen:
            if row.of_x != 0:
                x = torch.add(x, state.before, alpha=row.of_x)
            for weight, seen_then in zip(row.of_seen, ys):
                x = torch.add(x, seen_then, alpha=weight)
            first = saying(self.of, x, first.level, y)
        ys = ys[: self.p]
        moved = stepped(first, row.move, ys)
        return moved, Left(moved, _written(moved), x, ys)

    @property
    def remembers(self) -> int:
        """How many estimates before the present one the predictor averages."""
        return self.p - 1

    def remember(self, first: Estimate, state: tuple[()] | Left) -> Left:
        """The state after a step from `first` that another solver makes, and that is not to be corrected."""
        ys = (seen(first, self.of), *(state.seen if isinstance(state, Left) else ()))
        return Left(first.x, -1, first.x, ys[: self.p])


def _written(x: Tensor) -> int:
    """How often a tensor has been written to; tensors of inference mode do not count."""
    return 0 if x.is_inference() else x._version
