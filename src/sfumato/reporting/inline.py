"""Pictures inside a page: nothing is fetched, and what is inside says nothing but what it shows."""

from __future__ import annotations

import base64
from pathlib import Path

from torch import Tensor

from sfumato.files.pictures import to_bytes
from sfumato.files.png import Pixels, encode_png

KINDS = {".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg", ".gif": "image/gif"}
LARGEST = 32 << 20
"""A larger file is not put into a page."""


def of_pixels(pixels: Pixels) -> str:
    """A picture as a data URI: a PNG without any text of its own."""
    return _uri("image/png", encode_png(pixels, {}))


def of_tensor(image: Tensor) -> str:
    """A picture (C, H, W) in [-1, 1] as a data URI, 8 bits."""
    return of_pixels(to_bytes(image))


def of_file(path: Path) -> str | None:
    """A picture's file as a data URI; None where it is not there, too large or of an unknown kind."""
    kind = KINDS.get(path.suffix.lower())
    if kind is None or not path.is_file() or path.stat().st_size > LARGEST:
        return None
    return _uri(kind, path.read_bytes())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
