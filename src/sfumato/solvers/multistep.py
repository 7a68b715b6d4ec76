"""Multistep solvers: Adams-Bashforth in any frame, by any clock.

`of` is what is averaged (see `frames`) and `clock` the time in which its polynomial is drawn (see `clocks`).
What the model would say along the move is replaced by the polynomial through what it did say, and integrated
exactly against the frame's kernel (see `spans`). So these are one class:

- ("x0", "log_snr", 2 | 3)   DPM-Solver++(2M) and its third-order form (Lu et al. 2022b); with fresh noise
                             SDE-DPM-Solver++
- ("eps", "log_snr", k)      multistep DPM-Solver and DEIS's log-rho-AB (Lu et al. 2022; Zhang & Chen 2023)
- ("eps", "ratio", k)        LMS (Katherine Crowson's k-diffusion) and DEIS's rho-AB
- ("eps", "time", k)         DEIS's t-AB
- ("eps", "index", 4)        PLMS, whose weights are (55, -59, 37, -9)/24 (Liu et al. 2022, eq. 9)
- ("flow", "linear", k)      Adams-Bashforth on rectified flow

Order 1 is DDIM whatever the rest. A multistep method starts at order one and climbs as its history fills, so
the error of its very first steps caps the global order at 2 unless the history is seeded: see `started`.
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
from sfumato.solvers.clocks import Clock, half_log_snr, tick
from sfumato.solvers.frames import Frame, frame_move, seen
from sfumato.solvers.moves import Leg, Point, carried, refuse_through
from sfumato.solvers.spans import span
from sfumato.solvers.weights import solve_vandermonde

Kind = Literal["exact", "midpoint", "bh1", "published"]
"""Where two estimates put the mean place of a move: where it is, at 1/2 (DPM-Solver++(2M)'s usual form, and
UniPC's B2), or at UniPC's B1 (Zhao et al. 2023). All three are of second order; three or more are exact.
"published" is the midpoint and, of three estimates, half the curvature that is due: the 3M of the official
DPM-Solver, diffusers and k-diffusion, of second order, for pictures that must be theirs."""


class Row(NamedTuple):
    """One step, ready: x' = of_x x + sum_j past[j] y_j, newest first; or the plain move to `order_one`."""

    of_x: float
    past: tuple[float, ...]
    order_one: Point | None


@dataclass(frozen=True)
class Multistep:
    """Adams-Bashforth on the `order` newest estimates `of` a frame, by this `clock`.

    On the clock "index" the kernel is taken as flat, so PLMS has its order on grids that are even in the
    frame's place and is of second order on others (Liu et al. 2022, theorem 3.2). `tapered` takes the last
    moves at falling order, the last one at order one: steadier in few steps, where the last are the longest
    (Lu et al. 2022b; diffusers' lower_order_final).
    """

    of: Frame = "x0"
    clock: Clock = "log_snr"
    order: int = 2
    kind: Kind = "exact"
    tapered: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 6:
            raise SettingsError(f"a multistep solver of order {self.order}: choose 1 to 6")
        if self.kind == "bh1" and (self.of not in ("x0", "eps") or self.clock != "log_snr"):
            raise SettingsError("the kind bh1 is defined for x0 or eps on the log_snr clock only")

    def prepare(self, legs: Sequence[Leg]) -> list[Row]:
        """The coefficients of every step of a plan, as floats. Raises SettingsError for a plan of strides."""
        refuse_through(legs, self)
        past = histories(legs, self.order)
        if self.tapered:
            past = [(leg, history[: len(legs) - i]) for i, (leg, history) in enumerate(past)]
        return [self.row(leg, history) for leg, history in past]

    def row(self, leg: Leg, history: Sequence[Point]) -> Row:
        """One step after estimates at `history`, newest (the leg's own start) first."""
        nodes = [-k for k in range(len(history))] if self.clock == "index" else list(history)
        past = self.averaged(leg, nodes) if self.order > 1 else None
        if past is None:
            return Row(0.0, (), leg.kept)
        of_x, of_y = frame_move(self.of, leg.here, leg.kept)
        return Row(of_x, tuple(of_y * w for w in past), None)

    def averaged(self, leg: Leg, nodes: Sequence[Point | int]) -> list[float] | None:
        """Weights, adding up to 1, of what was seen at `nodes` (steps by number on the clock "index").

        None where order one is all that has a meaning: an infinite span, or fewer than two estimates.
        """
        if len(nodes) < 2:
            return None
        over = span(self.of, self.clock, leg.here, leg.there, leg.kept, len(nodes))
        if over is None:
            return None
        ticks = [node if isinstance(node, int) else tick(node, self.clock) for node in nodes]
        at = [(t - over.start) / over.unit for t in ticks]
        used = [k for k, s in enumerate(at) if math.isfinite(s)]  # infinitely far away: says nothing
        if len(used) < 2:
            return None
        right = over.moments[: len(used)]
        if len(used) == 2 and self.kind != "exact":
            right = [1.0, self._mean_place(leg)]
        if len(used) == 3 and self.kind == "published":
            right = [*right[:2], right[2] / 2]
        out = [0.0] * len(nodes)
        for k, w in zip(used, solve_vandermonde([at[k] for k in used], right), strict=True):
            out[k] = w
        return out

    def _mean_place(self, leg: Leg) -> float:
        """1/2, or 1/2 B1(h) / B2(h) = 1/2 a / (1 - exp(-a)) with a = h for x0, -h for eps."""
        if self.kind in ("midpoint", "published"):
            return 0.5
        pull = half_log_snr(leg.kept) - half_log_snr(leg.here)
        a = pull if self.of == "x0" else -pull
        return 0.5 * a / -math.expm1(-a) if a != 0 else 0.5

    def step(
        self, denoise: Denoiser, first: Estimate, row: Row, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step from what is seen now and what was seen before, newest first."""
        ys = self.remember(first, state)
        return stepped(first, row, ys), ys

    @property
    def remembers(self) -> int:
        """How many estimates before the present one are averaged."""
        return self.order - 1

    def remember(self, first: Estimate, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The state after a step from `first`, whoever makes it."""
        return (seen(first, self.of), *state)[: self.order] if self.order > 1 else ()


def histories(legs: Sequence[Leg], order: int) -> list[tuple[Leg, list[Point]]]:
    """Each leg with the `order` last levels seen on its trajectory, newest (its own start) first."""
    out: list[tuple[Leg, list[Point]]] = []
    history: list[Point] = []
    for leg in legs:
        history = [leg.here, *([] if leg.restart else history)][:order]
        out.append((leg, history))
    return out


def stepped(first: Estimate, row: Row, ys: Sequence[Tensor]) -> Tensor:
    """The step of a row from `first`, with the estimates `ys` in the solver's frame, newest first."""
    if row.order_one is not None:
        return carried(first, row.order_one)
    x = first.x * row.of_x
    for weight, y in zip(row.past, ys):
        if weight != 0:
            x = torch.add(x, y, alpha=weight)
    return x
