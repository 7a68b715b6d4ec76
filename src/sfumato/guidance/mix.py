"""Affine mixtures of beliefs: classifier-free guidance, negative prompts, composition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato.denoiser import Bound, Denoiser
from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.predictions import Estimate

Weight = float | Callable[[Level], float]
"""A number, or a function of the level: guidance on an interval of noise."""


@dataclass(frozen=True)
class Mix:
    """sum_i w_i (estimate of denoiser i), weights adding to one. In x0 and in eps it is the same mixture.

    A weight of 0 is not evaluated and a lone weight of 1 returns that estimate itself, bit for bit. Denoisers
    that share a model are run as one batch. A learned variance is that of the first part that is used, as it
    says it.
    """

    parts: tuple[tuple[Denoiser, Weight], ...]

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        weighed = [(d, float(w(level) if callable(w) else w)) for d, w in self.parts]
        used = [(d, w) for d, w in weighed if w != 0]
        if abs(sum(w for _, w in used) - 1) > 1e-6:
            raise SettingsError(
                f"the weights of a mixture must add up to 1, not {sum(w for _, w in used):.6g}"
            )
        if len(used) == 1:
            return used[0][0](x, level, seen)
        estimates, spread = _together([d for d, _ in used], x, level, seen)
        x0 = sum((w * x0 for (_, w), x0 in zip(used, estimates, strict=True)), start=torch.zeros_like(x))
        return replace(Estimate.of(x, level, x0=x0), spread=spread)

    def take(self, rows: Sequence[int]) -> Mix:
        return Mix(tuple((d.take(rows), w) for d, w in self.parts))

    def check(self, level: Level) -> None:
        for denoise, _ in self.parts:
            denoise.check(level)


def _together(
    denoisers: Sequence[Denoiser], x: Tensor, level: Level, seen: Estimate | None
) -> tuple[list[Tensor], Tensor | None]:
    """The clean halves and the first one's spread, in one call where all are conditions of one model with the
    same names and kinds of tensors."""
    bounds = [d for d in denoisers if isinstance(d, Bound)]
    joined = _joined(bounds) if len(bounds) == len(denoisers) else None
    if joined is None:
        apart = [d(x, level, seen) for d in denoisers]
        return [e.x0 for e in apart], apart[0].spread
    k = len(bounds)
    before = None
    if seen is not None and joined.model.self_conditioned:
        before = Estimate.of(_repeat(seen.x, k), _stacked(seen.level, k), x0=_repeat(seen.x0, k))
    all_of_them = joined(_repeat(x, k), _stacked(level, k), before)
    spread = all_of_them.spread
    return list(all_of_them.x0.chunk(k)), None if spread is None else spread[: len(x)]


def _stacked(level: Level, k: int) -> Level:
    return level if level.alpha.ndim == 0 else Level(_repeat(level.alpha, k), _repeat(level.sigma, k))


def _repeat(value: Tensor, k: int) -> Tensor:
    return value.repeat(k, *([1] * (value.ndim - 1)))


def _joined(bounds: Sequence[Bound]) -> Bound | None:
    """One bound whose conditions are the parts' conditions stacked, or None if they cannot be stacked."""
    first = bounds[0]
    cond: dict[str, Tensor | None] = {}
    for name in first.cond:
        values = [b.cond.get(name) for b in bounds]
        tensors = [v for v in values if v is not None]
        if tensors and (len(tensors) < len(values) or len({v.shape for v in tensors}) > 1):
            return None
        cond[name] = torch.cat(tensors) if tensors else None
    same = all(b.model is first.model and set(b.cond) == set(first.cond) for b in bounds)
    return Bound(first.model, cond) if same else None


def mix(parts: Sequence[tuple[Denoiser, Weight]]) -> Mix:
    """An affine combination of denoisers; the weights add to one at every level."""
    return Mix(tuple(parts))


def classifier_free(conditional: Denoiser, unconditional: Denoiser, scale: Weight) -> Mix:
    """unconditional + scale (conditional - unconditional) (Ho & Salimans 2022, with scale = 1 + w).

    Scale 1 is the conditional model itself, at half the calls; scale 0 the unconditional one.
    """
    if callable(scale):
        return Mix(((conditional, scale), (unconditional, lambda level: 1 - scale(level))))
    return Mix(((conditional, scale), (unconditional, 1 - scale)))
