"""PNG files that say how they were made, written and read back without touching the pixels.

Four texts go in: `parameters` as A1111 and its successors read it, `sfumato` with our recipe as JSON,
`Software`, and an XMP packet that says a trained model made the picture (IPTC digital source type
`trainedAlgorithmicMedia`).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import ImageFileError, ModelFileError
from sfumato.files.atomic import write_atomic
from sfumato.files.json_file import parse_json
from sfumato.files.sniff import open_regular, read_all

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W) grey, or (H, W, C) with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LONGEST_TEXT = 64 << 10
MOST_CHUNKS = 100_000
SOFTWARE = "Sfumato"
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmp:CreatorTool="{SOFTWARE}" Iptc4xmpExt:DigitalSourceType="{SOURCE}"/>
</rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""
_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _text(keyword: str, text: str) -> bytes:
    """A text chunk: tEXt where Latin-1 has the letters, iTXt where not."""
    if "\0" in text:
        raise ImageFileError(f"the text {keyword!r} for a PNG holds a NUL character: leave it out")
    if len(text.encode("utf-8", "replace")) > LONGEST_TEXT:
        raise ImageFileError(
            f"the text {keyword!r} for a PNG is longer than {LONGEST_TEXT:,} bytes: shorten it"
        )
    try:
        return _chunk(b"tEXt", keyword.encode("latin-1") + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode("utf-8", "replace"))


def _filtered(rows: NDArray[np.uint8], step: int) -> bytes:
    """Each row as it is, less the pixel to its left or less the row above, whichever has the smallest sum
    (PNG 12.8).
    """
    left = np.zeros_like(rows)
    left[:, step:] = rows[:, :-step]
    above = np.zeros_like(rows)
    above[1:] = rows[:-1]
    tries = np.stack([rows, rows - left, rows - above])
    sums = np.abs(tries.view(np.int8).astype(np.int32)).sum(axis=2)
    best = sums.argmin(axis=0)
    chosen = tries[best, np.arange(len(rows))]
    return np.concatenate([best.astype(np.uint8)[:, None], chosen], axis=1).tobytes()


def encode_png(pixels: Pixels, texts: Mapping[str, str]) -> bytes:
    """A PNG of 8 or 16 bits a channel with these texts. The same input gives the same bytes."""
    shaped = pixels[..., None] if pixels.ndim == 2 else pixels
    if shaped.ndim != 3 or shaped.shape[2] not in _COLOURS or 0 in shaped.shape:
        raise ImageFileError(
            f"a picture of shape {tuple(pixels.shape)} is no PNG: give (H, W) or (H, W, 1 to 4)"
        )
    height, width, channels = shaped.shape
    depth = shaped.dtype.itemsize
    rows = np.ascontiguousarray(shaped.astype(">u2") if depth == 2 else shaped).view(np.uint8)
    about = struct.pack(">IIBBBBB", width, height, 8 * depth, _COLOURS[channels], 0, 0, 0)
    parts = [SIGNATURE, _chunk(b"IHDR", about)]
    parts += [_text(keyword, text) for keyword, text in texts.items()]
    packed = zlib.compress(_filtered(rows.reshape(height, -1), channels * depth), 6)
    parts += [_chunk(b"IDAT", packed), _chunk(b"IEND", b"")]
    return b"".join(parts)


def write_png(
    path: Path, pixels: Pixels, *, parameters: str | None = None, recipe: Mapping[str, object] | None = None
) -> None:
    """Writes a picture that a model made as PNG, atomically, with its parameters and the mark of its origin.

    `parameters` is the text of A1111; `recipe` is ours and comes back by `read_recipe`. Raises ImageFileError
    for a shape or text that a PNG cannot hold, RunError if the disk refuses.
    """
    texts = {} if parameters is None else {"parameters": parameters}
    if recipe is not None:
        texts["sfumato"] = json.dumps(recipe, sort_keys=True, allow_nan=False)
    texts |= {"Software": SOFTWARE, "XML:com.adobe.xmp": XMP}
    write_atomic(path, [encode_png(pixels, texts)])


def _chunks(handle: int, path: Path, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The text chunks of a PNG: kind and data. Nothing else is read, nothing is unpacked."""
    if size < 8 or read_all(handle, path, 8) != SIGNATURE:
        raise ImageFileError(f"{path}: not a PNG: give a picture that sfumato wrote")
    here = 8
    for _ in range(MOST_CHUNKS):
        if here + 12 > size:
            raise ImageFileError(f"{path}: cut off: fetch the file again")
        length, kind = struct.unpack(">I4s", read_all(handle, path, 8, here))
        if here + 12 + length > size:
            raise ImageFileError(f"{path}: cut off: fetch the file again")
        if kind == b"IEND":
            return
        if kind in (b"tEXt", b"iTXt") and length <= LONGEST_TEXT + 100:
            data = read_all(handle, path, length + 4, here + 8)
            if zlib.crc32(kind + data[:length]) != int.from_bytes(data[length:], "big"):
                raise ImageFileError(f"{path}: damaged in its texts (checksum differs): fetch the file again")
            yield kind, data[:length]
        here += 12 + length
    raise ImageFileError(f"{path}: more than {MOST_CHUNKS:,} chunks: not a picture that sfumato wrote")


def read_recipe(path: Path) -> dict[str, object]:
    """The recipe that `write_png` put into a picture. The pixels are not decoded and nothing is unpacked.

    Raises ImageFileError where there is none, or where it is damaged; what the recipe says is not judged
    here.
    """
    found: list[bytes] = []
    try:
        with open_regular(path) as (handle, size):
            for kind, data in _chunks(handle, path, size):
                keyword, _, text = data.partition(b"\0")
                if keyword != b"sfumato":
                    continue
                if kind == b"iTXt":
                    if text[:4] != b"\0\0\0\0":
                        raise ImageFileError(
                            f"{path}: its recipe is packed or translated: sfumato did not write it"
                        )
                    text = text[4:]
                found.append(text)
    except ModelFileError as error:
        raise ImageFileError(str(error)) from None
    if len(found) != 1:
        many = "no recipe of sfumato" if not found else "several recipes"
        raise ImageFileError(f"{path}: holds {many}: give a picture as sfumato wrote it")
    try:
        recipe = parse_json(found[0])
    except ValueError as error:
        raise ImageFileError(f"{path}: its recipe is not usable, it holds {error}") from None
    if not isinstance(recipe, dict):
        raise ImageFileError(f"{path}: its recipe is no table: sfumato did not write it")
    return recipe
