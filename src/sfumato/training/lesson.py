"""From samples of the stream to losses: every draw is a function of (run seed, position)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.denoiser import Condition
from sfumato.forward import noised
from sfumato.level import Level
from sfumato.model import Model
from sfumato.noise import Noise, streams
from sfumato.training.levels import Where
from sfumato.training.objectives import Objective, Trial


@dataclass(frozen=True)
class Lesson:
    """How a model is asked and judged. `null` is the class that means "not told", None without classes."""

    model: Model
    objective: Objective
    where: Where
    seed: int
    drop: float
    null: int | None
    precision: str
    device: torch.device

    def losses(self, images: Tensor, classes: Tensor | None, positions: Sequence[int]) -> Tensor:
        """The loss of each sample, (B,), float32 with gradient. images (B, C, H, W), classes (B,) or None."""
        level = self.where(self.model.schedule, positions, self.seed)
        eps = Noise.of(self.seed, "noise", places=positions).normal(images.shape[1:], "eps")
        told = self._told(classes, positions)
        with streams(Noise.of(self.seed, "dropout", places=positions)):
            return self.judge(images, eps, level, told)

    def judge(self, images: Tensor, eps: Tensor, level: Level, classes: Tensor | None) -> Tensor:
        """The loss of each sample at these levels with this noise, (B,)."""
        x0, eps = images.to(self.device), eps.to(self.device)
        cond: dict[str, Condition] = {} if classes is None else {"classes": classes.to(self.device)}
        x = noised(x0, eps, level)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            estimate = self.model(x, level, **cond)
        return self.objective(Trial(x0, eps, level, estimate, self.model.schedule))

    def _told(self, classes: Tensor | None, positions: Sequence[int]) -> Tensor | None:
        """The classes, some replaced by the null class (Ho & Salimans 2022)."""
        if classes is None or self.null is None:
            return None
        hidden = Noise.of(self.seed, "drop", places=positions).uniform((), "drop") < self.drop
        return torch.where(hidden, self.null, classes)
