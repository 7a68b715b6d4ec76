"""How a folder of transformers wants its pictures: the shorter side to a length, and the middle of that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from sfumato.conditions.clip import on_white
from sfumato.errors import ModelFileError
from sfumato.files import inside, read_json

FILTERS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers for those that are followed."""


@dataclass(frozen=True)
class Preparation:
    """The shorter side to `shorter`, rounded to whole numbers of 0 .. 255 as Pillow does, and the middle."""

    filter: str
    shorter: int
    side: int

    def __str__(self) -> str:
        crop = "" if self.shorter == self.side else f", the middle {self.side} x {self.side}"
        return f"{self.filter}, antialiased, the shorter side to {self.shorter}, 8 bits{crop}"

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> (B, 3, side, side) in [-1, 1]."""
        rgb = on_white(images)
        height, width = rgb.shape[2:]
        short = min(height, width)
        size = (int(self.shorter * height / short), int(self.shorter * width / short))
        if size != (height, width):
            rgb = F.interpolate(rgb, size, mode=self.filter, antialias=True, align_corners=False)
        whole = ((rgb.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
        top, left = (size[0] - self.side) // 2, (size[1] - self.side) // 2
        return whole[:, :, top : top + self.side, left : left + self.side]


def preparation(folder: Path, usual: Preparation) -> Preparation:
    """What preprocessor_config.json says, the `usual` where there is none. Raises ModelFileError for what is
    not followed."""
    if not (folder / "preprocessor_config.json").exists():
        return usual
    path = inside(folder, "preprocessor_config.json")
    said = read_json(path)
    if not isinstance(said, dict):
        raise ModelFileError(f"{path}: no table of settings: use another copy")
    shorter = _side(said.get("size", usual.shorter), "shortest_edge")
    side = _side(said.get("crop_size", usual.side), "height")
    kind = FILTERS.get(said.get("resample", 3))
    follows = all(said.get(step, True) is True for step in ("do_resize", "do_center_crop", "do_normalize"))
    if shorter is None or side is None or kind is None or not follows or side > shorter:
        raise ModelFileError(
            f"{path}: asks for another preparation than the shorter side to a length, bilinear or bicubic, "
            "and the middle of that: use a folder with the original one"
        )
    return Preparation(kind, shorter, side)


def _side(value: object, name: str) -> int | None:
    """A length that stands alone or in a table under this name."""
    length = value.get(name) if isinstance(value, dict) else value
    return length if type(length) is int and 1 <= length <= 4096 else None
