"""Pictures that are wrong in every way we know of, made from nothing and always the same: row B1 of the
reliability plan. Each generator gives bytes; `write_hostile_folder` adds what only a file system can be
(links, pipes, names).
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def pattern(number: int, side: int = 32) -> np.ndarray:
    """A colourful picture that depends on its number, (side, side, 3) uint8."""
    y, x = np.mgrid[0:side, 0:side]
    planes = [
        (x * (3 + number % 7) + number * 11),
        (y * (5 + number % 5) + number * 29),
        (x * y + number * 53),
    ]
    return np.stack([plane % 256 for plane in planes], axis=-1).astype(np.uint8)


def saved(image: Image.Image | np.ndarray, form: str, **options: object) -> bytes:
    """The bytes of a picture in one of Pillow's formats."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    """One PNG chunk, with a wrong checksum if one is given."""
    return (
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)
    )


def png(
    width: int,
    height: int,
    depth: int,
    colour: int,
    rows: bytes,
    *before: bytes,
    interlaced: int = 0,
    end: bool = True,
) -> bytes:
    """A PNG made by hand; rows: compressed scan lines."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    body = chunk(b"IDAT", rows) if rows else b""
    return SIGNATURE + head + b"".join(before) + body + (chunk(b"IEND", b"") if end else b"")


def flat_rows(width: int, height: int, bits: int) -> bytes:
    """Compressed black scan lines of any number, made a block at a time."""
    packer = zlib.compressobj(9)
    line = bytes(1 + (width * bits + 7) // 8)
    block = line * 64
    parts = [packer.compress(block) for _ in range(height // 64)]
    parts.append(packer.compress(line * (height % 64)))
    return b"".join([*parts, packer.flush()])


def zeros(count: int) -> bytes:
    """count zeros, compressed."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join([*parts, packer.flush()])


def tiff(*tags: tuple[int, int, int, int], after: bytes = b"", next_directory: int = 0) -> bytes:
    """A little-endian TIFF of one directory: (tag, type, count, value) each."""
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", next_directory) + after


def _cut() -> Iterator[tuple[str, bytes]]:
    image = Image.fromarray(pattern(1, 96))
    forms = [("PNG", {}), ("JPEG", {}), ("WEBP", {"lossless": True}), ("GIF", {}), ("BMP", {}), ("TIFF", {})]
    for form, options in forms:
        whole = saved(image, form, **options)
        for percent in (1, 10, 50, 90):
            yield f"cut-{percent}.{form.lower()}", whole[: len(whole) * percent // 100]


def _no_pictures() -> Iterator[tuple[str, bytes]]:
    yield "empty.png", b""
    yield "one-byte.jpg", b"\xff"
    yield "text.png", b"this is a text and no picture\n" * 20
    yield "page.jpg", b"<!DOCTYPE html><html><body>404 not found</body></html>"
    yield "archive.png", b"PK\x03\x04" + bytes(200)
    yield "program.gif", b"\x7fELF\x02\x01\x01" + bytes(200)
    yield "svg.png", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    yield "drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    yield "eps.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    yield (
        "fits.tif",
        b"SIMPLE  =                    T".ljust(80)
        + b"BITPIX  =                    8".ljust(80)
        + b"END".ljust(80),
    )
    yield "psd.png", b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(12) + bytes(245)
    yield "pdf.png", b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
    yield "icon.png", saved(pattern(2, 16), "ICO")
    yield "photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    yield "netpbm.png", b"P6\n4 4\n255\n" + bytes(48)
    yield "zeros.bmp", bytes(4096)


def _broken_png() -> Iterator[tuple[str, bytes]]:
    rows = flat_rows(32, 32, 24)
    whole = png(32, 32, 8, 2, rows)
    yield "bad-header-crc.png", whole[:29] + b"\0\0\0\0" + whole[33:]
    yield "no-data.png", png(32, 32, 8, 2, b"")
    yield "cut-in-zlib.png", png(32, 32, 8, 2, rows[: len(rows) // 2])
    yield "no-zlib.png", png(32, 32, 8, 2, bytes(range(200)))
    yield "zero-by-zero.png", png(0, 0, 8, 2, rows)
    yield "zero-wide.png", png(0, 32, 8, 2, rows)
    yield "two-billion-high.png", png(1, 2**31 - 1, 8, 2, rows)
    yield "header-of-20000.png", png(20_000, 20_000, 8, 2, rows)
    yield "colour-type-9.png", png(32, 32, 8, 9, rows)
    yield "depth-3.png", png(32, 32, 3, 0, rows)
    yield "short-header.png", SIGNATURE + chunk(b"IHDR", b"\0\0\0\x20") + chunk(b"IEND", b"")
    yield "header-missing.png", SIGNATURE + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    yield "no-palette-cut.png", png(32, 32, 8, 3, flat_rows(32, 32, 8)[:-8])


def _bombs() -> Iterator[tuple[str, bytes]]:
    bomb = zeros(70 << 20)
    small = flat_rows(8, 8, 8)
    yield "bomb-9459.png", png(9459, 9459, 1, 0, flat_rows(9459, 9459, 1))
    yield "bomb-12000.png", png(12_000, 12_000, 1, 0, flat_rows(12_000, 12_000, 1))
    yield "bomb-interlaced.png", png(9000, 9000, 1, 0, flat_rows(9000, 9000, 1), interlaced=1)
    yield "bomb-text.png", png(8, 8, 8, 0, small, chunk(b"zTXt", b"a\0\0" + bomb))
    yield "bomb-text-utf8.png", png(8, 8, 8, 0, small, chunk(b"iTXt", b"a\0\x01\0\0\0" + bomb))
    yield (
        "huge.gif",
        b"GIF89a"
        + struct.pack("<HH", 65_535, 65_535)
        + b"\x80\0\0"
        + bytes(6)
        + b"\x2c"
        + bytes(9)
        + b"\x02\0;",
    )
    yield (
        "huge.bmp",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
    )


def _broken_others() -> Iterator[tuple[str, bytes]]:
    jpeg = saved(pattern(3), "JPEG")
    yield "tables-of-ff.jpg", b"\xff\xd8\xff\xdb\xff\xff" + bytes(300)
    yield "no-scan.jpg", jpeg[: jpeg.index(b"\xff\xda")] + b"\xff\xd9"
    yield "no-frame.jpg", jpeg[:2] + jpeg[jpeg.index(b"\xff\xda") :]
    frame = jpeg.index(b"\xff\xc0")
    yield "zero-size.jpg", jpeg[: frame + 5] + bytes(4) + jpeg[frame + 9 :]
    yield "twelve-bits.jpg", jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :]
    yield "lossless.jpg", jpeg[: frame + 1] + b"\xc3" + jpeg[frame + 2 :]
    yield "float.tiff", saved(Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)), "TIFF")
    yield (
        "integers.tiff",
        saved(Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8) * 70_000), "TIFF"),
    )
    size = [(256, 3, 1, 8), (257, 3, 1, 8)]
    yield "loop.tiff", tiff(*size, next_directory=8)
    yield "no-size.tiff", tiff((259, 3, 1, 1))
    yield "strips.tiff", tiff(*size, (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 2**30, 8), (279, 4, 2**30, 8))
    yield "offset-outside.tiff", b"II*\0\xff\xff\xff\x7f"
    yield (
        "twelve-bits.tiff",
        tiff(
            *size,
            (258, 3, 1, 12),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (273, 4, 1, 200),
            (278, 3, 1, 8),
            (279, 4, 1, 96),
            after=bytes(300),
        ),
    )
    yield "lab.tiff", saved(Image.new("LAB", (8, 8)), "TIFF")
    yield "empty.webp", b"RIFF\x04\0\0\0WEBP"
    yield "noise.webp", b"RIFF\x40\0\0\0WEBPVP8L\x30\0\0\0/" + bytes(range(60))
    yield "no-frame.gif", b"GIF89a\x08\0\x08\0\0\0\0;"
    yield (
        "odd.bmp",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 8, 8, 1, 7, 0, 0, 0, 0, 0, 0) + bytes(64),
    )


def bad_pictures() -> dict[str, bytes]:
    """Every file that must be refused, by name."""
    kinds: list[Callable[[], Iterator[tuple[str, bytes]]]] = [
        _no_pictures,
        _broken_png,
        _bombs,
        _broken_others,
        _cut,
    ]
    return dict(pair for kind in kinds for pair in kind())


def odd_but_good() -> dict[str, bytes]:
    """Files that look odd and must be read all the same."""
    image = Image.fromarray(pattern(4))
    frames = [Image.fromarray(pattern(n)) for n in range(5, 8)]
    exif = Image.Exif()
    exif[0x0112] = 9
    rows = flat_rows(32, 32, 24)
    plain = png(32, 32, 8, 2, rows)
    return {
        "bad-data-crc.png": plain[:33] + chunk(b"IDAT", rows, crc=7) + chunk(b"IEND", b""),
        "chunk-of-4-gb.png": plain[:33] + b"\xff\xff\xff\xffIDAT" + rows,
        "png-in-disguise.jpg": saved(image, "PNG"),
        "jpeg-in-disguise.png": saved(image, "JPEG"),
        "orientation-9.jpg": saved(image, "JPEG", exif=exif),
        "exif-is-noise.jpg": saved(image, "JPEG", exif=b"Exif\0\0II*\0" + bytes(range(64))),
        "moving.png": saved(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "moving.gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "moving.webp": saved(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:]),
        "progressive.jpg": saved(image, "JPEG", progressive=True),
        "cmyk.jpg": saved(image.convert("CMYK"), "JPEG"),
        "interlaced.png": png(32, 32, 8, 0, flat_rows(32, 96, 8), interlaced=1),
    }


def write_good(root: Path, count: int) -> list[str]:
    """count pictures of 32 x 32, good-000.png onwards."""
    root.mkdir(parents=True, exist_ok=True)
    names = [f"good-{number:03}.png" for number in range(count)]
    for number, name in enumerate(names):
        (root / name).write_bytes(saved(pattern(number), "PNG"))
    return names


def write_hostile_folder(root: Path) -> list[str]:
    """All bad pictures, and what a folder can hold beside files; returns the names that must be reported."""
    names: list[str] = []
    for name, content in bad_pictures().items():
        (root / f"bad-{name}").write_bytes(content)
        names.append(f"bad-{name}")
    (root / "a-folder.jpg").mkdir()
    if os.name != "nt":
        os.mkfifo(root / "pipe.png")
        (root / "nowhere.png").symlink_to(root / "no such file.png")
        (root / "ring.png").symlink_to(root / "ring.png")
        (root / "device.png").symlink_to("/dev/zero")
        strange = [b"<img src=x>.png", b"new\nline.png", b"bytes-\xff.png", b"x" * 251 + b".png"]
        for name in strange:
            with open(os.path.join(os.fsencode(root), name), "wb") as file:
                file.write(b"no picture")
        names += [
            "pipe.png",
            "nowhere.png",
            "ring.png",
            "device.png",
            *(os.fsdecode(name) for name in strange),
        ]
    return names
