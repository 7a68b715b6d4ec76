"""Training a classifier that judges noisy pictures, for classifier guidance (Dhariwal & Nichol 2021, sec. 4).

Levels, noise and dropped activations are functions of (seed, position), as where diffusion models are
trained; so is the whole training, on one CPU, for a budget in steps or images.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.data.dataset import Batch
from sfumato.errors import SettingsError
from sfumato.forward import noised
from sfumato.guidance.classifier import logits
from sfumato.level import Level
from sfumato.networks import Classifier
from sfumato.noise import Noise, streams
from sfumato.schedules import Schedule
from sfumato.training.errors import TrainingError
from sfumato.training.levels import Stratified, Weighed, Where
from sfumato.training.optimisers import adamw, set_rate
from sfumato.training.pace import Budget, Pace
from sfumato.training.step import Stream, TrainStep, closable

LEVELS = 8
"""At how many levels held-out pictures are judged."""
_DRAWS = 4096


@dataclass(frozen=True)
class ClassifierSettings:
    """How a classifier is trained; exactly one of steps, images and minutes is given. Raises SettingsError.

    smoothing: the share of the target that is spread over all classes.
    """

    seed: int = 0
    steps: int | None = None
    images: int | None = None
    minutes: float | int | None = None
    batch: int = 64
    lr: float = 1e-3
    warmup: int = 50
    weight_decay: float | int = 0.05
    smoothing: float | int = 0.0
    clip: float | int = 1.0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise SettingsError(f"--batch must be at least 1, not {self.batch}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise SettingsError(f"--weight-decay must not be negative, not {self.weight_decay}")
        if not 0 <= self.smoothing < 1:
            raise SettingsError(f"--smoothing must be in [0, 1), not {self.smoothing}")
        if not self.clip > 0:
            raise SettingsError(f"--clip must be above 0, not {self.clip}")
        _ = self.budget, self.pace

    @property
    def budget(self) -> Budget:
        return Budget(self.steps, self.images, None if self.minutes is None else float(self.minutes))

    @property
    def pace(self) -> Pace:
        return Pace(self.lr, self.warmup)


@dataclass(frozen=True)
class Accuracy:
    """The share of held-out pictures that are judged rightly at each level, from clean to noisy."""

    log_snr: tuple[float, ...]
    right: tuple[float, ...]
    pictures: int


@dataclass(frozen=True)
class Schooling:
    """What a classifier is trained on: noisy pictures of a stream, at levels of a schedule."""

    network: Classifier
    schedule: Schedule
    settings: ClassifierSettings
    where: Where = Stratified()  # noqa: RUF009 (frozen)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def losses(self, images: Tensor, classes: Tensor, positions: Sequence[int]) -> Tensor:
        """The cross-entropy of each sample, (B,), with gradient; 0 where the class is not known, -1. images
        (B, C, H, W), classes (B,)."""
        seed = self.settings.seed
        level = _steady(self.where)(self.schedule, positions, seed)
        eps = Noise.of(seed, "noise", places=positions).normal(images.shape[1:], "eps")
        x = noised(images, eps, level).to(self.device)
        with streams(Noise.of(seed, "dropout", places=positions)):
            said = logits(self.network, x, level)
        smoothing = float(self.settings.smoothing)
        wanted = classes.to(self.device)
        return F.cross_entropy(said, wanted, reduction="none", ignore_index=-1, label_smoothing=smoothing)

    def steps(
        self, stream: Stream, *, stop: Callable[[], bool] = lambda: False, workers: int = 0
    ) -> Iterator[TrainStep]:
        """Trains the network in place until the budget is used up or `stop` says so.

        Raises TrainingError when a loss is not finite, and whatever the data raises.
        """
        settings, size = self.settings, self.settings.batch
        optimiser = adamw(self.network.parameters(), settings.lr, float(settings.weight_decay))
        began, done, share = time.monotonic(), 0, 0.0
        self.network.train()
        chunks = (range(at, at + size) for at in count(0, size))
        with closing(closable(stream.each(chunks, workers=workers))) as batches:
            while share < 1 and not stop():
                batch = next(batches)
                rate = settings.pace.rate(done, share)
                set_rate(optimiser, rate)
                loss = self.losses(batch.images, _classes(batch), batch.positions).mean()
                loss.backward()
                norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), float(settings.clip)))
                value = float(loss.detach())
                if not (math.isfinite(value) and math.isfinite(norm)):
                    raise TrainingError(f"the loss of step {done + 1} is not finite: choose a lower --lr")
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                done += 1
                seconds = time.monotonic() - began
                share = settings.budget.share(done, done * size, seconds)
                yield TrainStep(
                    done, done * size, value, norm, rate, seconds, share, last=share >= 1,
                    images_per_second=done * size / max(seconds, 1e-9),
                )  # fmt: skip
        self.network.eval()

    @torch.no_grad()
    def accuracy(self, pictures: Batch, batch: int = 256) -> Accuracy:
        """How many of these pictures whose class is known are judged rightly at the quantiles (i + 1/2) / 8
        of the training levels, always with the same noise; the network is as it was afterwards."""
        known = _classes(pictures) >= 0
        images, classes = pictures.images[known], _classes(pictures)[known]
        seed, was = self.settings.seed, self.network.training
        drawn = _steady(self.where)(self.schedule, range(_DRAWS), seed)
        order = torch.argsort(drawn.angle)
        at = order[[int((i + 0.5) * _DRAWS / LEVELS) for i in range(LEVELS)]]
        levels = Level(drawn.alpha[at], drawn.sigma[at])
        self.network.eval()
        right: list[float] = []
        for i in range(LEVELS):
            level, hits = Level(levels.alpha[i], levels.sigma[i]), 0
            for rows in torch.arange(len(images)).split(batch):
                eps = Noise.of(seed, "held-out", i, places=rows.tolist()).normal(images.shape[1:], "eps")
                said = logits(self.network, noised(images[rows], eps, level).to(self.device), level)
                hits += int((said.argmax(1).cpu() == classes[rows]).sum())
            right.append(hits / max(1, len(images)))
        self.network.train(was)
        return Accuracy(tuple(levels.log_snr.tolist()), tuple(right), len(images))


def _classes(batch: Batch) -> Tensor:
    if batch.classes is None:
        raise SettingsError("a classifier learns from pictures with classes, and these have none")
    return batch.classes


def _steady(where: Where) -> Where:
    """Levels that follow a model's losses mean nothing here; what they stand for does."""
    return where.even if isinstance(where, Weighed) else where
