"""Steering by the gradient of anything that has one: a classifier, CLIP, a measurement, a reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.guidance.scales import Weight, weight_at
from sfumato.level import Level, spread_on
from sfumato.predictions import Estimate


@runtime_checkable
class LogProb(Protocol):
    """How well a picture is what is wished for: a log-probability or a reward, one number a row, (B,).

    It reads the estimate's x0, or its x and level, and is differentiated; row i must look at picture i alone.
    """

    def __call__(self, estimate: Estimate, /) -> Tensor: ...


@runtime_checkable
class ByRow(Protocol):
    """A log-probability that wishes something else of each picture (a class, a caption)."""

    def __call__(self, estimate: Estimate, /) -> Tensor: ...

    def take(self, rows: Sequence[int]) -> LogProb:
        """The same, for some rows of the batch."""
        ...


@dataclass(frozen=True)
class Steered:
    """x0 + scale sigma^2/alpha grad_x log_prob, that is, eps - scale sigma grad_x log_prob (Dhariwal & Nichol
    2021, algorithm 2): with log p(y | x) and scale 1 the conditional denoiser, by Bayes' rule.

    `through`: log_prob looks at the estimate's x0, and the gradient goes through the denoiser (Chung et al.
    2023, eq. 10; Bansal et al. 2023). Without, it looks at the noisy x and the level alone, which costs no
    backward pass of the denoiser.

    Nothing is steered at alpha = 0, where x tells nothing of the data; where the scale is 0 no gradient is
    taken. Parameters keep no gradient. One steering around another takes what the inner one adds as constant.
    """

    denoise: Denoiser
    log_prob: LogProb
    scale: Weight = 1.0
    through: bool = True

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        weight = weight_at(self.scale, level) * _reach(level)
        if not bool(weight.isfinite().all()):
            raise SettingsError("guidance by a gradient needs a finite scale at every level")
        if not bool((weight != 0).any()):
            return self.denoise(x, level, seen)
        estimate, slope = (self._through if self.through else self._beside)(x, level, seen)
        by = spread_on(weight, x)
        push = torch.where((by != 0).to(x.device), by * slope, torch.zeros_like(slope))
        return replace(Estimate.of(x, level, x0=estimate.x0 + push), spread=estimate.spread)

    def take(self, rows: Sequence[int]) -> Steered:
        wish = self.log_prob.take(rows) if isinstance(self.log_prob, ByRow) else self.log_prob
        return Steered(self.denoise.take(rows), wish, self.scale, self.through)

    def check(self, level: Level) -> None:
        self.denoise.check(level)

    def _through(self, x: Tensor, level: Level, seen: Estimate | None) -> tuple[Estimate, Tensor]:
        """The estimate, and the gradient that went through it. Who differentiates us in turn keeps the
        graph."""
        watched = torch.is_grad_enabled() and x.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x if watched else x.detach().clone().requires_grad_()
            estimate = self.denoise(leaf, level, seen)
            slope = _slope(self.log_prob(estimate), leaf, keep=watched)
        if watched:
            return estimate, slope
        spread = None if estimate.spread is None else estimate.spread.detach()
        return replace(Estimate.of(x, level, x0=estimate.x0.detach()), spread=spread), slope

    def _beside(self, x: Tensor, level: Level, seen: Estimate | None) -> tuple[Estimate, Tensor]:
        """The estimate, and the gradient with respect to x where all that was believed stays."""
        estimate = self.denoise(x, level, seen)
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            slope = _slope(self.log_prob(replace(estimate, x=leaf)), leaf, keep=False)
        return estimate, slope


def _reach(level: Level) -> Tensor:
    """sigma^2 / alpha, and 0 at alpha = 0."""
    none = torch.zeros_like(level.alpha)
    return torch.where(level.alpha > 0, level.sigma**2 / torch.where(level.alpha > 0, level.alpha, 1.0), none)


def _slope(log: Tensor, x: Tensor, keep: bool) -> Tensor:
    """The gradient of each row's number, with respect to its own picture; never into a parameter's .grad."""
    if log.shape != x.shape[:1]:
        raise SettingsError(
            f"log_prob must give one number a picture, ({len(x)},), not {tuple(log.shape)}: sum over the rest"
        )
    slope = None
    if log.requires_grad:
        (slope,) = torch.autograd.grad(log.sum(), x, retain_graph=keep, allow_unused=True)
    if slope is None:
        raise SettingsError(
            "log_prob does not depend on x by any gradient: let it read the estimate's x0 without detaching "
            "it, or, with through=False, its x"
        )
    return slope.detach()


def steered(denoise: Denoiser, log_prob: LogProb, scale: Weight = 1.0, *, through: bool = True) -> Steered:
    """A denoiser that follows the gradient of `log_prob`; see `Steered`."""
    return Steered(denoise, log_prob, scale, through)
