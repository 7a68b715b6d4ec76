"""The noise of a picture as a file: what an inversion found, for other edits to start from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from sfumato.errors import ModelFileError
from sfumato.files import read_tensors, write_tensors

ENDING = ".safetensors"


def write_noise(path: Path, noise: Tensor, about: Mapping[str, object]) -> None:
    """Writes noise (C, H, W) on the scale of unit variance, and what it was found by, as safetensors."""
    write_tensors(path, {"noise": noise.float()}, {"about": json.dumps(dict(about))})


def read_noise(path: Path) -> Tensor:
    """The noise (C, H, W), float32, of a file that `write_noise` wrote. Raises ModelFileError for any
    other."""
    noise = read_tensors(path)[0].get("noise")
    if noise is None or noise.ndim != 3 or not noise.is_floating_point() or not bool(noise.isfinite().all()):
        raise ModelFileError(f"{path}: holds no noise of a picture: make one with sfumato edit invert")
    return noise.float()
