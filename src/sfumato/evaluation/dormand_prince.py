"""An adaptive Runge-Kutta solver in which every row of a batch has its own clock and its own step.

Rows that are done leave the batch, so a difficult neighbour costs a row nothing and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.level import spread_on

# Dormand & Prince (1980), the pair of orders 5 and 4; Hairer, Norsett & Wanner (1993), table 5.2.
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_WEIGHTS = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""The fifth order's weights less the fourth's."""
_SAFETY, _LEAST, _MOST = 0.9, 0.2, 5.0
_FIRST = 0.01
"""The first step moves a row by at most this share of its own size."""


class State(NamedTuple):
    """What moves: x, (B, ...), and one number a row that is carried along, (B,), float64 on the CPU."""

    x: Tensor
    along: Tensor

    def take(self, rows: Tensor) -> State:
        """Some rows."""
        return State(self.x[rows.to(self.x.device)], self.along[rows])

    def plus(self, h: Tensor, slopes: list[State], weights: tuple[float, ...]) -> State:
        """The state plus h times the weighed slopes."""
        return State(
            self.x + spread_on(h, self.x) * _weighed([s.x for s in slopes], weights),
            self.along + h * _weighed([s.along for s in slopes], weights),
        )


class Solved(NamedTuple):
    """The state at the end, and how often each row was asked for its slope, (B,) int64."""

    state: State
    evaluations: Tensor


@runtime_checkable
class Slope(Protocol):
    """d state / dt at t, (b,) float64, for the rows (b,) of the whole batch."""

    def __call__(self, t: Tensor, state: State, rows: Tensor) -> State: ...


def _weighed(parts: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    total = torch.zeros_like(parts[0])
    for part, weight in zip(parts, weights, strict=True):
        if weight:
            total = torch.add(total, part, alpha=weight)
    return total


@dataclass(frozen=True)
class DormandPrince:
    """Orders 5(4) with local extrapolation and the last slope reused (Dormand & Prince 1980).

    A step is taken where its error, relative to tolerance (1 + |state|), is at most 1: of x the root mean
    square over its numbers, and that of the number carried along. At most `most` steps are tried for a row.
    """

    tolerance: float = 1e-5
    most: int = 2000

    def __post_init__(self) -> None:
        if not 1e-12 <= self.tolerance <= 0.1:
            raise SettingsError(f"a solver's tolerance lies between 1e-12 and 0.1, not {self.tolerance:g}")

    def solve(self, slope: Slope, state: State, start: float, stop: float) -> Solved:
        """From t = start up to stop > start. Raises SettingsError when a row does not get there."""
        state = State(state.x.clone(), state.along.clone())
        count = len(state.x)
        t = torch.full((count,), start, dtype=torch.float64)
        rows = torch.arange(count)
        first = State(*(part.clone() for part in slope(t, state, rows)))
        evaluations = torch.ones(count, dtype=torch.int64)
        whole = stop - start
        h = (
            (_FIRST * _size(state) / _size(first).clamp(min=1e-12))
            .nan_to_num(whole)
            .clamp(1e-6 * whole, whole)
        )
        for _ in range(self.most):
            here, k1, h_ = state.take(rows), first.take(rows), torch.minimum(h[rows], stop - t[rows])
            there, k7, error = self._step(slope, t[rows], h_, here, k1, rows)
            evaluations[rows] += 6
            good = error <= 1
            ok = rows[good]
            state.x[ok.to(state.x.device)] = there.x[good.to(state.x.device)]
            first.x[ok.to(state.x.device)] = k7.x[good.to(state.x.device)]
            state.along[ok], first.along[ok] = there.along[good], k7.along[good]
            t[ok] = torch.where(h_[good] >= stop - t[ok], stop, t[ok] + h_[good])
            growth = (_SAFETY * error.clamp(min=1e-10) ** -0.2).nan_to_num(0.0).clamp(_LEAST, _MOST)
            h[rows] = h_ * torch.where(good, growth, growth.clamp(max=1.0))
            rows = rows[t[rows] < stop]
            if not len(rows):
                return Solved(state, evaluations)
            if bool((h[rows] < 1e-14 * whole).any()):
                break
        raise SettingsError(
            f"the flow could not be followed to its end ({len(rows)} of {count} pictures stopped at "
            f"{float(t[rows].min()):.4g} of {stop:.4g}): allow a larger tolerance, or mend the model"
        )

    def _step(
        self, slope: Slope, t: Tensor, h: Tensor, here: State, k1: State, rows: Tensor
    ) -> tuple[State, State, Tensor]:
        """The state after the step, the slope there, and the error, (b,)."""
        slopes = [k1]
        there = here
        for node, weights in zip(_NODES[1:], _WEIGHTS[1:], strict=True):
            there = here.plus(h, slopes, weights)
            slopes.append(slope(t + node * h, there, rows))
        x = spread_on(h, here.x) * _weighed([s.x for s in slopes], _ERROR)
        along = h * _weighed([s.along for s in slopes], _ERROR)
        scale = 1 + torch.maximum(here.x.abs(), there.x.abs())
        of_x = (x / scale).flatten(1).square().mean(1).sqrt().to("cpu", torch.float64)
        of_along = along.abs() / (1 + torch.maximum(here.along.abs(), there.along.abs()))
        return there, slopes[-1], torch.maximum(of_x, of_along) / self.tolerance


def _size(state: State) -> Tensor:
    """The root mean square of x, (B,), float64 on the CPU."""
    return state.x.flatten(1).square().mean(1).sqrt().to("cpu", torch.float64)
