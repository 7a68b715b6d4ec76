"""Adaptive solving: every picture takes the steps that it needs.

DPM-Solver-12 and -23 (Lu et al. 2022, appendix C; k-diffusion's dpm_adaptive): two single-step rules that
share their looks take the same step, their difference is the error of the lower one, and the step is taken
again, shorter, where that is above the tolerance. Each picture has its own level and its own step and leaves
the batch when it has arrived. So no neighbour changes a picture, but for rounding: networks round by the
shape of their batch, and a step whose error is within rounding of the tolerance may fall on either side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.level import CLEAN, Level, spread_on
from sfumato.noise import Noise
from sfumato.predictions import Estimate
from sfumato.solvers.clocks import tick
from sfumato.solvers.frames import frame_move, seen
from sfumato.solvers.fresh import Fresh, Ode
from sfumato.solvers.moves import Leg, Point, Step
from sfumato.solvers.singlestep import Combination, Look, Singlestep, point_at

FAR = 150.0
"""From pure noise the first move is a plain one to this sigma/alpha, where x is noise to about 1 / FAR^2."""
SAFETY, SHRINK, GROW = 0.9, 0.2, 5.0
"""The next step aims at this part of the tolerance's, and changes by no more than these factors."""
SMALLEST = 1e-7
"""A step shorter than this, in half log-SNR, is a collapse."""


@dataclass(frozen=True)
class Pair:
    """The single-step rules of `order` and `order` - 1 with the same looks: DPM-Solver-12 (2) or -23 (3)."""

    of: Literal["x0", "eps"] = "eps"
    order: int = 3

    def __post_init__(self) -> None:
        if self.order not in (2, 3):
            raise SettingsError(
                f"an adaptive pair of order {self.order}: choose 2 (DPM-Solver-12) or 3 (-23)"
            )

    def prepare(self, legs: Sequence[Leg]) -> list[Trial]:
        """The coefficients of both rules for steps that are finite in log-SNR."""
        high = Singlestep(self.of, self.order)
        rows = [high.row(leg) for leg in legs]
        if self.order == 2:
            lows = [_plain(self.of, leg) for leg in legs]
        else:
            low = Singlestep(self.of, 2, high.nodes[:1])
            lows = [low.row(leg).end for leg in legs]
        return [Trial(row.looks, row.end, end) for row, end in zip(rows, lows, strict=True)]


def _plain(of: Literal["x0", "eps"], leg: Leg) -> Combination:
    """The move of order one."""
    of_x, of_y = frame_move(of, leg.here, leg.kept)
    return Combination(of_x, (of_y,))


class Trial(NamedTuple):
    """A step that is measured: where to look again, and where the two rules end."""

    looks: tuple[Look, ...]
    high: Combination
    low: Combination


class _Course(NamedTuple):
    """What one attempt of one picture aims at: its leg, and the std of the noise to add at its end."""

    leg: Leg
    added: float

    @property
    def length(self) -> float:
        """The step in half log-SNR."""
        return tick(self.leg.there, "log_snr") - tick(self.leg.here, "log_snr")


class _Pictures(NamedTuple):
    """Where each picture is, what was last seen of it (at first 0) and how often it was looked at."""

    x: Tensor
    points: tuple[Point, ...]
    x0: Tensor
    looks: Tensor

    def told(self, rows: Sequence[int]) -> Estimate:
        """What was last seen of some of them, where they are now."""
        index = torch.tensor(rows, dtype=torch.long, device=self.x.device)
        return Estimate.of(self.x[index], _level([self.points[row] for row in rows]), x0=self.x0[index])

    def seen(self, denoise: Denoiser, rows: Sequence[int]) -> _Pictures:
        """Some of them looked at where they are."""
        if not rows:
            return self
        told = self.told(rows)
        e = _some(denoise, rows, len(self.x))(told.x, told.level, told if bool(self.looks.any()) else None)
        return self._replace(x0=_put(self.x0, rows, e.x0), looks=_put(self.looks, rows, self.looks[rows] + 1))

    def moved(self, rows: Sequence[int], x: Tensor, points: Sequence[Point]) -> _Pictures:
        """Some of them taken to other places."""
        there = dict(zip(rows, points, strict=True))
        at = tuple(there.get(row, point) for row, point in enumerate(self.points))
        return self._replace(x=_put(self.x, rows, x), points=at)


@torch.no_grad()
def walk(
    denoise: Denoiser,
    x: Tensor,
    start: Level,
    end: Level,
    pair: Pair = Pair(),
    relative: float = 0.05,
    absolute: float = 0.0078,
    noise: Noise | None = None,
    fresh: Fresh = Ode(),  # noqa: B008 (frozen)
    first_step: float = 0.05,
    attempts: int = 1000,
) -> Iterator[Step]:
    """Walks each row of x from `start` to `end`, the schedule's last noisy level, and jumps to clean data.

    A step is taken if the root mean square over the picture of error / max(absolute, relative |x|) is at most
    1, x on the curve of unit norm; the defaults are those of Lu et al. (2022), 0.0078 two steps of 8 bits.
    first_step is in half log-SNR. `fresh` adds noise to each step taken, drawn by (seed, attempt). Yields
    after each attempt: x, the rows' levels (B,), what was last seen of them, how often each was looked at.

    Raises SettingsError for levels that cannot be asked, for missing noise, and where a picture's step
    collapses or it has not arrived after so many attempts.
    """
    everybody = range(len(x))
    _check(denoise, len(x), start, end, noise, fresh, min(relative, absolute, first_step))
    x = x if x.dtype == torch.float64 else x.float()
    looks = torch.zeros(len(x), dtype=torch.long)
    now = _Pictures(x, (Point.of(start),) * len(x), torch.zeros_like(x), looks)
    if float(start.alpha) == 0:
        now = now.seen(denoise, everybody)
        far = point_at(-math.log(FAR), "log_snr")
        now = now.moved(everybody, far.alpha * now.x0 + far.sigma / float(start.sigma) * x, [far] * len(x))
    goal = point_at(tick(Point.of(end), "log_snr"), "log_snr")
    steps, new, left = [first_step] * len(x), list(everybody), list(everybody)
    for i in range(attempts):
        now = now.seen(denoise, new)
        told = now.told(everybody)
        arrived = [row for row in left if now.points[row] == goal]
        now = now.moved(arrived, now.x0[arrived], [Point.of(CLEAN)] * len(arrived))
        left = [row for row in left if now.points[row].sigma > 0]
        courses = [_course(now.points[row], goal, steps[row], fresh) for row in left]
        high, low = _try(denoise, now, left, pair.prepare([course.leg for course in courses]), pair)
        now = now._replace(looks=_put(now.looks, left, now.looks[left] + pair.order - 1))
        errors = _errors(now.x[left], high, low, relative, absolute)
        if noise is not None and any(course.added for course in courses):
            std = torch.tensor([course.added for course in courses], dtype=torch.float64)
            high = high + spread_on(std, high) * noise.take(left).normal(x.shape[1:], "attempt", i).to(high)
        taken = [k for k, error in enumerate(errors) if error <= 1]
        new = [left[k] for k in taken]
        now = now.moved(new, high[taken], [courses[k].leg.there for k in taken])
        for row, course, error in zip(left, courses, errors, strict=True):
            steps[row] = _next(course, error, pair.order, row)
        yield Step(i, now.x, _level(now.points), told, now.looks)
        if not left:
            return
    raise SettingsError(
        f"{len(left)} of {len(x)} pictures have not arrived after {attempts} attempts: allow more of them, "
        f"or a larger error than relative = {relative:g}, absolute = {absolute:g}"
    )


def _try(
    denoise: Denoiser, now: _Pictures, rows: Sequence[int], trials: Sequence[Trial], pair: Pair
) -> tuple[Tensor, Tensor]:
    """Where both rules take these pictures, each by its own coefficients."""
    if not rows:
        return now.x[:0], now.x[:0]
    first = now.told(rows)
    some = _some(denoise, rows, len(now.x))
    ys = [seen(first, pair.of)]
    for k in range(pair.order - 1):
        x = _combined([trial.looks[k].way for trial in trials], first.x, ys)
        level = Level(
            torch.stack([trial.looks[k].level.alpha for trial in trials]),
            torch.stack([trial.looks[k].level.sigma for trial in trials]),
        )
        ys.append(seen(some(x, level, first), pair.of))
    high = _combined([trial.high for trial in trials], first.x, ys)
    return high, _combined([trial.low for trial in trials], first.x, ys)


def _combined(ways: Sequence[Combination], x: Tensor, ys: Sequence[Tensor]) -> Tensor:
    """`Combination.of` with a combination for each row."""
    out = spread_on(torch.tensor([way.of_x for way in ways], dtype=torch.float64), x) * x
    for k, y in enumerate(ys[: len(ways[0].seen)]):
        out = out + spread_on(torch.tensor([way.seen[k] for way in ways], dtype=torch.float64), x) * y
    return out


def _course(here: Point, goal: Point, step: float, fresh: Fresh) -> _Course:
    """The leg of a step this long, or to the goal if that is nearer; noise never takes it beyond the goal."""
    at, end = tick(here, "log_snr"), tick(goal, "log_snr")
    there = goal if at + step > end - SMALLEST else point_at(at + step, "log_snr")
    kept, added = fresh(Level.of(*here), Level.of(*there))
    if callable(added):
        raise SettingsError("adaptive steps cannot draw noise of a learned size: choose another fresh noise")
    if added > 0:
        kept = max(kept, there.alpha * goal.sigma / goal.alpha)
        added = math.sqrt(max(0.0, (there.sigma - kept) * (there.sigma + kept)))
    return _Course(Leg(here, there, Point(there.alpha, kept), True), added)


def _errors(x: Tensor, high: Tensor, low: Tensor, relative: float, absolute: float) -> list[float]:
    """The error of each row in units of the tolerance."""
    unit = torch.maximum(x.abs(), low.abs()).mul_(relative).clamp_(min=absolute)
    return ((high - low) / unit).flatten(1).double().pow(2).mean(1).sqrt().tolist()


def _next(course: _Course, error: float, order: int, row: int) -> float:
    """The next step's length: error falls as its `order`-th power. Raises SettingsError for a collapse."""
    factor = SAFETY * max(error, 1e-12) ** (-1 / order) if math.isfinite(error) else SHRINK
    factor = 2 ** (math.floor(4 * math.log2(factor)) / 4)  # rounding elsewhere in the batch seldom shows
    step = course.length * min(GROW, max(SHRINK, factor))
    if step < SMALLEST:
        ratio = course.leg.here.sigma / course.leg.here.alpha
        raise SettingsError(
            f"the step of picture {row} collapsed at sigma/alpha = {ratio:.4g}: allow a larger error, and "
            "look whether the model says numbers there"
        )
    return step


def _level(points: Sequence[Point]) -> Level:
    """One level a row."""
    alpha, sigma = ([point[k] for point in points] for k in range(2))
    return Level(torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64))


def _put(whole: Tensor, rows: Sequence[int], part: Tensor) -> Tensor:
    """A copy with these rows replaced."""
    return whole.index_copy(0, torch.tensor(rows, dtype=torch.long, device=whole.device), part.to(whole))


def _some(denoise: Denoiser, rows: Sequence[int], n: int) -> Denoiser:
    """The denoiser of these rows."""
    return denoise if len(rows) == n else denoise.take(rows)


def _check(
    denoise: Denoiser, n: int, start: Level, end: Level, noise: Noise | None, fresh: Fresh, least: float
) -> None:
    """Raises SettingsError for what cannot be walked."""
    if least <= 0:
        raise SettingsError("an adaptive walk's tolerances and first step must be above 0")
    if not float(start.angle) > float(end.angle) > 0 or start.alpha.ndim or end.alpha.ndim:
        raise SettingsError(
            "an adaptive walk goes from a level to one of less noise, the last noisy one of the schedule; it "
            "jumps to clean data from there by itself"
        )
    denoise.check(start)
    denoise.check(end)
    if noise is None and fresh(start, end).added != 0:
        raise SettingsError("this walk draws noise: give walk() a Noise with one seed per picture")
    if noise is not None and len(noise) != n:
        raise SettingsError(f"{len(noise)} seeds for a batch of {n}: give one seed per picture")
