"""From samples of the stream to losses: every draw is a function of (run seed, position)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.data.dataset import Batch
from sfumato.denoiser import Condition
from sfumato.forward import noised
from sfumato.level import Level
from sfumato.model import Model
from sfumato.noise import Noise, streams
from sfumato.predictions import Estimate
from sfumato.training.companion import Companion, settled
from sfumato.training.levels import Weighed, Where
from sfumato.training.objectives import Objective, Trial
from sfumato.training.telling import Telling


class Marks(NamedTuple):
    """What a part of a batch gave: the model's losses, (B,), and the sum of what its companions lost."""

    losses: Tensor
    beside: Tensor | None


@dataclass(frozen=True)
class Lesson:
    """How a model is asked and judged. `telling` says what it is told of its samples, a share `drop` of which
    it is told nothing of."""

    model: Model
    objective: Objective
    where: Where
    seed: int
    drop: float
    precision: str
    device: torch.device
    companions: tuple[Companion, ...] = ()
    telling: Telling = field(default_factory=Telling)

    def told(self, batch: Batch) -> dict[str, Tensor]:
        """Everything that is known of these samples, one row a picture, as the model takes it."""
        return self.telling.told(batch, self.seed)

    def losses(self, images: Tensor, cond: Mapping[str, Tensor], positions: Sequence[int]) -> Tensor:
        """The loss of each sample, (B,), float32 with gradient. images (B, C, H, W); cond as `told`."""
        return self._judged(images, cond, positions)[1]

    def marks(
        self, images: Tensor, cond: Mapping[str, Tensor], positions: Sequence[int], first: int
    ) -> Marks:
        """The same with all companions watching; `first` is the position of the step's first sample."""
        trial, losses = self._judged(images, cond, positions)
        places = [position - first for position in positions]
        beside: Tensor | None = None
        for companion in self.companions:
            own = companion.watch(trial, losses.detach(), places)
            if own is not None:
                beside = own.sum() if beside is None else beside + own.sum()
        if isinstance(self.where, Weighed):
            losses = losses * self.where.weights(self.model.schedule, trial.level).to(losses)
        return Marks(losses, beside)

    def _judged(
        self, images: Tensor, cond: Mapping[str, Tensor], positions: Sequence[int]
    ) -> tuple[Trial, Tensor]:
        level = self.where(self.model.schedule, positions, self.seed)
        eps = Noise.of(self.seed, "noise", places=positions).normal(images.shape[1:], "eps")
        told = self.telling.hidden(cond, self.drop, positions, self.seed)
        shown: Tensor | None = None
        if self.model.self_conditioned:
            chance = Noise.of(self.seed, "self-conditioning", places=positions).uniform((), "shown")
            shown = chance < 0.5
        with streams(Noise.of(self.seed, "dropout", places=positions)):
            trial = self._ask(images, eps, level, told, shown)
        return trial, self.objective(trial)

    def judge(self, images: Tensor, eps: Tensor, level: Level, cond: Mapping[str, Tensor]) -> Tensor:
        """The loss of each sample at these levels with this noise, (B,), for held-out pictures: without terms
        that move while they measure. A self-conditioned model is shown its own estimate, as it is when it
        samples."""
        shown = torch.ones(len(images), dtype=torch.bool) if self.model.self_conditioned else None
        trial = self._ask(images, eps, level, cond, shown)
        return settled(self.objective)(trial)

    def _ask(
        self, images: Tensor, eps: Tensor, level: Level, told: Mapping[str, Tensor], shown: Tensor | None
    ) -> Trial:
        x0, eps = images.to(self.device), eps.to(self.device)
        cond: dict[str, Condition] = {name: value.to(self.device) for name, value in told.items()}
        x = noised(x0, eps, level)
        seen: Estimate | None = None
        if shown is not None:
            with self._cast():
                seen = self._guess(x, level, cond, shown)
        with self._cast():  # anew: what one casts without gradient, it keeps without gradient
            estimate = self.model(x, level, seen, **cond)
        return Trial(x0, eps, level, estimate, self.model.schedule, cond)

    def _cast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _guess(self, x: Tensor, level: Level, cond: dict[str, Condition], shown: Tensor) -> Estimate:
        """What the model says of the rows that are `shown` it, without gradient; 0 for the others, as for a
        model that has seen nothing yet (Chen et al. 2023, "Analog bits", section 3.2 and algorithm 1)."""
        with torch.no_grad():
            first: Estimate = self.model(x, level, None, **cond)
            keep = shown.to(x.device).reshape(-1, *([1] * (x.ndim - 1)))
            return Estimate.of(x, level, x0=torch.where(keep, first.x0, torch.zeros_like(x)))
