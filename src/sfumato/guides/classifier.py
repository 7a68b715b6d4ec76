"""Classifier guidance as part of a recipe: whose classifier judges, towards which classes, how strongly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sfumato.conditions.classes import Asked, Classes
from sfumato.denoiser import Denoiser
from sfumato.errors import RunError, SettingsError
from sfumato.folders.classifier import WEIGHTS, StoredClassifier, open_classifier
from sfumato.guidance.classifier import classifier_guided
from sfumato.guidance.scales import between
from sfumato.guides.opened import kept, unchanged


@dataclass(frozen=True)
class Judged:
    """The classifier of a run, by the hash of its file, and its class for each picture of the recipe; None
    asks for nothing. `scale` 1 is Bayes' rule, as far as the classifier is right."""

    run: Path
    sha256: str
    classes: tuple[int | None, ...]
    names: tuple[str | None, ...]
    """Of these classes."""
    scale: float

    def take(self, rows: Sequence[int]) -> Judged:
        """That of some of the pictures."""
        classes = tuple(self.classes[row] for row in rows)
        return replace(self, classes=classes, names=tuple(self.names[row] for row in rows))

    def on(
        self, denoise: Denoiser, device: torch.device, interval: tuple[float, float] | None = None
    ) -> Denoiser:
        """The denoiser, pulled towards the classes, on this interval of sigma/alpha. Raises RunError where
        the classifier is gone or is another."""
        rows = [-1 if one is None else one for one in self.classes]
        scale = self.scale if interval is None else between(self.scale, *interval, outside=0.0)
        judge = opened(self.run, device)
        unchanged(self.run, "classifier", judge.sha256, self.sha256)
        return classifier_guided(denoise, judge.network, torch.tensor(rows, device=device), scale)


def judged(
    run: Path, asked: Sequence[Asked | None], scale: float | int, shape: tuple[int, int, int]
) -> Judged:
    """Classifier guidance of pictures (C, H, W) by a run's classifier, judged before anything is drawn.

    Raises SettingsError for a scale that is not finite, for no class at all and for one that it does not know
    (with the nearest), RunError for a run without a classifier or with one of other pictures.
    """
    if not math.isfinite(scale):
        raise SettingsError(f"classifier guidance {scale}: give a finite number (0 is none)")
    stored = opened(run, torch.device("cpu"))
    if all(one is None for one in asked):
        listed = ", ".join(stored.card.classes[:5]) + (", ..." if len(stored.card.classes) > 5 else "")
        raise SettingsError(f"classifier guidance needs a class to go to: ask for classes ({listed})")
    if stored.card.image.shape != shape:
        size = "{} channels of {} x {}".format(*stored.card.image.shape)
        raise RunError(f"{run}: its classifier judges pictures of {size}: train it again for this model")
    known = Classes(stored.card.classes, null=True)
    rows = tuple(None if one is None else known.find(one) for one in asked)
    names = tuple(None if row is None else known.names[row] for row in rows)
    return Judged(run, stored.sha256, rows, names, float(scale))


def names_of(run: Path) -> tuple[str, ...]:
    """The classes that a run's classifier knows. Raises RunError for a run without one."""
    return opened(run, torch.device("cpu")).card.classes


@kept(WEIGHTS)
def opened(run: Path, device: torch.device) -> StoredClassifier:
    """The classifier of a run. Raises RunError."""
    stored = open_classifier(run)
    stored.network.to(device)
    return stored
