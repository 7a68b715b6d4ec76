"""Affine mixtures of beliefs: classifier-free guidance, negative prompts, composition, auto-guidance.

All are sum_i w_i d_i with weights that add to one. They differ in the denoisers that are mixed, not in how.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.denoiser import Bound, Denoiser
from sfumato.errors import SettingsError
from sfumato.guidance.scales import Weight, added, weight_at
from sfumato.level import Level, spread_on
from sfumato.predictions import Estimate


class Said(NamedTuple):
    """What one denoiser of a mixture believes, and its weight, () or (B,)."""

    weight: Tensor
    x0: Tensor
    spread: Tensor | None


@dataclass(frozen=True)
class Mix:
    """sum_i w_i (estimate of denoiser i), weights adding to one. In x0 and in eps it is the same mixture.

    A weight of 0 is not evaluated and a lone weight of 1 returns that estimate itself, bit for bit. Denoisers
    that share a model are run as one batch; a mixture within a mixture is taken apart first, and a denoiser
    that is there twice is asked once. A learned variance is that of the first part that is used, as it says
    it.
    """

    parts: tuple[tuple[Denoiser, Weight], ...]

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        used = self.used(level)
        if len(used) == 1:
            return used[0][0](x, level, seen)
        told = asked(used, x, level, seen)
        return replace(Estimate.of(x, level, x0=blend(told)), spread=told[0].spread)

    def used(self, level: Level) -> list[tuple[Denoiser, Tensor]]:
        """The denoisers whose weight here is not 0, each once. Raises SettingsError unless all weights add
        to 1."""
        found: dict[int, tuple[Denoiser, Tensor]] = {}
        for denoise, weight in self._flat(level):
            before = found.get(id(denoise))
            found[id(denoise)] = (denoise, weight if before is None else before[1] + weight)
        used = [(d, w) for d, w in found.values() if bool((w != 0).any())]
        total = sum((w for _, w in used), start=torch.zeros((), dtype=torch.float64))
        size = sum((w.abs() for _, w in used), start=torch.ones((), dtype=torch.float64))
        if not bool(((total - 1).abs() <= 1e-6 * size).all()):
            worst = total.reshape(-1)[int((total - 1).abs().argmax())]
            raise SettingsError(f"the weights of a mixture must add up to 1, not {float(worst):.6g}")
        return used

    def _flat(self, level: Level) -> list[tuple[Denoiser, Tensor]]:
        found: list[tuple[Denoiser, Tensor]] = []
        for denoise, weight in self.parts:
            w = weight_at(weight, level)
            if isinstance(denoise, Mix) and bool((w != 0).any()):
                found += [(inner, w * v) for inner, v in denoise.used(level)]
            else:
                found.append((denoise, w))
        return found

    def take(self, rows: Sequence[int]) -> Mix:
        return self._take(rows, {})

    def _take(self, rows: Sequence[int], taken: dict[int, Denoiser]) -> Mix:
        """What stands in it twice, however deep, is taken once."""
        for denoise, _ in self.parts:
            if id(denoise) not in taken:
                inner = denoise._take(rows, taken) if isinstance(denoise, Mix) else denoise.take(rows)
                taken[id(denoise)] = inner
        return Mix(tuple((taken[id(d)], w) for d, w in self.parts))

    def check(self, level: Level) -> None:
        for denoise, _ in self.parts:
            denoise.check(level)


def blend(told: Sequence[Said]) -> Tensor:
    """sum_i w_i x0_i."""
    return sum((spread_on(s.weight, s.x0) * s.x0 for s in told), start=torch.zeros_like(told[0].x0))


def asked(
    used: Sequence[tuple[Denoiser, Tensor]], x: Tensor, level: Level, seen: Estimate | None
) -> list[Said]:
    """What each says: one call for all conditions of one model that have the same names and shapes."""
    groups: dict[object, list[int]] = {}
    for i, (denoise, _) in enumerate(used):
        groups.setdefault(_kind(denoise), []).append(i)
    told: dict[int, Said] = {}
    for members in groups.values():
        x0s, spreads = _together([used[i][0] for i in members], x, level, seen)
        for i, x0, spread in zip(members, x0s, spreads, strict=True):
            told[i] = Said(used[i][1], x0, spread)
    return [told[i] for i in range(len(used))]


def _kind(denoise: Denoiser) -> object:
    """Equal for denoisers that can run as one batch."""
    if not isinstance(denoise, Bound):
        return id(denoise)
    shapes = [(name, None if v is None else (v.shape[1:], v.dtype)) for name, v in denoise.cond.items()]
    return id(denoise.model), tuple(sorted(shapes, key=lambda named: named[0]))


def _together(
    denoisers: Sequence[Denoiser], x: Tensor, level: Level, seen: Estimate | None
) -> tuple[list[Tensor], list[Tensor | None]]:
    """The clean halves and the spreads of denoisers of one kind, in one call."""
    bounds = [d for d in denoisers if isinstance(d, Bound)]
    k = len(denoisers)
    if k == 1 or len(bounds) < k:
        apart = [d(x, level, seen) for d in denoisers]
        return [e.x0 for e in apart], [e.spread for e in apart]
    joined = _joined(bounds)
    before = None
    if seen is not None and joined.model.self_conditioned:
        before = Estimate.of(_repeat(seen.x, k), _stacked(seen.level, k), x0=_repeat(seen.x0, k))
    all_of_them = joined(_repeat(x, k), _stacked(level, k), before)
    spread = all_of_them.spread
    return list(all_of_them.x0.chunk(k)), [None] * k if spread is None else list(spread.chunk(k))


def _joined(bounds: Sequence[Bound]) -> Bound:
    """One bound whose conditions are the parts' conditions stacked."""
    cond: dict[str, Tensor | None] = {}
    for name in bounds[0].cond:
        tensors = [v for v in (b.cond[name] for b in bounds) if v is not None]
        cond[name] = torch.cat(tensors) if tensors else None
    return Bound(bounds[0].model, cond)


def _stacked(level: Level, k: int) -> Level:
    return level if level.alpha.ndim == 0 else Level(_repeat(level.alpha, k), _repeat(level.sigma, k))


def _repeat(value: Tensor, k: int) -> Tensor:
    return value.repeat(k, *([1] * (value.ndim - 1)))


def mix(parts: Sequence[tuple[Denoiser, Weight]]) -> Mix:
    """An affine combination of denoisers; the weights add to one at every level."""
    return Mix(tuple(parts))


def classifier_free(conditional: Denoiser, unconditional: Denoiser, scale: Weight) -> Mix:
    """unconditional + scale (conditional - unconditional) (Ho & Salimans 2022, with scale = 1 + w).

    Scale 1 is the conditional model itself, at half the calls; scale 0 the unconditional one. A negative
    prompt is what stands in the unconditional's place: the picture moves away from it.
    """
    return Mix(((conditional, scale), (unconditional, added((1, 1), (-1, scale)))))


def compose(unconditional: Denoiser, conditions: Sequence[tuple[Denoiser, Weight]]) -> Mix:
    """unconditional + sum_i s_i (d_i - unconditional) (Liu et al. 2022, eq. 11 and 13).

    Each condition has its own scale. Positive ones are AND, p(x) prod_i p(c_i | x)^s_i for conditions that
    are independent given x; a negative one is NOT.
    """
    rest = added((1, 1), *((-1, scale) for _, scale in conditions))
    return Mix((*conditions, (unconditional, rest)))


def nested(denoisers: Sequence[Denoiser], scales: Sequence[Weight]) -> Mix:
    """d_0 + s_1 (d_1 - d_0) + s_2 (d_2 - d_1) + ..., where each knows more conditions than the one before.

    With (nothing), (the picture), (the picture and the words) these are the two scales of InstructPix2Pix
    (Brooks et al. 2023, eq. 3).
    """
    if len(denoisers) != len(scales) + 1:
        raise SettingsError(
            f"{len(denoisers)} denoisers have {len(denoisers) - 1} steps between them, not {len(scales)}: "
            "give each step its scale"
        )
    upto = [1.0, *scales]
    beyond = [*scales, 0.0]
    weights = [added((1, s), (-1, t)) for s, t in zip(upto, beyond, strict=True)]
    return Mix(tuple(zip(denoisers, weights, strict=True))[::-1])


def away_from(good: Denoiser, worse: Sequence[tuple[Denoiser, Weight]]) -> Mix:
    """good + sum_i (s_i - 1) (good - worse_i): away from several at once, each with its own scale.

    One of them is `classifier_free`. Auto-guidance (Karras et al. 2024, eq. 3) is away from a weaker
    checkpoint of the same model, shown the same conditions; beside it the unconditional model may stand.
    """
    own = added((1, 1), *(term for _, scale in worse for term in ((1, scale), (-1, 1))))
    return Mix(((good, own), *((d, added((1, 1), (-1, scale))) for d, scale in worse)))


def auto_guidance(good: Denoiser, weak: Denoiser, scale: Weight) -> Mix:
    """weak + scale (good - weak): away from the mistakes of a weaker checkpoint (Karras et al. 2024)."""
    return away_from(good, [(weak, scale)])
