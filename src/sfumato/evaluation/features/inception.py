"""Inception-v3 in the FID variant, with the weights that a user gives: the figures of the literature.

How pictures reach 299 x 299 changes the figures as much as a year of research does (Parmar et al. 2022), so
each way has a name of its own:

inception               bilinear, without antialiasing, as pytorch-fid does
inception-tensorflow    bilinear from the corner, as Heusel et al. (2017) and torch-fidelity do
inception-torchmetrics  bilinear, antialiased, as torchmetrics does unless it is told not to
inception-clean         bicubic, antialiased, unrounded, as clean-fid does
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.conditions.clip import on_white
from sfumato.data.cache import default_root
from sfumato.errors import SettingsError
from sfumato.evaluation.features.seen import Features, Looking, check_name, filled, weights_hash
from sfumato.files.torch_file import read_weights
from sfumato.networks.inception import SIDE, WIDTH, Inception

NAMES = (
    "pt_inception-2015-12-05-6726825d.pth",
    "weights-inception-2015-12-05-6726825d.pth",
    "inception-2015-12-05.safetensors",
)
"""Files of these weights: pytorch-fid's, torch-fidelity's (the same), and converted ones."""
ADDRESS = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
_FIRST = "Conv2d_1a_3x3.conv.weight"
_BLOCKS = (
    ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
    ("Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)
"""What pytorch-fid's own module calls blocks.0.0, blocks.0.1, ..."""


def folders() -> tuple[Path, ...]:
    """Where the weights are looked for: torch's own folder of downloads, and one of ours."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    torch_home = Path(os.environ.get("TORCH_HOME") or Path(home) / "torch").expanduser()
    return torch_home / "hub" / "checkpoints", default_root() / "weights"


def weights_file() -> Path:
    """The weights in one of `folders`. Raises SettingsError, which says where to get them, where none are."""
    for folder in folders():
        for name in NAMES:
            if (folder / name).is_file():
                return folder / name
    raise SettingsError(
        f"the weights of Inception are not on this machine: fetch {ADDRESS}{NAMES[0]} and put it into "
        f"{folders()[0]}, or give its path (--features-weights); lite0 works without"
    )


def key_map(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the published names: from those of pytorch-fid's module (blocks.0.0 ...), and from any
    module that holds the network under a name ("inception.Conv2d_1a_3x3 ...", as torchmetrics does)."""
    ours = {f"blocks.{i}.{j}.": f"{name}." for i, names in enumerate(_BLOCKS) for j, name in enumerate(names)}
    first = next((name for name in tensors if name.endswith((_FIRST, "blocks.0.0.conv.weight"))), "")
    before = first.removesuffix(_FIRST).removesuffix("blocks.0.0.conv.weight")
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(before):
            inner = name.removeprefix(before)
            block = ".".join(inner.split(".")[:3]) + "."
            found[inner.replace(block, ours[block], 1) if block in ours else inner] = tensor
    return found


def _tensorflow(side: int) -> Tensor:
    """(299, side): what each place of the result takes of each place of a row, floor(i side / 299) and the
    next, as TensorFlow 1 resizes."""
    at = torch.arange(SIDE, dtype=torch.float64) * (side / SIDE)
    low = at.floor().long().clamp(max=side - 1)
    high = (low + 1).clamp(max=side - 1)
    part = (at - low)[:, None]
    eye = torch.eye(side, dtype=torch.float64)
    return eye[low] * (1 - part) + eye[high] * part


def bilinear(images: Tensor) -> Tensor:
    """To 299 x 299 as pytorch-fid does: bilinear between pixel centres, without antialiasing."""
    return F.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False)


def corner(images: Tensor) -> Tensor:
    """To 299 x 299 as TensorFlow 1 does: bilinear from the upper left corner, and (x - 128) / 128."""
    down, right = (_tensorflow(side).to(images) for side in images.shape[2:])
    return (down @ images @ right.T * 127.5 - 0.5) / 128


def smooth(images: Tensor) -> Tensor:
    """To 299 x 299 as torchmetrics does: bilinear, antialiased, and (x - 128) / 128."""
    pixels = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return (pixels * 127.5 - 0.5) / 128


def clean(images: Tensor) -> Tensor:
    """To 299 x 299 as clean-fid does: Pillow's bicubic on unrounded numbers, and (x - 128) / 128."""
    pixels = F.interpolate(images, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)
    return (pixels.clamp(-1, 1) * 127.5 - 0.5) / 128


RESIZES: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "inception": (f"bilinear, not antialiased, to {SIDE} x {SIDE} (pytorch-fid)", bilinear),
    "inception-tensorflow": (f"bilinear from the corner, to {SIDE} x {SIDE} (TensorFlow 1)", corner),
    "inception-torchmetrics": (f"bilinear, antialiased, to {SIDE} x {SIDE} (torchmetrics)", smooth),
    "inception-clean": (f"bicubic, antialiased, to {SIDE} x {SIDE} (clean-fid)", clean),
}


def inception(name: str, weights: Path | None, device: torch.device) -> Looking:
    """The extractor of this name. Raises SettingsError where there are no weights, ModelFileError."""
    path = weights_file() if weights is None else weights
    check_name(path)
    tensors = key_map(read_weights(path))
    network = filled(partial(Inception, "fc.weight" in tensors), tensors, path, device)
    words, resize = RESIZES[name]

    def look(images: Tensor) -> Features:
        prepared = resize(on_white(images)).contiguous(memory_format=torch.channels_last)
        return Features(*network(prepared))

    return Looking(name, weights_hash(network), words, WIDTH, look, device)
