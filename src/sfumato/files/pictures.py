"""From tensors to files that people look at: bytes, grids, PNGs and films."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import ImageFileError
from sfumato.files.atomic import write_atomic
from sfumato.files.png import SOURCE, XMP, Pixels, read_recipe, write_png

__all__ = ["Pixels", "grid", "read_recipe", "to_bytes", "write_film", "write_png"]


def to_bytes(image: Tensor, *, deep: bool = False) -> Pixels:
    """A picture (C, H, W) in [-1, 1] as whole numbers, (H, W) for grey and (H, W, C) otherwise.

    round((x + 1) / 2 * 255), or * 65535 as uint16 where `deep`; what lies outside is clamped. Raises
    ImageFileError for NaN and infinity, which a cast would turn into black without a word, and for channels
    other than 1 to 4.
    """
    if image.dim() != 3 or image.shape[0] not in (1, 2, 3, 4):
        raise ImageFileError(f"a picture of shape {tuple(image.shape)} cannot be shown: give (1 to 4, H, W)")
    values = image.detach().to("cpu", torch.float64)
    wrong = values.numel() - int(values.isfinite().sum())
    if wrong:
        raise ImageFileError(
            f"a picture has {wrong:,} of {values.numel():,} values that are NaN or infinite, "
            "so it is not written: use float32, other levels or a checkpoint from before the loss broke"
        )
    top = 65535 if deep else 255
    whole = ((values.clamp(-1, 1) + 1) * (top / 2)).round().permute(1, 2, 0).numpy()
    cast = whole.astype(np.uint16) if deep else whole.astype(np.uint8)
    return cast[..., 0] if cast.shape[2] == 1 else cast


def grid(images: Sequence[Pixels], columns: int, *, gap: int = 2) -> Pixels:
    """The pictures in rows of `columns`, `gap` black (or clear) pixels apart; the last row may be short.

    Raises ImageFileError unless all have one shape and depth.
    """
    if not images or columns < 1 or gap < 0:
        raise ImageFileError(
            f"a grid of {len(images)} pictures in {columns} columns, {gap} apart: give at least one"
        )
    first = images[0]
    if any(image.shape != first.shape or image.dtype != first.dtype for image in images):
        raise ImageFileError(
            "pictures of different sizes or depths do not make a grid: make them alike first"
        )
    height, width = first.shape[0] + gap, first.shape[1] + gap
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    shape = (rows * height - gap, columns * width - gap, *first.shape[2:])
    deep = first.dtype == np.uint16
    whole: Pixels = np.zeros(shape, np.uint16) if deep else np.zeros(shape, np.uint8)
    for place, image in enumerate(images):
        y, x = place // columns * height, place % columns * width
        whole[y : y + first.shape[0], x : x + first.shape[1]] = image
    return whole


def write_film(path: Path, frames: Sequence[Pixels], ms: int) -> None:
    """Writes frames as an endless film, `ms` milliseconds each: .webp (lossless), .gif (256 colours) or .png
    (APNG).

    16-bit frames are shown in 8. The film says that a model made it. Raises ImageFileError for another
    ending, for no frames or unlike ones; RunError if the disk refuses.
    """
    from PIL import Image, PngImagePlugin

    if not frames or any(f.shape != frames[0].shape or f.dtype != frames[0].dtype for f in frames) or ms < 1:
        raise ImageFileError(f"{path}: a film needs frames of one size and depth and at least 1 ms for each")
    pictures = [Image.fromarray((f >> 8).astype(np.uint8) if f.dtype == np.uint16 else f) for f in frames]
    ending, stream = path.suffix.lower(), io.BytesIO()
    first, rest = pictures[0], pictures[1:]
    if ending == ".webp":
        first.save(
            stream,
            "WEBP",
            save_all=True,
            append_images=rest,
            duration=ms,
            loop=0,
            lossless=True,
            xmp=XMP.encode(),
        )
    elif ending == ".gif":
        first.save(
            stream, "GIF", save_all=True, append_images=rest, duration=ms, loop=0, comment=SOURCE.encode()
        )
    elif ending in (".png", ".apng"):
        texts = PngImagePlugin.PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", XMP)
        first.save(stream, "PNG", save_all=True, append_images=rest, duration=ms, loop=0, pnginfo=texts)
    else:
        raise ImageFileError(f"{path}: no film has the ending {ending!r}: use .webp, .gif or .png")
    write_atomic(path, [stream.getvalue()])
