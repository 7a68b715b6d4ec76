"""Text that people keep beside their pictures: any usual encoding, any size, never a crash."""

from __future__ import annotations

import codecs
from pathlib import Path

from sfumato.data.source import Flaw

CAPTION_BYTES = 64 * 1024
"""The longest caption file that is read: text encoders see a few hundred bytes of it."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode_text(raw: bytes) -> tuple[str, bool]:
    """The text and whether every byte made sense: by its byte-order mark, else UTF-8; NULs are stripped."""
    encoding = "utf-8"
    for mark, name in _MARKS:
        if raw.startswith(mark):
            raw, encoding = raw[len(mark) :], name
            break
    try:
        return raw.decode(encoding).replace("\0", ""), True
    except UnicodeDecodeError:
        return raw.decode(encoding, "replace").replace("\0", ""), False


def caption_lines(text: str) -> tuple[str, ...]:
    """One caption a line, blank ones dropped."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def read_captions(path: Path, name: str) -> tuple[tuple[str, ...], Flaw | None]:
    """The captions of a sidecar file, or () and what is wrong with it."""
    try:
        if not path.is_file():
            return (), Flaw(name, "the caption is not an ordinary file")
        with path.open("rb") as file:
            raw = file.read(CAPTION_BYTES + 1)
    except OSError as error:
        return (), Flaw(name, f"the caption cannot be read ({error.strerror or error})")
    if len(raw) > CAPTION_BYTES:
        return (), Flaw(name, f"the caption is longer than {CAPTION_BYTES:,} bytes and is left out")
    text, sound = decode_text(raw)
    if not sound:
        return (), Flaw(name, "the caption is not UTF-8 or UTF-16 text and is left out")
    lines = caption_lines(text)
    return lines, None if lines else Flaw(name, "the caption is empty")
