"""Sampling: walk a plan, one step at a time. Samplers by name are in `samplers`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.noise import Noise
from sfumato.predictions import Estimate
from sfumato.solvers.fresh import Fresh, Ode, Split
from sfumato.solvers.moves import Leg, Move, Point, Step, check_renoise, renoise
from sfumato.solvers.multistep import Multistep


@runtime_checkable
class Solver(Protocol):
    """How to average what was seen. `prepare` works out every coefficient of a plan once; `step` uses one of
    them.

    The state is a value: walks that run at the same time share nothing.
    """

    @property
    def order(self) -> int: ...

    def prepare(self, legs: Sequence[Leg]) -> Sequence[Any]: ...

    def step(
        self, denoise: Denoiser, first: Estimate, row: Any, state: tuple[Any, ...]
    ) -> tuple[Tensor, tuple[Any, ...]]: ...


@runtime_checkable
class After(Protocol):
    """A hook that may change x after a move, for example to put known pixels back."""

    def __call__(self, x: Tensor, level: Level, i: int) -> Tensor: ...


class _Prepared(NamedTuple):
    move: Move
    row: Any
    added: float | Callable[[Estimate], Tensor]


def _prepare(plan: Sequence[Move], solver: Solver, fresh: Fresh) -> list[_Prepared]:
    splits: list[Split | None] = [None if m.renoise else fresh(m.here, m.there) for m in plan]
    legs: list[Leg] = []
    restart = True
    for move, split in zip(plan, splits, strict=True):
        if split is None:
            check_renoise(move.here, move.there)
            restart = True
        else:
            here, there = Point.of(move.here), Point.of(move.there)
            standing = here == there  # Langevin: what was seen before it is not on the trajectory after it
            through = None if move.through is None else tuple(Point.of(level) for level in move.through)
            legs.append(Leg(here, there, Point(there.alpha, split.kept), restart or standing, through))
            restart = standing
    rows = iter(solver.prepare(legs))
    return [
        _Prepared(m, None, 0.0) if split is None else _Prepared(m, next(rows), split.added)
        for m, split in zip(plan, splits, strict=True)
    ]


@torch.no_grad()
def walk(
    denoise: Denoiser,
    x: Tensor,
    plan: Sequence[Move],
    solver: Solver = Multistep(),  # noqa: B008 (frozen)
    noise: Noise | None = None,
    fresh: Fresh = Ode(),  # noqa: B008 (frozen)
    after: After | None = None,
) -> Iterator[Step]:
    """Walks the plan from x at plan[0].here and yields after each move: progress, previews, films and
    cancelling are the caller's loop. `noise` has one stream per row of x; it is needed where the plan
    renoises or `fresh` adds noise.

    Raises SettingsError before the first step for a level that the model cannot be asked, or for missing
    noise.
    """
    prepared = _prepare(plan, solver, fresh)
    for move, _, _ in prepared:
        if not move.renoise:
            denoise.check(move.here)
    if noise is None and any(p.move.renoise or p.added != 0 for p in prepared):
        raise SettingsError("this plan draws noise: give walk() a Noise with one seed per picture")
    if noise is not None and len(noise) != len(x):
        raise SettingsError(f"{len(noise)} seeds for a batch of {len(x)}: give one seed per picture")
    x = x if x.dtype == torch.float64 else x.float()
    state: tuple[Any, ...] = ()
    seen: Estimate | None = None
    for i, (move, row, added) in enumerate(prepared):
        first = None
        if move.renoise and noise is not None:
            z = move.spare * noise.normal(x.shape[1:], "renoise", i).to(x)
            x, state = renoise(x, move.here, move.there, z), ()
        else:
            first = seen = denoise(x, move.here, seen)
            x, state = solver.step(denoise, first, row, state)
            if added != 0 and noise is not None:
                std = added(first) if callable(added) else added
                x = x + std * noise.normal(x.shape[1:], "step", i).to(x)
        if after is not None:
            x = after(x, move.there, i)
        yield Step(i, x, move.there, first)


def prior(level: Level, shape: Sequence[int], noise: Noise, data: float = 1.0) -> Tensor:
    """The start of a walk at `level`: normals of standard deviation hypot(alpha data, sigma), (len(noise),
    *shape)."""
    std = math.hypot(float(level.alpha) * data, float(level.sigma))
    return noise.normal(shape, "start") * std


def sample(
    denoise: Denoiser,
    shape: Sequence[int],
    plan: Sequence[Move],
    solver: Solver = Multistep(),  # noqa: B008 (frozen)
    seeds: Sequence[int] = (0,),
    fresh: Fresh = Ode(),  # noqa: B008 (frozen)
    after: After | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """One picture per seed, (len(seeds), *shape): the end of the walk from the prior at the plan's first
    level."""
    noise = Noise(tuple(seeds))
    x = prior(plan[0].here, shape, noise).to(device)
    for step in walk(denoise, x, plan, solver, noise, fresh, after):
        x = step.x
    return x


def draw(
    denoise: Denoiser,
    shape: Sequence[int],
    plan: Sequence[Move],
    solver: Solver = Multistep(),  # noqa: B008 (frozen)
    seeds: Sequence[int] = (0,),
    fresh: Fresh = Ode(),  # noqa: B008 (frozen)
    batch: int = 64,
    device: torch.device | str = "cpu",
) -> Iterator[Tensor]:
    """`sample` for any number of seeds, in batches: yields (b, *shape). The denoiser's conditions have a row
    per seed.

    Pictures do not depend on `batch`, but for rounding: convolutions round by the shape of their batch. With
    batch = 1 they agree to the bit.
    """
    for start in range(0, len(seeds), batch):
        rows = range(start, min(start + batch, len(seeds)))
        part = [seeds[i] for i in rows]
        yield sample(denoise.take(rows), shape, plan, solver, part, fresh, device=device)


@dataclass(frozen=True)
class Counted:
    """A denoiser that counts how often it was asked about each row of the batch."""

    denoise: Denoiser
    counts: list[int]
    """One number a row; those of `take` count in the same list."""
    rows: tuple[int, ...]

    @staticmethod
    def of(denoise: Denoiser, rows: int) -> Counted:
        """Counts from zero for a batch of so many rows."""
        return Counted(denoise, [0] * rows, tuple(range(rows)))

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        for row in self.rows:
            self.counts[row] += 1
        return self.denoise(x, level, seen)

    def take(self, rows: Sequence[int]) -> Counted:
        return Counted(self.denoise.take(rows), self.counts, tuple(self.rows[row] for row in rows))

    def check(self, level: Level) -> None:
        self.denoise.check(level)


def looked(evaluations: Tensor) -> str:
    """How often a model was asked about each picture, in words."""
    least, most = int(evaluations.min()), int(evaluations.max())
    mean = float(evaluations.double().mean())
    return f"evaluations a picture: {least} to {most}, {mean:.1f} on average"
