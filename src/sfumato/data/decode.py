"""The one door through which every picture enters: the trainer's, the command line's and the server's.

Six formats, a pixel cap that is checked before decoding, the first frame only, EXIF orientation applied,
and a table of modes: what is not in the table is refused by name, never guessed or clipped. Whatever a file
does to Pillow comes out as one sentence.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from sfumato.data.quiet import quiet
from sfumato.errors import ImageFileError

Read = TypeVar("Read")
OpenFile = io.BytesIO | io.BufferedReader

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""What may be opened. Pillow itself opens 43 formats, some of them by running Ghostscript or unpacking
archives.
"""

MAX_PIXELS = 64_000_000
_MAX_BYTES = 1 << 30

_MODES = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "P": "RGB",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBX": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}
"""Pillow's mode -> ours, 8 bits a channel. With one transparent colour (tRNS), grey becomes LA and colour
RGBA.
"""

_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
_REFUSED = {
    "F": "floating-point pixels",
    "I": "32-bit integer pixels",
    "LAB": "L*a*b* colours",
    "HSV": "HSV colours",
}


class BadPicture(ImageFileError):
    """An ImageFileError that also keeps its two halves: `where` (the path as shown) and `reason`."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where} cannot be used as a picture: {reason}")
        self.where = where
        self.reason = reason


@dataclass(frozen=True)
class Picture:
    """array: (H, W, C), uint8 or uint16; mode: "L", "LA", "RGB", "RGBA" (8 bits) or "I;16" (one channel, 16
    bits).

    format and stored are what the file said: "PNG", "P".
    """

    array: np.ndarray
    mode: str
    format: str = ""
    stored: str = ""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before it is decoded; width and height as seen, after EXIF orientation.

    mode: as a `Picture`'s, or "LA;16", "RGB;16", "RGBA;16", which only arrays have.
    """

    width: int
    height: int
    mode: str
    format: str

    @property
    def has_alpha(self) -> bool:
        return self.mode.partition(";")[0] in ("LA", "RGBA")

    @property
    def has_colour(self) -> bool:
        return self.mode.partition(";")[0] in ("RGB", "RGBA")


def shown(name: str | Path) -> str:
    """A file's name as it may be printed: one line, no control characters, bytes that are no text escaped."""
    text = str(name).encode("utf-8", "backslashreplace").decode()
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= 300 else text[:140] + "..." + text[-140:]


def probe(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Reads the header alone. Raises ImageFileError as `decode` does; a file that passes may still fail
    there.
    """
    return _guarded(source, lambda file: _header(file, max_pixels))


def decode(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decodes one picture, from a path or from the bytes of a file.

    The first frame; upright by its EXIF orientation; palettes, CMYK and YCbCr as RGB; a transparent colour
    as alpha; 16-bit grey stays 16-bit (of 16-bit colour Pillow keeps the upper 8). Colour profiles and
    gamma are not applied. Raises ImageFileError, one sentence with the path and the reason, for anything
    that is not such a picture, and never hangs on what is not a file.
    """
    return _guarded(source, lambda file: _decode(file, max_pixels))


def _guarded(source: Path | bytes, read: Callable[[OpenFile], Read]) -> Read:
    """Runs one reading of one file; whatever it raises becomes a BadPicture."""
    where = shown(source) if isinstance(source, Path) else "a picture given as bytes"
    try:
        with quiet(), _opened(source) as file:
            return read(file)
    except _Refused as refused:
        raise BadPicture(where, str(refused)) from None
    except (
        Exception
    ) as error:  # hostile files raise most kinds there are: Pillow documents five, and has more
        raise BadPicture(where, _reason(error)) from error


class _Refused(Exception):
    """A reason found by this file's own checks."""


def _opened(source: Path | bytes) -> OpenFile:
    """The file, if it is an ordinary one: opening a pipe would wait for ever, a device might never end."""
    if isinstance(source, bytes):
        if not source:
            raise _Refused("it is empty")
        return io.BytesIO(source)
    try:
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        if source.is_dir():
            raise _Refused("it is a folder")
        number = os.open(source, flags)
    except FileNotFoundError:
        broken = source.is_symlink()
        raise _Refused("the link leads nowhere" if broken else "there is no such file") from None
    except PermissionError:
        raise _Refused("it may not be read (permission denied)") from None
    file = os.fdopen(number, "rb")
    about = os.fstat(number)
    reason = ""
    if not stat.S_ISREG(about.st_mode):
        reason = "it is not an ordinary file"
    elif about.st_size == 0:
        reason = "it is empty"
    elif about.st_size > _MAX_BYTES:
        reason = f"it has {about.st_size:,} bytes, more than {_MAX_BYTES:,}"
    if reason:
        file.close()
        raise _Refused(reason)
    return file


def _open(file: OpenFile, max_pixels: int) -> Image.Image:
    """Pillow's lazy image, its size and mode checked, nothing decoded yet."""
    try:
        image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        raise _Refused(f"it has more than {max_pixels:,} pixels") from None
    width, height = image.size
    if width < 1 or height < 1:
        raise _Refused(f"it is {width} x {height} pixels")
    if width * height > max_pixels:
        raise _Refused(f"it is {width} x {height} pixels, more than {max_pixels:,}")
    if image.mode not in _MODES and image.mode not in _DEEP:
        kind = _REFUSED.get(image.mode, f"pixels of mode {image.mode}")
        raise _Refused(f"{kind} are not supported; save it with 8 or 16 bits a channel")
    if image.mode in _DEEP:
        _check_depth(image)
    return image


def _check_depth(image: Image.Image) -> None:
    if "transparency" in image.info:
        raise _Refused("16-bit grey with a transparent colour is not supported; save it with 8 bits")
    bits = _tags(image).get(258, (16,))
    if bits != (16,):
        number = bits[0] if isinstance(bits, tuple) else bits
        raise _Refused(f"{number} bits a pixel are not supported; save it with 8 or 16 bits")


def _tags(image: Image.Image) -> dict[int, object]:
    return dict(getattr(image, "tag_v2", {}))


def _header(file: OpenFile, max_pixels: int) -> Header:
    image = _open(file, max_pixels)
    width, height = image.size
    # a PNG's late EXIF and every TIFF's need no look: the one would decode it, the other is in the size
    # already
    known = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
    if known and _orientation(image) >= 5:
        width, height = height, width
    return Header(width, height, _mode(image), image.format or "")


def _decode(file: OpenFile, max_pixels: int) -> Picture:
    image = _open(file, max_pixels)
    stored, mode, form = image.mode, _mode(image), image.format or ""
    inverted = stored in _DEEP and _tags(image).get(262) == 0
    image.load()
    turn = _orientation(image)
    if stored in _DEEP:
        array = np.asarray(image).astype(np.uint16)
        if inverted:  # TIFF's "white is zero", which Pillow turns round for 8 bits only
            array = 65535 - array
    else:
        array = np.asarray(image if image.mode == mode else image.convert(mode))
    array = array.reshape(array.shape[0], array.shape[1], -1)
    return Picture(np.ascontiguousarray(_upright(array, turn)), mode, form, stored)


def _mode(image: Image.Image) -> str:
    if image.mode in _DEEP:
        return "I;16"
    mode = _MODES[image.mode]
    clear = "transparency" in image.info and image.mode not in ("LA", "RGBA")
    return {"L": "LA", "RGB": "RGBA"}.get(mode, mode) if clear else mode


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; damaged or absurd EXIF counts as none, since the pixels are sound without
    it.
    """
    try:
        value = image.getexif().get(0x0112, 1)
    except (OSError, SyntaxError, ValueError, KeyError, IndexError, TypeError, struct.error, EOFError):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(a: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation (EXIF 2.3, tag 0x0112)."""
    turns: dict[int, Callable[[], np.ndarray]] = {
        2: lambda: a[:, ::-1],
        3: lambda: a[::-1, ::-1],
        4: lambda: a[::-1],
        5: lambda: a.swapaxes(0, 1),
        6: lambda: np.rot90(a, -1),
        7: lambda: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda: np.rot90(a, 1),
    }
    return turns[orientation]() if orientation in turns else a


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is no PNG, JPEG, WebP, BMP, TIFF or GIF picture, or its first bytes are damaged"
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it"
    text = shown(str(error))[:200]
    return f"it is damaged ({text or type(error).__name__})"
