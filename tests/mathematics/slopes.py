"""The slope of a solver's error on a fixed interval, its history seeded from the exact solution or not."""

import itertools
import math
from functools import cache

import torch
from oracles import MIXTURE, exact, flow_map
from torch import Tensor

from sfumato.level import Level, Levels
from sfumato.noise import Noise
from sfumato.sampling import Solver
from sfumato.schedules import Schedule
from sfumato.solvers.moves import Leg, Point

MOST, LEAST = 5.0, 0.05
START = Noise(tuple(range(64))).normal((2,), "start").double() * math.hypot(0.5, MOST)
"""x at sigma/alpha = 5, in variance-exploding coordinates."""


@cache
def truth_at(ratio: float) -> Tensor:
    """The exact solution at sigma/alpha = ratio, in variance-exploding coordinates, through START."""
    steps = 20 + int(100 * abs(math.log(ratio / MOST)))
    return flow_map(MIXTURE, START, Level.of(1.0, MOST), Level.of(1.0, ratio), steps)


def even_in_log_snr(schedule: Schedule, n: int, extra: int = 0) -> Levels:
    """n moves even in log-SNR over the interval, on the schedule's own scale; `extra` nodes before them."""
    step = math.log(LEAST / MOST) / n
    ratio = torch.exp(math.log(MOST) + step * torch.arange(-extra, n + 1, dtype=torch.float64))
    return Levels.of(schedule.level(schedule.time(Level(torch.ones_like(ratio), ratio))))


def even_in_time(schedule: Schedule, n: int, extra: int = 0) -> Levels:
    """The same, even in the schedule's own time."""
    ends = schedule.time(Level.of(torch.ones(2), torch.tensor([MOST, LEAST])))
    return Levels.of(schedule.level(ends[0] + (ends[1] - ends[0]) * torch.arange(-extra, n + 1) / n))


def end_of(solver: Solver, levels: Levels, extra: int = 0) -> Tensor:
    """Where the walk ends, in variance-exploding coordinates; held on the solution up to node `extra`."""
    points = [Point.of(level) for level in levels]
    legs = [Leg(a, b, b, i == 0) for i, (a, b) in enumerate(itertools.pairwise(points))]
    denoise, state, x = exact(MIXTURE), (), START * points[0].alpha
    for i, row in enumerate(solver.prepare(legs)):
        if 0 < extra >= i:
            x = truth_at(points[i].sigma / points[i].alpha) * points[i].alpha
        x, state = solver.step(denoise, denoise(x, levels[i]), row, state)
    return x / points[-1].alpha


def error(solver: Solver, levels: Levels, extra: int = 0) -> float:
    """The largest error over 64 points at the end of the interval."""
    return float((end_of(solver, levels, extra) - truth_at(LEAST)).abs().max())


def slope(coarse: float, fine: float) -> float:
    """log2 of the gain from twice the steps."""
    return math.log2(coarse / fine)
