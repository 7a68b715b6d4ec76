"""Grids: where a sampler stands.

A grid is a function (schedule, n) -> Levels: n noisy levels, from the noisiest to the cleanest, then clean
data (1, 0), so that n solved moves ask the model n times. In which order they are visited is said by `plans`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.level import CLEAN, Level, Levels
from sfumato.schedules import Schedule, Shifted
from sfumato.solvers.clocks import REST, tick
from sfumato.solvers.moves import Point
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
    """The table beneath, if there is one."""
    while isinstance(schedule, Shifted):
        schedule = schedule.base
    return schedule if isinstance(schedule, Table) else None


def _first_node(schedule: Schedule) -> float:
    """The time of the least noise that the model was trained at: 1/T on a table, 0 on a curve."""
    table = _table(schedule)
    return 0.0 if table is None else 1 / table.steps


def ends(schedule: Schedule) -> Level:
    """The least noise that a model of this schedule is trained at and the most, (2,)."""
    return schedule.level(torch.tensor([_first_node(schedule), 1.0], dtype=torch.float64))


def _trained(schedule: Schedule, times: Tensor) -> Tensor:
    """Falling times as they are, or, where so many steps would pass the least noise that was trained, evenly
    down to it."""
    least = _first_node(schedule)
    if float(times[-1]) > least - 1e-9:
        return times
    return torch.linspace(max(float(times[0]), least), least, len(times), dtype=torch.float64)


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
    return _to_clean(schedule, _trained(schedule, 1 - torch.arange(_checked(n), dtype=torch.float64) / n))


def interior(schedule: Schedule, n: int) -> Levels:
    """t = n / (n + 1), ..., 1 / (n + 1), then clean data: "leading" in diffusers' multistep schedulers.

    It starts below the noisiest level from noise that is a little too strong for its first one; in very few
    steps that costs less than a step in which nothing is decided.
    """
    times = torch.arange(_checked(n), 0, -1, dtype=torch.float64) / (n + 1)
    return _to_clean(schedule, _trained(schedule, times))


def late(schedule: Schedule, n: int) -> Levels:
    """Even in time from sigma/alpha = max(25, n) on: no step is spent where nothing is decided yet.

    It starts from pure noise, which is too strong for its first level by one part in max(25, n): for solvers
    of order one, whose own error is larger.
    """
    top = float(schedule.time(Level.of(1.0, float(max(25, _checked(n))))))
    times = min(top, 1.0) * torch.arange(n, 0, -1, dtype=torch.float64) / n
    return _to_clean(schedule, _trained(schedule, times))


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
    both = ends(schedule)
    least, most = (both.sigma / both.alpha).tolist()
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


exponential = log_snr
"""k-diffusion's name for the same grid: even in log sigma, where sigma is sigma/alpha."""


def fast(schedule: Schedule, n: int) -> Levels:
    """Equal strides in log-SNR, each with the two nodes within at which a third-order step looks again; the
    last stride has as many as are left (DPM-Solver-fast, Lu et al. 2022, section 3.4). Goes with
    `plans.Strides(3)`: n evaluations."""
    if _checked(n) == 1:
        return log_snr(schedule, 1)
    strides, left = divmod(n - 1, 3)
    parts = [3] * strides + ([left] if left else [])
    at = [(i + k / part) / len(parts) for i, part in enumerate(parts) for k in range(part)]
    least, most = _ratios(schedule, 0.01, 150.0)
    places = torch.tensor([*at, 1.0], dtype=torch.float64)
    return _at_ratios(schedule, (math.log(most) + math.log(least / most) * places).exp())


def karras(schedule: Schedule, n: int, rho: float = 7.0, low: float = 0.01, high: float = 150.0) -> Levels:
    """Even in (sigma/alpha)^(1/rho) (Karras et al. 2022, eq. 5)."""
    least, most = _ratios(schedule, low, high)
    steps = torch.linspace(most ** (1 / rho), least ** (1 / rho), _checked(n), dtype=torch.float64)
    return _at_ratios(schedule, steps**rho)


def bounded(schedule: Schedule, n: int) -> Levels:
    """Even on the clock "bounded" (`solvers.clocks`), the last step to clean data included: log-SNR without
    the looks that log-SNR spends where nothing is decided. The ends may be pure noise and clean data.

    Where so many steps would pass the least noise that was trained, the last stands there instead.
    """
    both = ends(schedule)
    least, most = (Point(a, s) for a, s in zip(both.alpha.tolist(), both.sigma.tolist(), strict=True))
    low, high = REST
    start, stop = tick(most, "bounded"), tick(Point(1.0, 0.0), "bounded")
    times = torch.linspace(start, stop, _checked(n) + 1, dtype=torch.float64)[:-1]
    if float(times[-1]) < tick(least, "bounded"):
        times = torch.linspace(start, tick(least, "bounded"), n, dtype=torch.float64)
    part = times.exp()
    levels = schedule.level(schedule.time(Level(1 - part, high * part - low)).clamp(0, 1))
    return Levels.of(levels, CLEAN)


@dataclass(frozen=True)
class Given:
    """A grid of one's own: its noisy levels, falling, by sigma/alpha, by time in 0 .. 1, or by the number of
    a table's step (0 .. T - 1, as diffusers counts its time steps). A 0 after the sigmas may be left out.

    Raises SettingsError, when made or asked, for levels that do not fall, lie outside the schedule, or are
    not as many as the steps asked for.
    """

    values: tuple[float | int, ...]
    by: Literal["sigma", "time", "step"] = "sigma"

    def __post_init__(self) -> None:
        if self.by == "sigma" and self.values and self.values[-1] == 0:
            object.__setattr__(self, "values", self.values[:-1])
        least = 0.0 if self.by == "step" else math.ulp(0.0)
        if not self.values or not all(least <= value < math.inf for value in self.values):
            raise SettingsError(f"a grid by {self.by} of {self.values}: give finite numbers, above 0")
        for i, (above, below) in enumerate(zip(self.values, self.values[1:])):
            if below >= above:
                raise SettingsError(
                    f"the grid by {self.by} does not fall from {above:g} to {below:g} (places {i + 1} and "
                    f"{i + 2}): give its levels from the noisiest to the cleanest"
                )

    def __call__(self, schedule: Schedule, n: int) -> Levels:
        if n != len(self.values):
            raise SettingsError(
                f"{n} steps on a grid of {len(self.values)} levels: ask for {len(self.values)}"
            )
        values = torch.tensor(self.values, dtype=torch.float64)
        if self.by == "sigma":
            times = schedule.time(Level(torch.ones_like(values), values))
        else:
            table = _table(schedule)
            if self.by == "step" and table is None:
                raise SettingsError("this schedule has no numbered steps: give the grid by sigma or by time")
            times = values if table is None or self.by == "time" else (values + 1) / table.steps
        least = _first_node(schedule)
        outside = (times > 1 + 1e-9) | (times < least - 1e-9)
        if bool(outside.any()):
            i = int(outside.nonzero()[0])
            raise SettingsError(
                f"{self.by} {self.values[i]:g} of the grid lies outside what the model was trained on: give "
                f"levels between times {least:g} and 1 of its schedule"
            )
        return _to_clean(schedule, times.clamp(0, 1))


def at_nodes(table: Table, levels: Levels) -> Levels:
    """The grid moved to the nearest nodes of a table, for models that only know whole steps.

    The plan moves, never the question alone: the model is asked exactly where the solver stands. Nodes that
    coincide are taken once, so a fine grid may lose steps.
    """
    steps = (table.time(Level(levels.alpha, levels.sigma)) * table.steps).round().clamp(0, table.steps)
    times = torch.unique_consecutive(steps[steps > 0]) / table.steps
    return _to_clean(table, times)


@dataclass(frozen=True)
class ToLeast:
    """Another grid that ends at the least noise that was trained, not at clean data: that much noise stays in
    the picture, and the last move needs no leap (diffusers' final_sigmas_type="sigma_min", its DEIS)."""

    grid: Grid

    def __call__(self, schedule: Schedule, n: int) -> Levels:
        levels = self.grid(schedule, n)
        both = ends(schedule)
        end = Level(both.alpha[0], both.sigma[0])
        noisy = levels.cut(0, len(levels) - 1)
        if float(end.sigma / end.alpha) >= float(noisy[-1].sigma / noisy[-1].alpha):
            raise SettingsError(
                "this grid already stands at the least noise that was trained: leave ToLeast out, or choose "
                "a grid that ends above it, such as trailing"
            )
        return Levels.of(Level(noisy.alpha, noisy.sigma), end)
