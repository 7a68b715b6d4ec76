"""From a decoded picture to the size and channels of the data set: all resizing and compositing is here."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
from PIL import Image

Resize = Literal["crop", "stretch", "pad"]
"""How another shape is met: cut at the sides, pull out of shape, or add a border."""


def plain(a: np.ndarray) -> np.ndarray:
    """The same picture without needless channels: an opaque alpha and equal red, green and blue are dropped.

    (H, W, C) with C of 1 to 4 becomes 1 (grey), 2 (grey, transparent), 3 or 4. Two files of one picture
    agree here.
    """
    if a.shape[2] in (2, 4) and bool((a[..., -1] == _full(a)).all()):
        a = a[..., :-1]
    colours = a.shape[2] - (a.shape[2] in (2, 4))
    if colours == 3 and bool((a[..., 0] == a[..., 1]).all()) and bool((a[..., 1] == a[..., 2]).all()):
        a = np.concatenate([a[..., :1], a[..., 3:]], axis=2)
    return a


def digest(a: np.ndarray) -> str:
    """A hash of what is seen, the same for one picture in two formats: decides its side of the hold-out
    split.
    """
    a = plain(a)
    hasher = hashlib.blake2b(repr((a.shape, a.dtype.name)).encode(), digest_size=16)
    hasher.update(np.ascontiguousarray(a).data)
    return hasher.hexdigest()


def fit(a: np.ndarray, size: tuple[int, int], resize: Resize, channels: int, deep: bool) -> np.ndarray:
    """(H, W, C) uint8 or uint16 -> (*size, channels), uint16 when deep.

    Shrinks by Lanczos, enlarges by a bicubic; alpha is premultiplied meanwhile. Where the result has no
    alpha, what is transparent becomes white; grey from colour is the luma of ITU-R BT.601. 8 bits to 16 is
    times 257, exact.
    """
    if a.shape[:2] != size:
        a = _resized(a, size, resize)
    a = with_channels(a, channels)
    if deep and a.dtype == np.uint8:
        return a.astype(np.uint16) * np.uint16(257)
    if not deep and a.dtype == np.uint16:
        return ((a.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return a


def with_channels(a: np.ndarray, channels: int) -> np.ndarray:
    """(..., C) with C of 1 (grey), 2 (grey, alpha), 3 or 4 -> (..., channels), channels of 1, 3 or 4."""
    if a.shape[-1] == channels:
        return a
    full = _full(a)
    alpha = a[..., -1:] if a.shape[-1] in (2, 4) else None
    colour = a if alpha is None else a[..., :-1]
    if alpha is not None and channels != 4:
        weight = alpha.astype(np.uint64)
        colour = ((colour * weight + (full - weight) * full + full // 2) // full).astype(a.dtype)
    if channels == 1 and colour.shape[-1] == 3:
        wide = colour.astype(np.uint32)
        luma = (299 * wide[..., 0] + 587 * wide[..., 1] + 114 * wide[..., 2] + 500) // 1000
        return luma[..., None].astype(a.dtype)
    if channels >= 3 and colour.shape[-1] == 1:
        colour = np.repeat(colour, 3, axis=-1)
    if channels == 4:
        opaque = np.full((*a.shape[:-1], 1), full, a.dtype)
        colour = np.concatenate([colour, opaque if alpha is None else alpha], axis=-1)
    return colour


def _full(a: np.ndarray) -> int:
    return int(np.iinfo(a.dtype).max)


def _resized(a: np.ndarray, size: tuple[int, int], resize: Resize) -> np.ndarray:
    height, width = a.shape[:2]
    if resize == "stretch":
        return _scaled(a, size, (0.0, 0.0, float(width), float(height)))
    if resize == "crop":
        scale = max(size[1] / width, size[0] / height)
        w, h = min(width, size[1] / scale), min(height, size[0] / scale)
        left, top = (width - w) / 2, (height - h) / 2
        return _scaled(a, size, (left, top, left + w, top + h))
    scale = min(size[1] / width, size[0] / height)
    h, w = max(1, min(size[0], round(height * scale))), max(1, min(size[1], round(width * scale)))
    inner = _scaled(a, (h, w), (0.0, 0.0, float(width), float(height)))
    border = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])
    out = np.empty((*size, a.shape[2]), a.dtype)
    out[:] = np.median(border, axis=0).astype(a.dtype)
    if a.shape[2] in (2, 4):
        out[..., -1] = 0
    top, left = (size[0] - h) // 2, (size[1] - w) // 2
    out[top : top + h, left : left + w] = inner
    return out


def _scaled(a: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """The box (left, top, right, bottom) of a picture, scaled to size (height, width)."""
    shrinks = size[0] < box[3] - box[1] or size[1] < box[2] - box[0]
    filter = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    to = (size[1], size[0])
    if a.dtype == np.uint8:
        image = Image.fromarray(a[..., 0] if a.shape[2] == 1 else np.ascontiguousarray(a))
        out = np.asarray(image.resize(to, filter, box=box, reducing_gap=3.0))
        return out.reshape(*size, a.shape[2])
    planes = [Image.fromarray(a[..., c].astype(np.float32)) for c in range(a.shape[2])]
    deep = [np.asarray(p.resize(to, filter, box=box, reducing_gap=3.0)) for p in planes]
    return np.stack([p.round().clip(0, 65535).astype(np.uint16) for p in deep], axis=-1)
