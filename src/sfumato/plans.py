"""Grids and plans: where a sampler stands, and in which order it goes there.

A grid is a function (schedule, n) -> Levels: n noisy levels, from the noisiest to the cleanest, then clean
data (1, 0), so that n solved moves ask the model n times. A plan is a list of moves.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.level import CLEAN, Level, Levels
from sfumato.schedules import Schedule, Shifted
from sfumato.solvers.moves import Move
from sfumato.tables import Table


@runtime_checkable
class Grid(Protocol):
    """n noisy levels of a schedule, from the noisiest to the cleanest, then clean data."""

    def __call__(self, schedule: Schedule, n: int) -> Levels: ...


def _checked(n: int) -> int:
    if n < 1:
        raise SettingsError(f"{n} sampling steps: at least 1 is needed")
    return n


def _table(schedule: Schedule) -> Table | None:
    return (
        _table(schedule.base)
        if isinstance(schedule, Shifted)
        else schedule
        if isinstance(schedule, Table)
        else None
    )


def _first_node(schedule: Schedule) -> float:
    """The time of the least noise that the model was trained at: 1/T on a table, 0 on a curve."""
    table = _table(schedule)
    return 0.0 if table is None else 1 / table.steps


def _to_clean(schedule: Schedule, times: Tensor) -> Levels:
    """The levels at these times, then clean data; a last level that is clean already is not doubled."""
    levels = schedule.level(times)
    noisy = levels.sigma > 0
    return Levels.of(Level(levels.alpha[noisy], levels.sigma[noisy]), CLEAN)


def uniform(schedule: Schedule, n: int) -> Levels:
    """Even in time from t = 1 to the least trained noise, both included: diffusers' "linspace" on a table.

    On a curve that reaches clean data at t = 0 the last move ends there, so uniform and trailing are the
    same.
    """
    _checked(n)
    least = _first_node(schedule)
    reaches_clean = least == 0 and float(schedule.level(torch.zeros((), dtype=torch.float64)).sigma) == 0
    points = n + 1 if reaches_clean else n
    return _to_clean(schedule, torch.linspace(1, least, points, dtype=torch.float64))


def trailing(schedule: Schedule, n: int) -> Levels:
    """t = 1, 1 - 1/n, ..., 1/n, then clean data (Lin et al. 2024): starts at the noisiest level whatever n
    is."""
    return _to_clean(schedule, 1 - torch.arange(_checked(n), dtype=torch.float64) / n)


def leading(schedule: Schedule, n: int, steps: int = 1000) -> Levels:
    """Every floor(T/n)-th node of a table of T steps, from the first up: DDIM's published grid (Song et al.
    2021).

    It never visits the noisiest level, so it starts from noise that is too strong for its first level; kept
    for parity. A continuous curve is cut into `steps` nodes.
    """
    table = _table(schedule)
    t = steps if table is None else table.steps
    if _checked(n) > t:
        raise SettingsError(f"{n} steps on a schedule of {t}: choose at most {t}, or another grid")
    return _to_clean(schedule, (torch.arange(n - 1, -1, -1, dtype=torch.float64) * (t // n) + 1) / t)


def _ratios(schedule: Schedule, low: float, high: float) -> tuple[float, float]:
    """The range of sigma/alpha that the schedule was trained on, cut to low .. high where it has no end of
    its own."""
    ends = schedule.level(torch.tensor([_first_node(schedule), 1.0], dtype=torch.float64))
    least, most = (ends.sigma / ends.alpha).tolist()
    return (least if least > 0 else low), (most if math.isfinite(most) else high)


def _at_ratios(schedule: Schedule, ratio: Tensor) -> Levels:
    """The schedule's own levels of these noise-to-signal ratios, then clean data."""
    return _to_clean(schedule, schedule.time(Level(torch.ones_like(ratio), ratio)).clamp(0, 1))


def log_snr(schedule: Schedule, n: int, low: float = 0.01, high: float = 150.0) -> Levels:
    """Even in log-SNR, from the noisiest trained level to the cleanest; `low`, `high` bound sigma/alpha on
    endless curves."""
    least, most = _ratios(schedule, low, high)
    steps = torch.linspace(math.log(most), math.log(least), _checked(n), dtype=torch.float64)
    return _at_ratios(schedule, steps.exp())


def karras(schedule: Schedule, n: int, rho: float = 7.0, low: float = 0.01, high: float = 150.0) -> Levels:
    """Even in (sigma/alpha)^(1/rho) (Karras et al. 2022, eq. 5)."""
    least, most = _ratios(schedule, low, high)
    steps = torch.linspace(most ** (1 / rho), least ** (1 / rho), _checked(n), dtype=torch.float64)
    return _at_ratios(schedule, steps**rho)


def at_nodes(table: Table, levels: Levels) -> Levels:
    """The grid moved to the nearest nodes of a table, for models that only know whole steps.

    The plan moves, never the question alone: the model is asked exactly where the solver stands. Nodes that
    coincide are taken once, so a fine grid may lose steps.
    """
    steps = (table.time(Level(levels.alpha, levels.sigma)) * table.steps).round().clamp(0, table.steps)
    times = torch.unique_consecutive(steps[steps > 0]) / table.steps
    return _to_clean(table, times)


def descend(levels: Levels) -> list[Move]:
    """From the noisiest level to the last, one solved move after the other."""
    return [Move(levels[i], levels[i + 1]) for i in range(len(levels) - 1)]


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
    moves: list[Move] = []
    last = len(levels) - 1
    for top in range(0, last, jump):
        low = min(top + jump, last)
        leg = descend(levels.cut(top, low + 1))
        moves += leg
        if low < last:
            moves += (times - 1) * [Move(levels[low], levels[top], renoise=True), *leg]
    return moves
