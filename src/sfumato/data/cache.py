"""The decoded cache on disk: a folder of two files, `pixels.bin` and `manifest.json`, that is there whole
or not at all.

It is written beside its place, flushed to the disk and renamed, so neither a crash nor a second process
that builds the same cache at the same time can leave half of one. Nothing but time is lost when the cache
folder is deleted.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.errors import DataError

VERSION = 1
"""Raised whenever the same pictures would be cached differently."""

_STALE = 24 * 3600
UNFINISHED = ".sfumato-unfinished-"
"""Begins the names of folders that are not caches yet, or no more: only these are ever swept away."""


def default_root() -> Path:
    """$SFUMATO_CACHE, else the platform's folder for caches."""
    named = os.environ.get("SFUMATO_CACHE")
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "sfumato"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "sfumato" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sfumato"


def read(folder: Path) -> tuple[np.ndarray, dict[str, Any]] | None:
    """The pixels, as a read-only memory map, and the manifest; None when there is no whole cache here."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        shape, kind = tuple(manifest["shape"]), np.dtype(manifest["dtype"])
        pixels = folder / "pixels.bin"
        if manifest["version"] != VERSION or pixels.stat().st_size != int(np.prod(shape)) * kind.itemsize:
            return None
        return np.memmap(pixels, dtype=kind, mode="r", shape=shape), manifest
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(folder: Path, need: int, build: Callable[[Path], dict[str, Any]]) -> None:
    """Makes a cache: `build` writes pixels.bin into the folder that it is given and returns the manifest.

    need: bytes that must be free. Raises DataError when they are not, or when the place cannot be written
    to. If another process finishes the same cache first, its work stands and ours is thrown away.
    """
    root = folder.parent
    try:
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        _check_space(root, need)
        building = Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}{folder.name[:40]}-", dir=root))
    except OSError as error:
        raise DataError(_cannot(root, error)) from None
    try:
        manifest = build(building)
        _flush(building / "manifest.json", json.dumps(manifest).encode())
        _sync_folder(building)
        _install(building, folder)
        _sync_folder(root)
    except OSError as error:
        raise DataError(_cannot(root, error)) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _install(building: Path, folder: Path) -> None:
    """Renames into place; a whole cache that is there already stays, a damaged one is moved away."""
    for _ in range(3):
        try:
            building.rename(folder)
            return
        except OSError:
            if read(folder) is not None:
                return
            if not folder.exists():
                raise
            aside = Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}damaged-", dir=folder.parent))
            with contextlib.suppress(OSError):  # another process may have moved it first
                folder.rename(aside / "cache")
            shutil.rmtree(aside, ignore_errors=True)
    building.rename(folder)


def _sweep(root: Path) -> None:
    """Removes what killed processes left half-built a day ago or earlier."""
    for left in root.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if left.is_dir() and time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left, ignore_errors=True)


def _check_space(root: Path, need: int) -> None:
    free = shutil.disk_usage(root).free
    if need > free:
        raise DataError(
            f"the decoded pictures need {need / 1e6:,.0f} MB in {root}, where {free / 1e6:,.0f} MB are free: "
            "make room, or name another folder in SFUMATO_CACHE"
        )


def _cannot(root: Path, error: OSError) -> str:
    return (
        f"the decoded pictures cannot be kept in {root} ({error.strerror or error}): "
        "name a folder that can be written to in SFUMATO_CACHE"
    )


def _flush(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Flushes the folder's own entries; Windows has no such call and needs none."""
    if sys.platform == "win32":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
