"""A perceptual term: the estimate of x0 beside the picture, in the features of a frozen network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.grids import ends
from sfumato.level import Level, spread_on
from sfumato.model import Model
from sfumato.training.objectives import Addable, Trial


def signal(level: Level, losses: Tensor) -> Tensor:
    """alpha^2 / (alpha^2 + sigma^2) for losses (B,): how much an estimate at this level can be held to what
    it looks like."""
    return spread_on((level.alpha / level.norm) ** 2, losses)


@dataclass(frozen=True, eq=False)
class Perceptual(Addable):
    """mean |f(x0 estimate) - f(x0)|^2 over the feature maps f of a network, each position's channels scaled
    to length 1 (Zhang et al. 2018, "The unreasonable effectiveness of deep features", eq. 1, all channels
    alike).

    features: images (B, C, H, W) in the data's range -> a map (B, D, ...) or several; its parameters are
    frozen here. Weighed by `signal`, so that levels that say nothing of the picture are not asked to look
    like it.
    """

    features: nn.Module

    def __post_init__(self) -> None:
        self.features.requires_grad_(False).eval()

    def __call__(self, trial: Trial) -> Tensor:
        with torch.no_grad():
            wanted = self._maps(trial.x0)
        said = self._maps(trial.estimate.x0)
        apart = [(a - b).square().sum(1).flatten(1).mean(1) for a, b in zip(said, wanted, strict=True)]
        loss = torch.stack(apart).mean(0)
        return signal(trial.level, loss) * loss

    def _maps(self, x: Tensor) -> list[Tensor]:
        """Every map with at least one axis behind its channels, of unit length along them."""
        found: Tensor | Sequence[Tensor] = self.features(x)
        maps = [found] if isinstance(found, Tensor) else list(found)
        return [nn.functional.normalize(m.reshape(*m.shape[:2], -1), dim=1) for m in maps]

    def check(self, model: Model) -> None:
        self.features.to(next(model.parameters()).device)
        model.check(ends(model.schedule))
