"""What a CLIP sees, before it is brought to length 1: a pretrained one, or one of `sfumato train-clip`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sfumato.conditions.clip import FrozenClip, SmallClip, open_clip
from sfumato.evaluation.features.prepared import Preparation, preparation
from sfumato.evaluation.features.seen import Features, Looking, weights_hash


def clip(folder: Path, device: torch.device) -> Looking:
    """The extractor of a folder. Raises SettingsError where transformers is missing, ModelFileError."""
    pair = open_clip(folder, device)
    return _small(pair, device) if isinstance(pair, SmallClip) else _frozen(pair, folder, device)


def _frozen(pair: FrozenClip, folder: Path, device: torch.device) -> Looking:
    prepare = preparation(folder, Preparation("bicubic", pair.side, pair.side))

    def look(images: Tensor) -> Features:
        return Features(pair.features(prepare(images)))

    return Looking("clip", weights_hash(pair.network), str(prepare), pair.width, look, device)


def _small(pair: SmallClip, device: torch.device) -> Looking:
    config = pair.network.config.image
    height, width = config.image_size or (0, 0)

    def look(images: Tensor) -> Features:
        return Features(pair.features(images))

    words = f"bicubic, antialiased, to {width} x {height}"
    return Looking("clip", weights_hash(pair.network), words, config.outputs, look, device)
