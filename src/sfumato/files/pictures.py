"""Pictures that leave: PNG files with text, grids and films. (What enters goes through `data.decode`.)

PNGs are encoded here because 16-bit colour must be written too, which Pillow cannot, and so that the same
pixels and text always give the same bytes on every version of it.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from sfumato.errors import ImageFileError, ModelFileError, SettingsError
from sfumato.files.atomic import write_atomic
from sfumato.files.sniff import open_regular, read_all

MODES = ("L", "LA", "RGB", "RGBA")
"""The modes of pictures with 1 to 4 channels."""
FILMS = {".webp": "WEBP", ".gif": "GIF", ".png": "PNG"}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}
LONGEST_TEXT = 4 << 20
MOST_CHUNKS = 10_000


def to_pixels(x: Tensor, bits: int = 8, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """(n, C, H, W) in low .. high -> (n, H, W, C), uint8 or uint16: the inverse of reading, rounded."""
    most = 255 if bits == 8 else 65535
    unit = ((x.detach().cpu().double() - low) / (high - low)).clamp(0, 1)
    pixels = (unit * most).round().permute(0, 2, 3, 1).contiguous().numpy()
    return pixels.astype(np.uint8 if bits == 8 else np.uint16)


def check_channels(channels: int) -> None:
    """Raises SettingsError unless a picture can have so many channels."""
    if channels not in _COLOUR:
        raise SettingsError(
            f"pictures of {channels} channels cannot be written as PNG (1 to 4 can): use "
            f"sfumato.load(RUN).sample()"
        )


def tile(pixels: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """(n, H, W, C) -> one picture, row by row; the gaps and places left over are the brightest value."""
    n, height, width, channels = pixels.shape
    rows = -(-n // columns)
    bright = np.iinfo(pixels.dtype).max
    size = (rows * (height + gap) - gap, columns * (width + gap) - gap, channels)
    out = np.full(size, bright, dtype=pixels.dtype)
    for i, picture in enumerate(pixels):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        out[top : top + height, left : left + width] = picture
    return out


def _filtered(rows: np.ndarray, pixel: int) -> np.ndarray:
    """Each row (H, W bytes) by the PNG filter none, sub, up or Paeth that leaves the least, its number in
    front."""
    left, up, corner = np.zeros_like(rows), np.zeros_like(rows), np.zeros_like(rows)
    left[:, pixel:], up[1:] = rows[:, :-pixel], rows[:-1]
    corner[1:, pixel:] = rows[:-1, :-pixel]
    a, b, c = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, up, corner))
    tried = np.stack([rows, rows - left, rows - up, rows - paeth]).astype(np.uint8)  # modulo 256
    cost = np.abs(tried.view(np.int8).astype(np.int16)).sum(axis=2)
    best = cost.argmin(axis=0)
    kind = np.array([0, 1, 2, 4], dtype=np.uint8)[best]
    return np.concatenate([kind[:, None], tried[best, np.arange(len(rows))]], axis=1)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bytes(picture: np.ndarray, text: Mapping[str, str] | None = None) -> bytes:
    """A PNG file of (H, W, C), uint8 or uint16, with these texts (keyword -> text, as iTXt, UTF-8).

    The same arguments give the same bytes. Raises SettingsError for a number of channels that PNG does not
    have.
    """
    height, width, channels = picture.shape
    check_channels(channels)
    deep = picture.dtype == np.uint16
    raw = np.ascontiguousarray(picture.astype(">u2") if deep else picture)
    step = channels * (2 if deep else 1)
    rows = raw.view(np.uint8).reshape(height, width * step).astype(np.int16)
    header = struct.pack(">IIBBBBB", width, height, 16 if deep else 8, _COLOUR[channels], 0, 0, 0)
    parts = [_SIGNATURE, _chunk(b"IHDR", header)]
    for keyword, said in (text or {}).items():
        parts.append(_chunk(b"iTXt", keyword.encode("latin-1") + b"\0\0\0\0\0" + said.encode()))
    parts.append(_chunk(b"IDAT", zlib.compress(_filtered(rows, step).tobytes(), 6)))
    return b"".join([*parts, _chunk(b"IEND", b"")])


def write_png(path: Path, picture: np.ndarray, text: Mapping[str, str] | None = None) -> None:
    """Writes one picture atomically, with its texts; see `png_bytes`. Raises RunError if the disk refuses."""
    write_atomic(path, [png_bytes(picture, text)])


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    here = len(_SIGNATURE)
    for _ in range(MOST_CHUNKS):
        if here + 12 > len(data):
            return
        length, kind = struct.unpack(">I4s", data[here : here + 8])
        yield kind, data[here + 8 : here + 8 + length]
        here += 12 + length


def read_text(path: Path) -> dict[str, str]:
    """The uncompressed texts of a PNG file, by keyword, the first of each. Their content is anybody's: judge
    it.

    Raises ImageFileError for what is not a PNG file.
    """
    try:
        with open_regular(path) as (handle, size):
            data = read_all(handle, path, min(size, 1 << 30))
    except ModelFileError as error:  # in the words for model files
        raise ImageFileError(f"{path}: cannot be read as a picture: check the path") from error
    if not data.startswith(_SIGNATURE):
        raise ImageFileError(
            f"{path}: not a PNG file, and only these carry how they were made: give another picture"
        )
    found: dict[str, str] = {}
    for kind, body in _chunks(data):
        keyword, zero, rest = body.partition(b"\0")
        if kind not in (b"tEXt", b"iTXt") or not zero or len(keyword) > 79 or len(body) > LONGEST_TEXT:
            continue
        if kind == b"iTXt":
            if rest[:2] != b"\0\0":  # compressed: a small file may hold gigabytes
                continue
            rest = rest[2:].split(b"\0", 2)[-1]
        said = rest.decode("utf-8" if kind == b"iTXt" else "latin-1", errors="replace")
        found.setdefault(keyword.decode("latin-1"), said)
    return found


def write_film(path: Path, frames: Sequence[np.ndarray], milliseconds: int = 60, hold: int = 1500) -> None:
    """Writes frames (H, W, C), uint8, as an animated WebP, GIF or PNG by the name's ending; the last one is
    held.

    Raises SettingsError for another ending, RunError if the disk refuses.
    """
    kind = FILMS.get(path.suffix.lower())
    if kind is None:
        raise SettingsError(f"{path}: films are written as .webp, .gif or .png: choose one of these endings")
    check_channels(frames[0].shape[2])
    first, *rest = [
        Image.fromarray(f[:, :, 0] if f.shape[2] == 1 else f, MODES[f.shape[2] - 1]).convert("RGB")
        for f in frames
    ]
    times = [milliseconds] * len(rest) + [hold]
    out = io.BytesIO()
    exact = {"lossless": True, "quality": 60, "method": 3} if kind == "WEBP" else {}
    first.save(out, kind, save_all=True, append_images=rest, duration=times, loop=0, **exact)
    write_atomic(path, [out.getvalue()])
