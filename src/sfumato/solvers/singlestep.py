"""Single-step solvers: they look again within the step instead of remembering."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.level import Level
from sfumato.predictions import Estimate
from sfumato.solvers.moves import Leg, Point, carried
from sfumato.solvers.multistep import frame_move, seen, tick


class HeunRow(NamedTuple):
    """x' = of_x x + of_y (y1 + y2) / 2 with y2 seen at `kept`; without `second` the plain move."""

    of_x: float
    of_y: float
    kept: Point
    second: Level | None


@dataclass(frozen=True)
class Heun:
    """The trapezoidal rule: look at both ends and average (Karras et al. 2022, algorithm 1, for `of` =
    "eps").

    eps is averaged on the sigma/alpha clock and flow on sigma/(alpha + sigma), in which the move is a plain
    integral of them. The last move, to sigma = 0, and one from alpha = 0 on the first clock, are plain moves:
    two evaluations otherwise.
    """

    of: Literal["eps", "flow"] = "eps"

    @property
    def order(self) -> int:
        """Two."""
        return 2

    def prepare(self, legs: Sequence[Leg]) -> list[HeunRow]:
        clock: Literal["ratio", "linear"] = "ratio" if self.of == "eps" else "linear"
        rows: list[HeunRow] = []
        for leg in legs:
            finite = math.isfinite(tick(leg.here, clock)) and math.isfinite(tick(leg.kept, clock))
            if leg.kept.sigma == 0 or not finite:
                rows.append(HeunRow(0.0, 0.0, leg.kept, None))
            else:
                rows.append(HeunRow(*frame_move(self.of, leg.here, leg.kept), leg.kept, Level.of(*leg.kept)))
        return rows

    def step(
        self, denoise: Denoiser, first: Estimate, row: HeunRow, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        guess = carried(first, row.kept)
        if row.second is None:
            return guess, ()
        second = denoise(guess, row.second, first)
        mean = seen(first, self.of) + seen(second, self.of)
        return torch.add(first.x * row.of_x, mean, alpha=row.of_y / 2), ()
