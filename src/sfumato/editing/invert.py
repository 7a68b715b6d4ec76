"""DDIM inversion: from a picture back to the noise that the same way down makes it from.

The plain move from (a, s) down to (a', s') lands at x' = a' x0(x) + s' eps(x) (Song et al. 2021, eq.
12). Plain inversion takes both halves from x', where they are known, instead of x (Dhariwal & Nichol
2021, sec. F): an error of first order, 5 % in fifty steps on a Gaussian. Here the equation itself is
solved for x, move by move, so the way down lands where the way up came from (Pan et al. 2023, AIDI;
Garibi et al. 2024, ReNoise):

    x <- x - (landed(x) - x') / g,      g = (a a' + s s') / (a^2 + s^2)

g is the slope of the move on unit data, which is also the true one at pure noise, where x0 does not depend on
x, and near clean data, where x0 follows it. Anderson's mixing (1965) hurries the iteration on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.editing.img2img import start_of
from sfumato.editing.job import Job
from sfumato.errors import SettingsError
from sfumato.level import Level, Levels
from sfumato.plans import descend
from sfumato.predictions import Estimate
from sfumato.samplers import Sampler
from sfumato.solvers.fresh import Ode
from sfumato.solvers.moves import Move, carry
from sfumato.solvers.multistep import Multistep

PATIENCE = 6
"""So many looks without getting a tenth nearer, and a move is given up at its best: rounding, or no
solution."""


@dataclass(frozen=True)
class Refine:
    """How exactly a move is solved backwards.

    tolerance: of the root mean square by which the way down would miss, in units of the level's norm.
    looks: at most so many a move; 1 is plain DDIM inversion. memory: how many earlier looks Anderson's
    mixing uses; 0 is the plain fixed-point iteration.
    """

    tolerance: float = 1e-6
    looks: int = 30
    memory: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1 or self.looks < 1 or self.memory < 0:
            raise SettingsError(
                f"inversion to {self.tolerance:g} in {self.looks} looks: give a tolerance between 0 and 1, "
                "such as 1e-6, and at least 1 look"
            )


class Back(NamedTuple):
    """One move taken backwards: x at `level`, in so many looks; the way down misses by `miss`, (B,)."""

    i: int
    x: Tensor
    level: Level
    looks: int
    miss: Tensor


@dataclass(frozen=True)
class Inverted:
    """The noise of pictures: x (B, C, H, W) at `level`; looks: in all; misses: (moves, B), in that order."""

    x: Tensor
    level: Level
    looks: int
    misses: Tensor


@torch.no_grad()
def back(
    denoise: Denoiser, picture: Tensor, plan: Sequence[Move], refine: Refine = Refine()
) -> Iterator[Back]:
    """Takes the moves of a way down in reverse, from the picture at its end; yields after each.

    The last move of a way down forgets what the model takes for noise. A picture that it could not have made
    has no exact solution there: the nearest is taken, and `miss` says by how much it misses. Raises
    SettingsError before the first look for a level that the model cannot be asked, and for moves that
    cannot be undone.
    """
    for move in plan:
        if move.renoise or float(move.here.sigma) == 0 or _slope(move) == 0:
            raise SettingsError(
                "this way down forgets where it came from, so it cannot be taken back: use a plan "
                "without new noise, of at least two steps"
            )
        denoise.check(move.here)
    x, believed = picture if picture.dtype == torch.float64 else picture.float(), None
    for i, move in enumerate(reversed(plan)):
        found = _solve(denoise, x, move, believed, refine)
        x, believed = found.x, Estimate.of(found.x, move.here, x0=found.x0)
        yield Back(i, x, move.here, found.looks, found.miss)


def invert(denoise: Denoiser, picture: Tensor, levels: Levels, refine: Refine = Refine()) -> Inverted:
    """The noise at the first of the levels from which DDIM's way down ends at the picture; see `back`."""
    steps = list(back(denoise, picture, descend(levels), refine))
    misses = torch.stack([step.miss for step in steps])
    return Inverted(steps[-1].x, steps[-1].level, sum(step.looks for step in steps), misses)


def check_plain(how: Sampler) -> None:
    """Raises SettingsError for a sampler whose way down is not made of plain moves, one look each."""
    plain = isinstance(how.solver, Multistep) and how.solver.order == 1 and isinstance(how.fresh, Ode)
    if not plain:
        raise SettingsError(
            "an inversion is exact for the plain move alone: use --sampler ddim, or ddim on another grid, "
            "such as ddim-karras, and no --eta"
        )


@dataclass(frozen=True, eq=False)
class Unseen:
    """A denoiser that is not shown its last estimate (self-conditioning): on the way up nobody knows what
    will be believed on the way down, so what is inverted comes down without."""

    denoise: Denoiser

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        return self.denoise(x, level)

    def take(self, rows: Sequence[int]) -> Unseen:
        return Unseen(self.denoise.take(rows))

    def check(self, level: Level) -> None:
        self.denoise.check(level)


def change(
    source: Denoiser,
    target: Denoiser,
    picture: Tensor,
    levels: Levels,
    strength: float | int = 1.0,
    refine: Refine = Refine(),
) -> Job:
    """A picture (B, C, H, W) inverted as what it is and made again as something else: `source` knows its own
    conditions, `target` the new ones. Under a strength below 1 the way begins lower: coarse forms stay."""
    part = levels.cut(start_of(strength, levels), len(levels))
    return Job(Unseen(target), invert(source, picture, part, refine).x, descend(part))


@torch.no_grad()
def regenerate(denoise: Denoiser, x: Tensor, levels: Levels) -> Tensor:
    """The end of DDIM's way down the levels from x: what an inversion promises to be the picture again."""
    for move in descend(levels):
        x = carry(denoise(x, move.here), move.there)
    return x


class _Found(NamedTuple):
    x: Tensor
    x0: Tensor
    looks: int
    miss: Tensor


def _slope(move: Move) -> float:
    """d x' / d x of the plain move on data of unit variance: the cosine of the angle between the levels, on
    curves of norm 1."""
    (a, s), (a2, s2) = ((float(level.alpha), float(level.sigma)) for level in (move.here, move.there))
    return (a * a2 + s * s2) / (a * a + s * s)


def _solve(
    denoise: Denoiser, target: Tensor, move: Move, believed: Estimate | None, refine: Refine
) -> _Found:
    """x at move.here whose move lands at the target. The first guess is plain inversion's: the move by what
    was believed at the target."""
    slope, norm = _slope(move), float(move.there.norm)

    def landed(x: Tensor, looks: int) -> tuple[_Found, Tensor]:
        estimate = denoise(x, move.here)
        gap = target - carry(estimate, move.there)
        miss = gap.flatten(1).double().square().mean(1).sqrt() / norm
        return _Found(x, estimate.x0, looks, miss), gap / slope

    x = target * float(move.here.alpha) if believed is None else carry(believed, move.here)
    best, gap = landed(x, 1)
    xs, gaps, idle = [x], [gap], 0
    while best.looks < refine.looks and idle < PATIENCE and bool((best.miss > refine.tolerance).any()):
        x = mixed(xs, gaps)
        found, gap = landed(x, best.looks + 1)
        best, nearer = _better(best, found)
        idle = 0 if nearer else idle + 1
        xs, gaps = [*xs, x][-refine.memory - 1 :], [*gaps, gap][-refine.memory - 1 :]
    return best


def _better(old: _Found, new: _Found) -> tuple[_Found, bool]:
    """Row by row the nearer of two, and whether any row came nearer by a tenth."""
    nearer = new.miss < old.miss
    rows = nearer.reshape(-1, *(1,) * (new.x.ndim - 1))
    kept = _Found(
        torch.where(rows, new.x, old.x),
        torch.where(rows, new.x0, old.x0),
        new.looks,
        torch.where(nearer, new.miss, old.miss),
    )
    return kept, bool((new.miss < 0.9 * old.miss).any())


def mixed(xs: Sequence[Tensor], gaps: Sequence[Tensor]) -> Tensor:
    """The next place of a fixed-point iteration x + gap(x), row by row (Anderson 1965): the combination of
    what was tried whose gap would be least, were the gap linear, and a step by that gap."""
    x, gap = xs[-1], gaps[-1]
    if len(xs) == 1:
        return x + gap
    apart = lambda values: torch.stack([(values[-1] - v).flatten(1) for v in values[:-1]], 1).double()
    dx, dgap = apart(xs), apart(gaps)
    gram = dgap @ dgap.mT
    ridge = 1e-12 * gram.diagonal(dim1=1, dim2=2).sum(1) + 1e-300
    gram = gram + ridge[:, None, None] * torch.eye(len(xs) - 1, dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve(gram, dgap @ gap.flatten(1).double()[:, :, None])
    return x + gap - (weights.mT @ (dx + dgap))[:, 0].reshape(x.shape).to(x)
