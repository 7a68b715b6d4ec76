"""Auto-guidance as part of a recipe: away from a weaker run that is told the same (Karras et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfumato.card import Card
from sfumato.conditions.schema import Wish
from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.folders.run import Stored, open_folder
from sfumato.guidance.mix import Mix, mix
from sfumato.guidance.scales import Weight, added, between
from sfumato.guides.opened import kept, unchanged


@dataclass(frozen=True)
class Weaker:
    """A run by its folder, which of its weights, and their hash; scale 1 is no guidance."""

    run: Path
    weights: str
    sha256: str
    scale: float

    def told(self, wishes: Sequence[Wish], picture: Tensor | None, device: torch.device) -> Denoiser:
        """What the weaker run's model is told of the same wishes, and shown of the same picture. Raises
        RunError where the run is gone or is another."""
        stored = opened(self.run, device, self.weights)
        unchanged(self.run, "model", stored.sha256, self.sha256)
        rows = stored.card.conditions(stored.text).rows(wishes, picture)
        return stored.model.given(**{name: value.to(device) for name, value in rows.items()})

    def on(
        self,
        guided: Denoiser,
        told: Denoiser,
        weak: Denoiser,
        interval: tuple[float, float] | None = None,
    ) -> Mix:
        """guided + (scale - 1) (told - weak), on this interval of sigma/alpha: `told` and `weak` are what the
        model and the weaker one believe under the same conditions, `guided` is the model's own guidance."""
        scale: Weight = self.scale if interval is None else between(self.scale, *interval)
        further, back = added((1, scale), (-1, 1)), added((1, 1), (-1, scale))
        return mix([(guided, 1.0), (told, further), (weak, back)])


def weaker(run: Path | str, scale: float | int, card: Card, weights: str = "ema") -> Weaker:
    """Auto-guidance of a model by another run, judged before anything is drawn.

    Raises SettingsError for a scale that is not finite and for a run that draws other pictures or is told
    other things, RunError for a folder that is no run.
    """
    if not math.isfinite(scale):
        raise SettingsError(f"auto-guidance {scale}: give a finite number (1 is none)")
    found = opened(Path(run), torch.device("cpu"), weights)
    if found.card.image.shape != card.image.shape:
        sizes = ("{} channels of {} x {}".format(*one.image.shape) for one in (found.card, card))
        raise SettingsError("{}: draws {}, and the model {}".format(run, *sizes))
    told = lambda one: (one.classes, one.attributes, one.picture, one.text is None)
    if told(found.card) != told(card):
        raise SettingsError(
            f"{run}: is told other conditions than the model: give an earlier or smaller run of the same kind"
        )
    return Weaker(Path(run), weights, found.sha256, float(scale))


@kept("*/*.safetensors", most=2)
def opened(run: Path, device: torch.device, weights: str) -> Stored:
    """The weaker run. Raises RunError."""
    stored = open_folder(run, weights)
    stored.model.to(device)
    return stored
