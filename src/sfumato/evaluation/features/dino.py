"""What a DINOv2 sees (Oquab et al. 2023): the state of its class token, from a folder of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.conditions.clip import moments
from sfumato.conditions.foreign import WEIGHTS, check_whole, transformers_for
from sfumato.errors import ModelFileError
from sfumato.evaluation.features.prepared import Preparation, preparation
from sfumato.evaluation.features.seen import Features, Looking, weights_hash

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's pictures, from 0 to 1, as the published models expect."""
KINDS = ("dinov2", "dinov2_with_registers")


def dino(folder: Path, device: torch.device) -> Looking:
    """The extractor of a folder. Raises SettingsError where transformers is missing, ModelFileError."""
    with transformers_for(folder) as transformers:
        model, told = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, **WEIGHTS)
    kind = str(model.config.model_type)
    if kind not in KINDS:
        raise ModelFileError(f"{folder}: holds a model of the kind {kind!r}: give a folder of DINOv2")
    check_whole(folder, told)
    network: Any = model.to(device).eval().requires_grad_(False)
    prepare = preparation(folder, Preparation("bicubic", 256, 224))
    mean, std = (torch.tensor(three, device=device).view(1, 3, 1, 1) for three in moments(folder, MEAN, STD))

    def look(images: Tensor) -> Features:
        seen = (prepare(images) / 2 + 0.5 - mean) / std
        return Features(network(pixel_values=seen).last_hidden_state[:, 0])

    return Looking("dinov2", weights_hash(network), str(prepare), int(model.config.hidden_size), look, device)
