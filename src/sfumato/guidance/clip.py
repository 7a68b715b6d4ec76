"""CLIP guidance: a pair of towers that says how well a picture fits a caption (Nichol et al. 2022, "GLIDE",
section 2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.guidance.classifier import logits
from sfumato.guidance.scales import Weight
from sfumato.guidance.steer import Steered
from sfumato.predictions import Estimate

_PLASTIC = 1.32471795724474602596
"""The root of x^3 = x + 1: its powers spread points evenly over a square (Roberts 2018, "R2")."""


@runtime_checkable
class Pair(Protocol):
    """An image tower and a text tower: any CLIP."""

    @property
    def noisy(self) -> bool:
        """Whether it judges noisy pictures when told how noisy they are."""
        ...

    @property
    def factor(self) -> float:
        """What cosines are multiplied by to be log-probabilities."""
        ...

    def see(self, pictures: Tensor, label: Tensor | None = None) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] as points of length 1, (B, D)."""
        ...

    def read(self, texts: Sequence[str]) -> Tensor:
        """Captions as points of length 1, (B, D)."""
        ...


@dataclass(frozen=True)
class LogClip:
    """factor x cosine(picture, caption), (B,): log p(caption | picture) up to a constant of the caption.

    That is what a pair trained by InfoNCE tends to (van den Oord et al. 2018, section 2.3), so with scale 1
    steering by it is Bayes' rule. wanted: (B, D), the captions; zeros ask for nothing. `through`: the
    estimate's x0 is looked at; otherwise the noisy x, by a pair that knows noise. cutouts: how many crops of
    x0 are looked at beside the whole, so that no detail alone is worth much.
    """

    pair: Pair
    wanted: Tensor
    through: bool = True
    cutouts: int = 0

    def __call__(self, estimate: Estimate) -> Tensor:
        if not self.through:
            seen = logits(self.pair.see, estimate.x, estimate.level)
            return self.pair.factor * (seen * self.wanted.to(seen)).sum(1)
        views = [estimate.x0, *(cutout(estimate.x0, number) for number in range(self.cutouts))]
        seen = [self.pair.see(view) for view in views]
        return self.pair.factor * torch.stack([(v * self.wanted.to(v)).sum(1) for v in seen]).mean(0)

    def take(self, rows: Sequence[int]) -> LogClip:
        index = torch.tensor(list(rows), dtype=torch.long, device=self.wanted.device)
        return LogClip(self.pair, self.wanted[index], self.through, self.cutouts)


def clip_log_prob(
    pair: Pair, texts: Sequence[str], *, through: bool | None = None, cutouts: int = 0
) -> LogClip:
    """What `Steered` follows towards these captions, one a picture; "" asks for nothing.

    through: whether x0 is looked at, with a gradient through the denoiser; if not given, only where the pair
    knows clean pictures alone. Raises SettingsError where the two do not go together.
    """
    chosen = (not pair.noisy or cutouts > 0) if through is None else through
    if not chosen and not pair.noisy:
        raise SettingsError("this CLIP knows clean pictures alone: let it look at x0 (through=True)")
    if cutouts < 0 or (cutouts and not chosen):
        raise SettingsError(f"cutouts are crops of x0, 0 or more, not {cutouts} of a noisy picture")
    with torch.no_grad():
        told = torch.tensor([bool(text.strip()) for text in texts])
        read = pair.read(texts)
        wanted = read * told.to(read)[:, None]
    return LogClip(pair, wanted, chosen, cutouts)


def clip_guided(
    denoise: Denoiser,
    pair: Pair,
    texts: Sequence[str],
    scale: Weight = 1.0,
    *,
    through: bool | None = None,
    cutouts: int = 0,
) -> Steered:
    """A denoiser, told the captions or not, that a pair pulls towards them; see `LogClip`."""
    wish = clip_log_prob(pair, texts, through=through, cutouts=cutouts)
    return Steered(denoise, wish, scale, wish.through)


def cutout(pictures: Tensor, number: int) -> Tensor:
    """Crop `number` of (B, C, H, W), at full size again: its side is 1/2 to 9/10, its place anywhere.

    Sides and places are the first points of an even sequence, the same for every picture and every step.
    """
    u, v, s = (((number + 1) / _PLASTIC**power) % 1 for power in (1, 2, 3))
    height, width = pictures.shape[2:]
    side = 0.5 + 0.4 * s
    h, w = max(1, round(side * height)), max(1, round(side * width))
    top, left = round(u * (height - h)), round(v * (width - w))
    crop = pictures[:, :, top : top + h, left : left + w]
    return F.interpolate(crop, (height, width), mode="bilinear", align_corners=False, antialias=True)
