"""The held-out pictures: their loss per noise level, always with the same noise at the same levels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sfumato.level import Level
from sfumato.model import Model
from sfumato.noise import Noise
from sfumato.training.lesson import Lesson
from sfumato.training.levels import Weighed, Where

BUCKETS = 8
_DRAWS = 4096


@dataclass(frozen=True)
class Validation:
    """The mean held-out loss, and that at each of the levels (log-SNR falling); all finite or the look is
    void."""

    loss: float
    per_level: tuple[float, ...]
    log_snr: tuple[float, ...]


def buckets(model: Model, where: Where, seed: int, count: int = BUCKETS) -> Level:
    """(count,) levels: the quantiles (i + 1/2) / count of the training levels, from clean to noisy."""
    steady = where.even if isinstance(where, Weighed) else where
    level = steady(model.schedule, range(_DRAWS), seed)
    order = torch.argsort(level.angle)
    at = order[[int((i + 0.5) * _DRAWS / count) for i in range(count)]]
    return Level(level.alpha[at], level.sigma[at])


@dataclass(frozen=True)
class HeldOut:
    """Pictures that are never trained on, (N, C, H, W), and what is known of them (`Lesson.told`), N rows
    each."""

    images: Tensor
    cond: Mapping[str, Tensor] = field(default_factory=dict)

    def look(self, lesson: Lesson, batch: int, most: int = 512) -> Validation:
        """The losses now. At most `most` pairs of picture and level, spread evenly over both; the network is
        in evaluation mode inside and as it was afterwards."""
        levels = buckets(lesson.model, lesson.where, lesson.seed)
        count = len(levels.alpha)
        pairs = min(len(self.images) * count, max(most, count))
        rows = torch.arange(pairs) % len(self.images)
        at = (torch.arange(pairs) // len(self.images) + rows) % count
        noise = Noise.of(lesson.seed, "held-out", places=range(pairs))
        was = lesson.model.training
        lesson.model.eval()
        losses = torch.empty(pairs, dtype=torch.float64)
        with torch.no_grad():
            for part in torch.arange(pairs).split(batch):
                images, level = self.images[rows[part]], Level(levels.alpha[at[part]], levels.sigma[at[part]])
                eps = noise.take(part.tolist()).normal(images.shape[1:], "eps")
                told = {name: value[rows[part]] for name, value in self.cond.items()}
                losses[part] = lesson.judge(images, eps, level, told).cpu().double()
        lesson.model.train(was)
        per_level = tuple(float(losses[at == i].mean()) for i in range(count))
        return Validation(sum(per_level) / count, per_level, tuple(levels.log_snr.tolist()))


@dataclass
class Trend:
    """How the held-out loss went: the best look so far, how many looks since, and whether it rises."""

    best: float | None = None
    best_step: int = 0
    since: int = 0
    told: bool = False

    def see(self, step: int, loss: float) -> None:
        """Takes in a look. Three looks or more above the best and now by more than 1 % is a rise: the model
        learns its pictures by heart. A loss that is not finite is never the best."""
        if math.isfinite(loss) and (self.best is None or loss < self.best):
            self.best, self.best_step, self.since, self.told = loss, step, 0, False
            return
        self.since += 1
        self.told = self.told or (self.since >= 3 and self.best is not None and loss > 1.01 * self.best)
