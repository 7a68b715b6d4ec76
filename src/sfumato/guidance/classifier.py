"""Classifier guidance: a classifier that judges noisy pictures, at any level of any curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.guidance.scales import Weight
from sfumato.guidance.steer import Steered
from sfumato.level import Level, spread_on
from sfumato.predictions import Estimate

STEPS = 1000
"""The label of pure noise; clean data has 0."""


@runtime_checkable
class NoisyClassifier(Protocol):
    """Noisy pictures (B, C, H, W) as `logits` shows them, and labels of their noise (B,) -> (B, classes)."""

    def __call__(self, x: Tensor, label: Tensor, /) -> Tensor: ...


def logits(judge: NoisyClassifier, x: Tensor, level: Level) -> Tensor:
    """What a judge says of x at a level, (B, K), in x's type.

    It is shown alpha x / (alpha^2 + sigma^2), what x says of x0 by itself, and told the level's angle, from 0
    for clean data to 1000 for pure noise: the same whatever the curve's scale, and exact at both ends. Where
    alpha vanishes so does what is shown, and with it the gradient, as that of the true log p(class | x) does;
    a judge of x / sigma would have one there, and steering would magnify it by sigma^2 / alpha.
    """
    told = (level.angle * (2 * STEPS / math.pi)).to(x.device, torch.float32).expand(len(x))
    return judge(x * spread_on(level.alpha / level.norm**2, x), told).to(x.dtype)


@dataclass(frozen=True)
class LogClass:
    """log p(class | x, level), (B,), by a judge: what `Steered` follows, with through=False.

    classes: (B,) int64, on the judge's device; a negative one asks for nothing.
    """

    judge: NoisyClassifier
    classes: Tensor

    def __call__(self, estimate: Estimate) -> Tensor:
        log = torch.log_softmax(logits(self.judge, estimate.x, estimate.level), dim=1)
        picked = log.gather(1, self.classes.clamp(min=0)[:, None])[:, 0]
        return torch.where(self.classes >= 0, picked, torch.zeros_like(picked))

    def take(self, rows: Sequence[int]) -> LogClass:
        index = torch.tensor(list(rows), dtype=torch.long, device=self.classes.device)
        return LogClass(self.judge, self.classes[index])


def classifier_guided(
    denoise: Denoiser, judge: NoisyClassifier, classes: Tensor, scale: Weight = 1.0
) -> Steered:
    """A denoiser, conditional or not, that a judge pulls towards classes, (B,) int64 (Dhariwal & Nichol
    2021): scale 1 is Bayes' rule, more sharpens p(class | x)."""
    return Steered(denoise, LogClass(judge, classes), scale, through=False)
