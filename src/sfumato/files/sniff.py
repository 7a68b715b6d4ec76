"""Opening a model file and saying what it is by its content; the name's ending is never asked."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sfumato.errors import ModelFileError

CONVERT = "convert it to safetensors with the program that wrote it"
PICKLE = f"which can run code when it is opened and is never opened here: {CONVERT}"
FETCH = "fetch the file again"

_BY_START: tuple[tuple[bytes, str], ...] = (
    (b"GGUF", f"a GGUF file: {CONVERT}"),
    (b"tjgg", f"a GGML file: {CONVERT}"),
    (b"lmgg", f"a GGML file: {CONVERT}"),
    (b"\x89HDF\r\n\x1a\n", f"an HDF5 (Keras) file: {CONVERT}"),
    (b"\x93NUMPY", f"a NumPy array file: {CONVERT}"),
    (b"\x1f\x8b", "gzip-compressed: unpack it first"),
    (b"BZh", "bzip2-compressed: unpack it first"),
    (b"\xfd7zXZ\x00", "xz-compressed: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x7fELF", "a program: give a safetensors file"),
    (b"MZ", "a program: give a safetensors file"),
    (b"\x89PNG", "a PNG picture: give a safetensors file"),
    (b"\xff\xd8\xff", "a JPEG picture: give a safetensors file"),
    (b"version https://git-lfs", "a Git LFS pointer and not the file itself: run `git lfs pull`"),
)
_TEXT_PICKLE = re.compile(rb"(\(?[dl]p\d+\n|\(dp|\(lp|\(c|c[A-Za-z_][\w.]*\n[\w.]+\n|ccopy_reg\n|\(i)")
_HTML = re.compile(rb"\s*<(!doctype|html|\?xml|head|body)", re.IGNORECASE)


@contextmanager
def open_regular(path: Path) -> Generator[tuple[int, int], None, None]:
    """A file descriptor and the size of a regular file. A pipe or a device is refused, not waited for."""
    flags = (
        os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    )
    try:
        handle = os.open(path, flags)
    except (OSError, ValueError) as error:
        words = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ModelFileError(f"{path}: cannot be opened ({words}): check the path") from None
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise ModelFileError(f"{path}: not a file: give the path of a file")
        yield handle, about.st_size
    finally:
        os.close(handle)


def read_all(handle: int, path: Path, size: int, start: int = 0) -> bytes:
    """`size` bytes from `start`. A file that shrinks meanwhile is an error, no fault (no mmap, no SIGBUS)."""
    parts: list[bytes] = []
    left = size
    try:
        os.lseek(handle, start, os.SEEK_SET)
        while left:
            part = os.read(handle, min(left, 1 << 30))
            if not part:
                break
            parts.append(part)
            left -= len(part)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}): {FETCH}") from None
    if left:
        raise ModelFileError(f"{path}: became shorter while it was read: try again when nothing writes to it")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _archive(text: bytes) -> str:
    if b"constants.pkl" in text and b"/code/" in text:
        return f"a TorchScript archive, {PICKLE}"
    if b"data.pkl" in text:
        return f"a PyTorch checkpoint (a pickle in a zip), {PICKLE}"
    if b".npy" in text:
        return f"a NumPy archive (npz): {CONVERT}"
    return "a zip archive: unpack it and give the safetensors file"


def what_it_is(head: bytes, tail: bytes) -> str:
    """A clause for a file that is not safetensors, by its first and last bytes: what it is and what to do."""
    if not head:
        return f"empty: {FETCH}"
    for start, clause in _BY_START:
        if head.startswith(start):
            return clause
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _archive(head + tail)
    if head[257:262] == b"ustar":
        return f"a tar archive, as old PyTorch checkpoints are (pickles inside), {PICKLE}"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return f"a Python pickle, {PICKLE}"
    if _TEXT_PICKLE.match(head):
        return f"a Python pickle, {PICKLE}"
    if head[:2] in (b"x\x01", b"x\x9c", b"x\xda", b"x\x5e"):
        return f"compressed with zlib, as joblib's pickles are, {PICKLE}"
    if _HTML.match(head):
        return f"a web page, perhaps an error page that was saved as a model: {FETCH}"
    if head.lstrip()[:1] in (b"{", b"["):
        return "JSON text and no tensors: give the safetensors file"
    return f"not a safetensors file (its first 8 bytes are no header length): {FETCH}, or {CONVERT}"
