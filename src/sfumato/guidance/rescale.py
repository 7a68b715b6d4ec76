"""Guidance rescale: strong guidance without the contrast that it adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.guidance.mix import Mix, Said, asked, blend
from sfumato.level import Level, spread_on
from sfumato.predictions import Estimate


def check_rescale(phi: float | int) -> None:
    """Raises SettingsError for what is no share."""
    if not 0 <= phi <= 1:
        raise SettingsError(f"guidance rescale {phi}: give a share from 0 (off) to 1")


@dataclass(frozen=True)
class Rescaled:
    """A mixture whose v has, by the share phi, the deviation of its positive part (Lin et al. 2024, section
    3.4): v (phi std(v_positive) / std(v) + 1 - phi), std over each picture.

    The positive part is the mean of the denoisers with positive weights, by their weights: in classifier-free
    guidance, the conditional. They are asked once. As in the paper it is v that is rescaled, whatever the
    network predicts: at pure noise that is the picture itself.
    """

    mixture: Mix
    phi: float | int = 0.7

    def __post_init__(self) -> None:
        check_rescale(self.phi)

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        used = self.mixture.used(level)
        if self.phi == 0 or len(used) == 1:
            return self.mixture(x, level, seen)
        told = asked(used, x, level, seen)
        alpha, norm = spread_on(level.alpha, x), spread_on(level.norm, x)
        middle = alpha / norm**2 * x
        guided, positive = middle - blend(told), middle - blend(_positive(told))
        ratio = _std(positive) / _std(guided)
        factor = torch.where(ratio.isfinite(), self.phi * ratio + (1 - self.phi), torch.ones_like(ratio))
        x0 = middle - factor.reshape(-1, *([1] * (x.ndim - 1))) * guided
        return replace(Estimate.of(x, level, x0=x0), spread=told[0].spread)

    def take(self, rows: Sequence[int]) -> Rescaled:
        return Rescaled(self.mixture.take(rows), self.phi)

    def check(self, level: Level) -> None:
        self.mixture.check(level)


def _positive(told: Sequence[Said]) -> list[Said]:
    weights = [said.weight.clamp(min=0) for said in told]
    total = sum(weights, start=torch.zeros((), dtype=torch.float64))
    return [said._replace(weight=weight / total) for said, weight in zip(told, weights, strict=True)]


def _std(v: Tensor) -> Tensor:
    return v.flatten(1).std(dim=1, correction=0)


def rescaled(mixture: Mix, phi: float | int = 0.7) -> Rescaled:
    """A mixture, classifier-free guidance for instance, that keeps the contrast of its positive part."""
    return Rescaled(mixture, phi)
