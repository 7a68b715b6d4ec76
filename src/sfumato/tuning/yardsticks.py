"""How good pictures of a sampler are, and how much better than those of another from the same noise.

Samplers that draw nothing on their way tend to one picture a seed, that of the probability flow, so each can
be measured by its distance from there (`Distance`). Those with new noise have no such limit: what they have
in common is the law that they draw from, and the distance of laws is a kernel's (`Likeness`). Two samplers
are given the same seeds, so what a seed does to both is left out of the error of their difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.evaluation.features.extractor import Extractor
from sfumato.evaluation.figure import Figure, jackknife_error
from sfumato.evaluation.kernel import row_sums

FEWEST = 8
"""Fewer pictures tell nothing of an error."""


@runtime_checkable
class Yardstick(Protocol):
    """What is kept of pictures, a row each, and what rows of the same seeds come to: less is better."""

    @property
    def unit(self) -> str: ...

    def look(self, pictures: Tensor | None, rows: range) -> Tensor:
        """A row for each picture; not finite where there are none."""
        ...

    def figure(self, seen: Tensor) -> Figure:
        """What the rows come to, in its 95 % interval."""
        ...

    def difference(self, a: Tensor, b: Tensor) -> Figure:
        """a's figure less b's, in its 95 % interval; row i of both is of the same seed."""
        ...


@dataclass(frozen=True, eq=False)
class Distance:
    """The root mean square distance from the fine solution, over pictures and their numbers.

    fine: (n, C, H, W). With s_i the mean square distance of picture i, the figure is sqrt(mean s), and its
    error and that of a difference of two are the first-order ones, of means of s_i / (2 sqrt(mean s)).
    """

    fine: Tensor
    unit: str = "root mean square distance from the fine solution"

    def look(self, pictures: Tensor | None, rows: range) -> Tensor:
        fine = self.fine[rows.start : rows.stop]
        if pictures is None:
            return torch.full((len(fine),), math.inf, dtype=torch.float64)
        return (pictures.double() - fine.double()).square().flatten(1).mean(1)

    def figure(self, seen: Tensor) -> Figure:
        return _of_mean(float(seen.mean().sqrt()), _influence(seen), least=0.0)

    def difference(self, a: Tensor, b: Tensor) -> Figure:
        value = float(a.mean().sqrt()) - float(b.mean().sqrt())
        return _of_mean(value, _influence(a) - _influence(b))


def _influence(seen: Tensor) -> Tensor:
    """How much each picture moves sqrt(mean s), times n: s_i / (2 sqrt(mean s)); 0 for no distance at all."""
    root = seen.mean().sqrt()
    return seen / (2 * root) if float(root) > 0 else torch.zeros_like(seen)


def _of_mean(value: float, influence: Tensor, least: float = -math.inf) -> Figure:
    if not math.isfinite(value):
        return Figure(math.inf, math.inf, math.inf)
    return Figure.of(value, float(influence.std()) / math.sqrt(len(influence)), least=least)


@dataclass(frozen=True, eq=False)
class Likeness:
    """The kernel distance (KID) of the pictures' features from a reference's, (m, D), which were drawn apart
    from them: unbiased, its errors by the jackknife over pictures of both sides. `unit_range` brings pictures
    to [-1, 1]."""

    extractor: Extractor
    reference: Tensor
    unit_range: Callable[[Tensor], Tensor]
    batch: int = 64

    @property
    def unit(self) -> str:
        return f"KID-{self.extractor.name}"

    def look(self, pictures: Tensor | None, rows: range) -> Tensor:
        if pictures is None:
            return torch.full((len(rows), self.extractor.width), math.inf)
        return features(self.extractor, self.unit_range(pictures), self.batch)

    def figure(self, seen: Tensor) -> Figure:
        return _kernel_figure(_without(self.reference, seen)) if _whole(seen) else _NONE

    def difference(self, a: Tensor, b: Tensor) -> Figure:
        if not (_whole(a) and _whole(b)):
            return _NONE
        pairs = zip(_without(self.reference, a), _without(self.reference, b), strict=True)
        return _kernel_figure(Without(*(x - y for x, y in pairs)))


_NONE = Figure(math.inf, math.inf, math.inf)


def _whole(seen: Tensor) -> bool:
    return bool(seen.isfinite().all())


def features(extractor: Extractor, unit: Tensor, batch: int = 64) -> Tensor:
    """What an extractor sees in pictures in [-1, 1], (n, D)."""
    return torch.cat([extractor(part).pooled for part in unit.split(batch)])


class Without(NamedTuple):
    """A kernel distance, and what it is without each picture of the reference, (n,), and of the others."""

    value: Tensor
    reference: Tensor
    generated: Tensor


def _without(reference: Tensor, generated: Tensor) -> Without:
    """MMD^2 as `evaluation.kernel.kid` has it, with the values without each picture, from its sums of pairs;
    what it owes to pairs within the reference is the same for all samplers and still part of the value."""
    x, y = row_sums(reference, generated)
    n, m = len(x.own), len(y.own)
    in_x, in_y, between = x.own.sum(), y.own.sum(), x.other.sum()
    value = in_x / (n * (n - 1)) + in_y / (m * (m - 1)) - 2 * between / (n * m)
    left = (in_x - 2 * x.own) / ((n - 1) * (n - 2)) + in_y / (m * (m - 1))
    right = in_x / (n * (n - 1)) + (in_y - 2 * y.own) / ((m - 1) * (m - 2))
    return Without(
        value,
        left - 2 * (between - x.other) / ((n - 1) * m),
        right - 2 * (between - y.other) / (n * (m - 1)),
    )


def _kernel_figure(found: Without) -> Figure:
    return Figure.of(float(found.value), jackknife_error(found.reference, found.generated))
