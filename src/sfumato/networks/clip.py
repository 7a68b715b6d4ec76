"""A small CLIP: a picture and its caption meet in one space (Radford et al. 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.networks.classifier import Classifier, ClassifierConfig
from sfumato.networks.text import TextConfig, TextTransformer

HOTTEST = 100.0
"""The largest factor of a cosine (Radford et al. 2021, section 2.5)."""


@dataclass(frozen=True)
class ClipConfig:
    """The settings of a pair of towers; `image.outputs` is the width of the space in which they meet."""

    text: TextConfig
    image: ClassifierConfig


class Clip(nn.Module):
    """pictures (B, C, H, W) and tokens (B, N) -> logits (B, B): factor x cosine of each picture and caption.

    The image tower is a `Classifier`; where it is told a noise level, it judges noisy pictures as well.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.text = TextTransformer(config.text)
        self.text_projection = nn.Linear(config.text.width, config.image.outputs, bias=False)
        self.image = Classifier(config.image)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        nn.init.normal_(self.text_projection.weight, std=config.text.width**-0.5)

    @property
    def factor(self) -> Tensor:
        """What a cosine is multiplied by: one over the learned temperature."""
        return self.logit_scale.exp().clamp(max=HOTTEST)

    def see(self, pictures: Tensor, label: Tensor | None = None) -> Tensor:
        """Pictures as points of length 1, (B, D); label (B,): how noisy they are, from 0 to 1000."""
        return F.normalize(self.image(pictures, label), dim=1)

    def read(self, tokens: Tensor) -> Tensor:
        """Captions as points of length 1, (B, D)."""
        return F.normalize(self.text_projection(self.text(tokens).pooled), dim=1)

    def forward(self, pictures: Tensor, tokens: Tensor, label: Tensor | None = None) -> Tensor:
        return self.factor * self.see(pictures, label) @ self.read(tokens).T


def clip_config(
    shape: tuple[int, int, int], vocabulary: int, length: int, end: int, told: bool = True
) -> ClipConfig:
    """Towers of about two million parameters for pictures (C, H, W) and captions of this tokenizer.

    The image tower halves its maps until the shorter side is below 16. told: noisy pictures too.
    """
    channels, height, width = shape
    halvings = max(0, min(5, round(math.log2(max(1, min(height, width)) / 8))))
    widths = (*(32 * 2**i for i in range(halvings)), 32 * 2**halvings)
    capped = tuple(min(128, width) for width in widths)
    image = ClassifierConfig(
        in_channels=channels,
        outputs=128,
        image_size=(height, width),
        channels=capped,
        head_channels=32,
        told=told,
    )
    text = TextConfig(vocabulary=vocabulary, width=128, layers=2, heads=4, length=length, end=end)
    return ClipConfig(text, image)
