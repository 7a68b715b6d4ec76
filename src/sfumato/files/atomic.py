"""Writing so that a crash at any instant leaves the old file or the new one, whole, and never a mixture.

The order is the classic one: write a temporary file in the same folder, fsync it, rename it over the target,
fsync the folder. Temporary names end in `.tmp-PID`; `clean_temporaries` removes what a killed process left.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from sfumato.errors import RunError

TEMPORARY = re.compile(r".+\.tmp-\d+(-\d+)?")
Chunk = bytes | bytearray | memoryview


@contextmanager
def told(what: str, path: Path) -> Generator[None, None, None]:
    """Turns an error of the operating system into a RunError with the path and the system's own words."""
    try:
        yield
    except OSError as error:
        words = error.strerror or str(error)
        raise RunError(f"{path}: {what} failed ({words}): mend this and try again") from error


def free_space(path: Path) -> int:
    """Bytes that may still be written at `path`, or at its nearest parent that exists."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    with told("asking for the free space", place):
        return shutil.disk_usage(place).free


def temporary_name(path: Path) -> Path:
    """A name beside `path` for what is not finished yet: one for each process and thread."""
    pid, thread = os.getpid(), threading.get_native_id()
    return path.with_name(f"{path.name}.tmp-{pid}" + ("" if thread == pid else f"-{thread}"))


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    if os.name == "nt":  # Windows cannot open a folder; its renames are journalled
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, chunks: Iterable[Chunk]) -> tuple[str, int]:
    """Writes a new file, fsyncs it; gives its sha256 and size. Not atomic by itself, OSErrors pass."""
    digest, size = hashlib.sha256(), 0
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o644)
    try:
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            digest.update(view)
            size += len(view)
            while len(view):
                view = view[os.write(handle, view[: 1 << 30]) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    return digest.hexdigest(), size


def write_atomic(path: Path, chunks: Iterable[Chunk]) -> tuple[str, int]:
    """Puts the bytes at `path`, replacing what was there in one instant; gives their sha256 and size.

    Raises RunError with the path and the system's words; what was at `path` is then still there.
    """
    temporary = temporary_name(path)
    with told("writing", path):
        try:
            written = write_synced(temporary, chunks)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)
    return written


def clean_temporaries(folder: Path) -> list[str]:
    """Removes what killed processes left unfinished in `folder` and gives the names.

    Call it only where no other process writes: with the run's lock held.
    """
    with told("removing unfinished copies", folder):
        if not folder.is_dir():
            return []
        left = sorted(entry for entry in folder.iterdir() if TEMPORARY.fullmatch(entry.name))
        for entry in left:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    return [entry.name for entry in left]


def size_text(size: int) -> str:
    """A number of bytes for people: `36.0 MB`."""
    if size < 1000:
        return f"{size} bytes"
    amount = float(size)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 1000:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} TB"
