"""Masks: 1 where a picture is drawn anew, 0 where it is kept, between where it is redrawn in part."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from sfumato.errors import SettingsError


def as_mask(mask: Tensor, picture: Tensor) -> Tensor:
    """A mask (H, W), (1, H, W) or (B, 1, H, W), bool or numbers from 0 to 1, for pictures (B, C, H, W):
    float32, (1 or B, 1, H, W). Raises SettingsError for another size, other numbers, or one that is 0
    everywhere."""
    found = mask.to(torch.float32)
    found = found.reshape(1, 1, *found.shape) if found.ndim == 2 else found
    found = found[None] if found.ndim == 3 else found
    fits = found.ndim == 4 and found.shape[1] == 1 and found.shape[2:] == picture.shape[2:]
    if not fits or found.shape[0] not in (1, len(picture)):
        raise SettingsError(
            f"a mask of shape {tuple(mask.shape)} for pictures of {picture.shape[3]} x {picture.shape[2]}: "
            "give one number a pixel, 1 where it is to be drawn anew"
        )
    if not bool(((found >= 0) & (found <= 1)).all()):
        raise SettingsError("a mask's numbers lie from 0, kept, to 1, drawn anew: divide by the largest")
    if not bool((found > 0).any()):
        raise SettingsError("the mask is 0 everywhere: nothing is to be drawn; white is drawn, black is kept")
    return found.to(picture.device)


def grown(mask: Tensor, pixels: int) -> Tensor:
    """A mask (..., H, W) that reaches `pixels` further on all sides, over an object's edge and its shadow."""
    if pixels < 0:
        raise SettingsError(f"a mask grown by {pixels} pixels: give 0 or more")
    flat = mask.reshape(1, -1, *mask.shape[-2:])
    return max_pool2d(flat, 2 * pixels + 1, stride=1, padding=pixels).reshape(mask.shape)


def feathered(mask: Tensor, pixels: int) -> Tensor:
    """A mask (..., H, W) with a soft rim: outside it falls from 1 to 0 over `pixels`, inside it stays. What
    the rim covers is redrawn the less the farther out it is; beyond, nothing changes."""
    if pixels < 0:
        raise SettingsError(f"a feather of {pixels} pixels: give 0 or more")
    soft = mask
    for _ in range(pixels):
        soft = torch.maximum(soft, grown(soft, 1) - 1 / (pixels + 1))
    return soft


def window(mask: Tensor, size: tuple[int, int], margin: float = 0.25) -> tuple[int, int, int, int]:
    """A box (top, left, height, width) around what is not 0 in a mask (H, W), with a margin of its own size
    on each side, in the shape of `size` and at least as large, within the picture.

    Raises SettingsError for a picture that is too small for that.
    """
    height, width = mask.shape
    rows, columns = (mask > 0).any(1).nonzero(), (mask > 0).any(0).nonzero()
    if len(rows) == 0:
        raise SettingsError("the mask is 0 everywhere: nothing is to be drawn; white is drawn, black is kept")
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    wanted = max((bottom - top) / size[0], (right - left) / size[1]) * (1 + 2 * margin)
    most = min(height / size[0], width / size[1])
    if most < 1:
        raise SettingsError(
            f"a picture of {width} x {height} has no room for the model's {size[1]} x {size[0]}: leave the "
            "crop out, and fit the picture instead"
        )
    scale = min(max(1.0, wanted), most)
    h, w = math.floor(size[0] * scale), math.floor(size[1] * scale)
    if not (h >= bottom - top and w >= right - left):
        raise SettingsError(
            f"the mask reaches over {right - left} x {bottom - top} pixels, more than the largest part of "
            "the picture in the model's shape: leave the crop out, or draw it in parts"
        )
    place = lambda low, high, side, whole: min(max(0, (low + high - side) // 2), whole - side)
    return place(top, bottom, h, height), place(left, right, w, width), h, w
