"""Training a small CLIP on captioned pictures: each picture finds its caption among those of its batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.conditions.clip import SmallClip
from sfumato.conditions.tokens import train_tokenizer
from sfumato.data.augment import Augment
from sfumato.data.batches import Batches
from sfumato.data.dataset import Batch, DataSet
from sfumato.errors import DataError, SettingsError
from sfumato.guidance.classifier import STEPS
from sfumato.level import Level, spread_on
from sfumato.networks.clip import Clip, clip_config
from sfumato.noise import Noise, seeded, streams
from sfumato.training.device import choose_device
from sfumato.training.optimisers import adamw, set_rate
from sfumato.training.pace import Budget, Pace

FEWEST = 16
"""Captions to train on, at least; fewer say nothing."""
_FAR = 1000
"""The most held-out pictures that are looked at."""


@dataclass(frozen=True)
class ClipSettings:
    """How a pair is trained; equal settings and data give equal pairs, bit for bit on one CPU with a budget
    in steps or images.

    noisy: the share of the pictures that are shown with noise, at any level; 0 makes a pair for clean
    pictures alone. Raises SettingsError.
    """

    seed: int = 0
    steps: int | None = None
    images: int | None = None
    minutes: float | int | None = None
    batch: int = 128
    lr: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.1
    clip: float = 1.0
    vocabulary: int = 2048
    noisy: float | int = 0.75
    flip: bool = False

    def __post_init__(self) -> None:
        _ = self.budget, Pace(self.lr, self.warmup)
        if self.batch < 2:
            raise SettingsError(f"--batch {self.batch}: a picture is told from others, so give at least 2")
        if not 0 <= self.noisy <= 1:
            raise SettingsError(f"--noisy is a share from 0 to 1, not {self.noisy}")

    @property
    def budget(self) -> Budget:
        minutes = None if self.minutes is None else float(self.minutes)
        return Budget(self.steps, self.images, minutes)


@dataclass(frozen=True)
class ClipStep:
    """What happened in one step: its number from 1, its loss, the share of its pictures that found their
    caption among those of the batch, and the part of the budget that is used up."""

    step: int
    loss: float
    found: float
    share: float


@dataclass(frozen=True)
class Recall:
    """The share of `pictures` held-out pictures whose caption is the nearest (`first`), or among the five
    nearest (`fifth`), of the `captions` different ones among them."""

    first: float
    fifth: float
    pictures: int
    captions: int


class ClipTraining:
    """A pair in training on the captioned pictures of a data set: iterate over `steps()`, then take `pair()`.

    Raises DataError where too few pictures have captions.
    """

    def __init__(
        self,
        data: DataSet,
        settings: ClipSettings,
        *,
        device: str = "auto",
        workers: int = 1,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.data, self.settings, self.stop, self.workers = captioned(data), settings, stop, workers
        self.device = choose_device(device)
        captions = [text for row in self.data.train.tolist() for text in _captions(self.data, row)]
        self.tokenizer = train_tokenizer(captions, settings.vocabulary)
        config = clip_config(
            self.data.shape,
            len(self.tokenizer),
            self.tokenizer.length,
            self.tokenizer.end_number,
            told=settings.noisy > 0,
        )
        with seeded(settings.seed, "clip"):
            self.network = Clip(config)
        self.network.to(self.device).train()
        self.done = 0

    def steps(self) -> Iterator[ClipStep]:
        """Trains until the budget is used up or `stop` says so. Raises DataError for pictures that cannot be
        read, SettingsError where the loss is no number any more."""
        s, began = self.settings, time.monotonic()
        pace, optimiser = Pace(s.lr, s.warmup), adamw(self.network.parameters(), s.lr, s.weight_decay)
        source = Batches(self.data, s.seed, Augment(flip=s.flip))
        size = min(s.batch, len(self.data))
        for batch in source.stream(0, size, workers=self.workers):
            share = s.budget.share(self.done, self.done * size, time.monotonic() - began)
            if share >= 1 or self.stop():
                return
            set_rate(optimiser, pace.rate(self.done, share))
            loss, found = self._loss(batch)
            told = float(loss.detach())
            if not math.isfinite(told):
                raise SettingsError(f"the loss of step {self.done + 1} is no number: lower --lr")
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), s.clip)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            self.done += 1
            yield ClipStep(self.done, told, found, share)

    def _loss(self, batch: Batch) -> tuple[Tensor, float]:
        captions = batch.captions or ()
        pictures, label = self._shown(batch)
        tokens = self.tokenizer.rows(captions).to(self.device)
        with streams(Noise.of(self.settings.seed, "clip", places=batch.positions)):
            logits = self.network(pictures, tokens, label)
        same = _same(captions).to(logits)
        return contrastive(logits, same), _found(logits, same)

    def _shown(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The pictures, some with noise, and how noisy they are: levels even in angle, by position."""
        images = batch.images.to(self.device)
        if not self.settings.noisy:
            return images, None
        noise = Noise.of(self.settings.seed, "clip", places=batch.positions)
        draws = noise.uniform((2,), "level").double()
        angle = draws[:, 0] * (draws[:, 1] < self.settings.noisy) * math.pi / 2
        level = Level(angle.cos(), angle.sin())
        eps = noise.normal(images.shape[1:], "eps").to(images)
        x = spread_on(level.alpha, images) * images + spread_on(level.sigma, images) * eps
        return x * spread_on(level.alpha, x), (angle * (2 * STEPS / math.pi)).to(images)

    def recall(self) -> Recall | None:
        """How well held-out pictures find their captions; None where none is held out."""
        held = self.data.held[:_FAR]
        if not len(held):
            return None
        texts = [_captions(self.data, row)[0] for row in held.tolist()]
        different = list(dict.fromkeys(texts))
        size = self.settings.batch
        self.network.eval()
        with torch.no_grad():
            pictures = (self.data.images(held[at : at + size]) for at in range(0, len(held), size))
            rows = (self.tokenizer.rows(different[at : at + size]) for at in range(0, len(different), size))
            seen = torch.cat([self.network.see(part.to(self.device)) for part in pictures])
            read = torch.cat([self.network.read(part.to(self.device)) for part in rows])
        self.network.train()
        cosines = seen @ read.T
        own = torch.tensor([different.index(text) for text in texts], device=cosines.device)
        above = (cosines > cosines.gather(1, own[:, None])).sum(dim=1)
        share = lambda k: float((above < k).double().mean())
        return Recall(share(1), share(5), len(held), len(different))

    def pair(self) -> SmallClip:
        """The pair as it is now, frozen, with what is to be known of it."""
        told = {name: value for name, value in asdict(self.settings).items() if value is not None}
        recall = self.recall()
        about = {
            "settings": told,
            "steps": self.done,
            "pictures": len(self.data),
            "fingerprint": self.data.fingerprint,
            "recall": None if recall is None else asdict(recall),
        }
        return SmallClip(self.network.eval().requires_grad_(False), self.tokenizer, about)


def contrastive(logits: Tensor, same: Tensor) -> Tensor:
    """InfoNCE both ways, the mean of pictures finding captions and captions finding pictures (van den Oord et
    al. 2018, eq. 4; Radford et al. 2021, figure 3).

    logits, same: (B, B); same is 1 where picture i has the caption of picture j. Equal captions in a batch
    are all right answers, of equal share (Yang et al. 2022, "Unified contrastive learning", eq. 3).
    """
    right = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def captioned(data: DataSet) -> DataSet:
    """The pictures that have a caption. Raises DataError where there are fewer than 16 to train on."""
    has = np.array([bool(texts) for texts in data.captions or ()], dtype=bool)
    if not has.any():
        raise DataError(
            f"{data.name} has no captions: put a text file beside each picture (cat.txt for cat.png), or a "
            "column `text` into metadata.csv"
        )
    found = replace(data, train=data.train[has[data.train]], held=data.held[has[data.held]])
    if len(found) < FEWEST:
        raise DataError(
            f"{data.name} has {len(found)} pictures with captions to train on: at least {FEWEST} are needed"
        )
    return found


def _captions(data: DataSet, row: int) -> tuple[str, ...]:
    return () if data.captions is None else data.captions[row]


def _same(captions: tuple[str, ...]) -> Tensor:
    """(B, B), 1 where two captions are equal."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(captions))}
    row = torch.tensor([numbers[text] for text in captions])
    return (row[:, None] == row).float()


def _found(logits: Tensor, same: Tensor) -> float:
    """The share of pictures whose nearest caption is right."""
    return float(same.gather(1, logits.detach().argmax(dim=1, keepdim=True)).mean())
