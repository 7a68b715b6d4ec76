"""Plans: in which order a sampler goes through a grid. A plan is a list of moves between levels.

The grids themselves are in `grids`, and can be named from here: `plans.trailing`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sfumato.errors import SettingsError
from sfumato.grids import (
    Given,
    Grid,
    ToLeast,
    at_nodes,
    bounded,
    exponential,
    fast,
    interior,
    karras,
    late,
    leading,
    log_snr,
    trailing,
    uniform,
)
from sfumato.level import CLEAN, Level, Levels
from sfumato.solvers.moves import Move

__all__ = [
    "Given",
    "Grid",
    "Strides",
    "ToLeast",
    "annealed",
    "at_nodes",
    "bounded",
    "churn",
    "corrected",
    "descend",
    "exponential",
    "fast",
    "from_image",
    "interior",
    "invert",
    "karras",
    "late",
    "leading",
    "log_snr",
    "repaint",
    "restart",
    "trailing",
    "uniform",
]


def descend(levels: Levels) -> list[Move]:
    """From the noisiest level to the last, one solved move after the other."""
    return [Move(levels[i], levels[i + 1]) for i in range(len(levels) - 1)]


@dataclass(frozen=True)
class Strides:
    """Down in moves of `order` intervals each, for single-step solvers that look again at the grid's own
    nodes: n levels are n evaluations, none is spent off the grid (diffusers' single-step schedulers).

    The last interval, to clean data, is a move of its own, and so is what is left over before it, at the
    order that it has room for.
    """

    order: int = 3

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise SettingsError(f"strides of {self.order} intervals: single-step solvers take 1, 2 or 3")

    def __call__(self, levels: Levels) -> list[Move]:
        last = len(levels) - 1
        marks = [*range(0, last - 1, self.order), last - 1, last] if last > 1 else [0, last]
        through = lambda a, b: tuple(levels[i] for i in range(a + 1, b))
        return [Move(levels[a], levels[b], through=through(a, b)) for a, b in pairwise(marks) if a < b]


def invert(levels: Levels) -> list[Move]:
    """The same grid backwards: from a picture to its noise. Starts at the least noisy level, where the
    picture is taken as x, because nothing can be told about eps at sigma = 0."""
    noisy = levels.cut(0, len(levels) - 1) if float(levels.sigma[-1]) == 0 else levels
    return [Move(noisy[i + 1], noisy[i]) for i in reversed(range(len(noisy) - 1))]


def from_image(levels: Levels, start: int) -> list[Move]:
    """Noise a picture to level `start` of the grid, then descend (SDEdit, Meng et al. 2022)."""
    return [Move(CLEAN, levels[start], renoise=True), *descend(levels.cut(start, len(levels)))]


def repaint(levels: Levels, jump: int = 1, times: int = 3) -> list[Move]:
    """Descend `jump` moves, renoise back, `times` times over, all the way down (RePaint, Lugmayr et al.
    2022)."""
    if jump < 1 or times < 1:
        raise SettingsError(f"repaint by jumps of {jump} moves, {times} times: at least 1 of each is needed")
    moves: list[Move] = []
    last = len(levels) - 1
    for top in range(0, last, jump):
        low = min(top + jump, last)
        leg = descend(levels.cut(top, low + 1))
        moves += leg
        if low < last:
            moves += (times - 1) * [Move(levels[low], levels[top], renoise=True), *leg]
    return moves


def churn(
    levels: Levels, amount: float = 40.0, low: float = 0.05, high: float = 50.0, spare: float = 1.003
) -> list[Move]:
    """Before each move from low <= sigma/alpha <= high renoise to (1 + gamma) sigma, gamma = min(amount / n,
    sqrt(2) - 1): S_churn, S_tmin and S_tmax of EDM, spare its S_noise (Karras et al. 2022, algorithm 2).

    Never above the grid's noisiest level, which is where the model's training ends.
    """
    if amount < 0 or spare <= 0:
        raise SettingsError(f"churn of {amount:g} with noise times {spare:g}: give at least 0, and above 0")
    gamma = min(amount / (len(levels) - 1), math.sqrt(2) - 1)
    top = float(levels[0].sigma / levels[0].alpha)
    moves: list[Move] = []
    for move in descend(levels):
        ratio = float(move.here.sigma / move.here.alpha)
        raised = min(ratio * (1 + gamma), top)
        if low <= ratio <= high and raised > ratio:
            hat = Level.of(move.here.alpha, move.here.alpha * raised)
            moves += [Move(move.here, hat, renoise=True, spare=spare), Move(hat, move.there)]
        else:
            moves.append(move)
    return moves


def restart(levels: Levels, intervals: Sequence[tuple[float, float, int]] = ((0.06, 0.3, 2),)) -> list[Move]:
    """Descend; after each interval (low, high, times) of sigma/alpha renoise from its lowest node to its
    highest and descend again, `times` times (Xu et al. 2023, algorithm 1), by the grid's own nodes.

    Raises SettingsError for an interval that holds fewer than two nodes of the grid.
    """
    ratios = (levels.sigma / levels.alpha).tolist()
    ends: dict[int, list[tuple[int, int]]] = {}
    for low, high, times in intervals:
        inside = [i for i, ratio in enumerate(ratios) if low <= ratio <= high and math.isfinite(ratio)]
        if len(inside) < 2 or low <= 0 or times < 1:
            raise SettingsError(
                f"restart from sigma/alpha = {low:g} to {high:g}, {times} times: choose an interval above 0 "
                "that holds two nodes of the grid, or more steps"
            )
        ends.setdefault(inside[-1], []).append((inside[0], times))
    moves: list[Move] = []
    for i, move in enumerate(descend(levels), 1):
        moves.append(move)
        for top, times in ends.get(i, []):
            again = [Move(levels[i], levels[top], renoise=True), *descend(levels.cut(top, i + 1))]
            moves += times * again
    return moves


def corrected(levels: Levels, times: int = 1) -> list[Move]:
    """Descend, with `times` standing moves (here to here) at each noisy level that is reached: the corrector
    of Song et al. (2021, algorithms 4 and 5). What a standing move does is up to `solvers.langevin`."""
    if times < 1:
        raise SettingsError(f"{times} corrections a level: at least 1 is needed")
    moves: list[Move] = []
    for move in descend(levels):
        moves += [move, *(times * [Move(move.there, move.there)] if float(move.there.sigma) > 0 else [])]
    return moves


def annealed(levels: Levels, times: int = 5) -> list[Move]:
    """`times` standing moves at every noisy level, the first included (Song & Ermon 2019, algorithm 1)."""
    return [*times * [Move(levels[0], levels[0])], *corrected(levels, times)]
