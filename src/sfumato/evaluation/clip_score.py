"""CLIP score: how well pictures go with their captions (Hessel et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.conditions.clip import FrozenClip, SmallClip
from sfumato.errors import SettingsError
from sfumato.evaluation.mean import Mean

WEIGHT = 100.0
"""Hessel et al. (2021, equation 1) multiply by w = 2.5; 100 is the custom since, also of torchmetrics."""
AT_ONCE = 64


def clip_scores(features: Tensor, captions: Sequence[str], pair: SmallClip | FrozenClip) -> Tensor:
    """100 max(cos(picture, caption), 0) of each picture, (n,) float32.

    features: (n, D), what the extractor of this same CLIP saw. An empty caption is none, and its picture is
    refused: it has no score. Raises SettingsError.
    """
    if len(features) != len(captions):
        raise SettingsError(f"{len(captions)} captions for {len(features)} pictures: give each one its own")
    if not all(text.strip() for text in captions):
        without = sum(not text.strip() for text in captions)
        raise SettingsError(
            f"{without} of {len(captions)} pictures have no caption, so no CLIP score: leave them out"
        )
    texts = sorted(set(captions))
    read: list[Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(texts), AT_ONCE):
            read.append(F.normalize(pair.read(texts[start : start + AT_ONCE]), dim=1).float().cpu())
    points = torch.cat(read) if read else torch.zeros(0, features.shape[1])
    if points.shape[1] != features.shape[1]:
        raise SettingsError(
            f"features of {features.shape[1]} numbers, captions of {points.shape[1]}: give both of one CLIP"
        )
    place = {text: i for i, text in enumerate(texts)}
    own = points[[place[text] for text in captions]]
    return WEIGHT * (F.normalize(features, dim=1) * own).sum(1).clamp(min=0)


def clip_score(features: Tensor, captions: Sequence[str], pair: SmallClip | FrozenClip) -> Mean:
    """The mean of `clip_scores` and its standard error over the pictures."""
    return Mean.of(clip_scores(features, captions, pair))
