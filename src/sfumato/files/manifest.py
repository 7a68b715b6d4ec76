"""Folders that are whole or not there, with a list of what is in them.

A folder is built as `NAME.tmp-PID`; every file is fsynced; `manifest.json` (size and sha256 of each file)
comes last; then the folder is renamed and its parent fsynced. A reader that finds the name finds everything.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from sfumato.errors import ModelFileError, RunError
from sfumato.files.atomic import sync_folder, temporary_name, told, write_synced
from sfumato.files.json_file import json_bytes, read_json
from sfumato.files.sniff import open_regular, read_all

MANIFEST = "manifest.json"
FORMAT = 1
"""Version of the manifest and of what it promises; readers refuse versions they do not know."""

Listed = dict[str, tuple[str, int]]
"""File name within the folder (with `/`) -> its sha256 and size."""


def hash_file(path: Path) -> tuple[str, int]:
    """The sha256 and size of a file. Raises ModelFileError if it cannot be read."""
    digest = hashlib.sha256()
    with open_regular(path) as (handle, size):
        for start in range(0, size, 1 << 22):
            digest.update(read_all(handle, path, min(1 << 22, size - start), start))
    return digest.hexdigest(), size


def _names(folder: Path) -> list[str]:
    return sorted(
        p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()
    )


def seal(temporary: Path, path: Path, listed: Listed) -> None:
    """Writes the manifest, makes everything durable and gives the folder its name. OSErrors pass through."""
    files = {name: {"sha256": digest, "size": size} for name, (digest, size) in listed.items()}
    write_synced(temporary / MANIFEST, [json_bytes({"format": FORMAT, "files": files})])
    for folder in sorted((p for p in temporary.rglob("*") if p.is_dir()), reverse=True):
        sync_folder(folder)
    sync_folder(temporary)
    os.rename(temporary, path)
    sync_folder(path.parent)


def build(path: Path, fill: Callable[[Path], Listed]) -> None:
    """Makes the folder `path` from what `fill` puts into an empty one and lists, every file fsynced."""
    temporary = temporary_name(path)
    with told("writing", path):
        if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
            raise RunError(f"{path}: is there already: choose another name or remove it first")
        try:
            if temporary.exists():
                shutil.rmtree(temporary)
            temporary.mkdir(parents=True)
            seal(temporary, path, fill(temporary))
        except BaseException:
            with suppress(OSError):
                shutil.rmtree(temporary)
            raise


def write_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Makes the folder `path`, whole or not at all: `write` fills the empty folder that it is given.

    Raises RunError if the name is taken or the disk refuses (with the system's words); nothing is then left
    behind.
    """

    def fill(folder: Path) -> Listed:
        write(folder)
        listed: Listed = {}
        for name in _names(folder):
            if name == MANIFEST or (folder / name).is_symlink():
                raise RunError(
                    f"{path}: a folder with a manifest cannot hold {name}: give it another form or name"
                )
            handle = os.open(folder / name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            listed[name] = hash_file(folder / name)
        return listed

    build(path, fill)


def read_manifest(path: Path) -> Listed:
    """What a folder should hold. Raises RunError for a manifest that is missing, damaged or unknown."""
    place = path / MANIFEST
    if not path.is_dir():
        raise RunError(f"{path}: no such folder: check the path")
    if not place.is_file():
        raise RunError(f"{place}: missing, so this folder was not finished or was damaged: use another copy")
    try:
        value = read_json(place)
    except ModelFileError as error:
        raise RunError(str(error)) from None
    if not isinstance(value, dict) or not isinstance(value.get("files"), dict):
        raise RunError(f"{place}: no manifest of ours: use another copy")
    if value.get("format") != FORMAT or type(value["format"]) is not int:
        words = f"{place}: format version {value.get('format')!r:.40}, this program knows version {FORMAT}"
        raise RunError(f"{words}: open it with the version of sfumato that wrote it")
    listed: Listed = {}
    for name, about in value["files"].items():
        digest, size = (about.get("sha256"), about.get("size")) if isinstance(about, dict) else (None, None)
        if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest) or type(size) is not int:
            raise RunError(f"{place}: damaged at {name!r:.80}: use another copy")
        listed[name] = (digest, size)
    return listed


def check_listed(path: Path, listed: Mapping[str, tuple[str, int]]) -> None:
    """Raises RunError unless every listed file is there in its size. Others (a `.DS_Store`) do not matter."""
    there = {name for name in _names(path) if name != MANIFEST}
    for name, (_, size) in listed.items():
        if name not in there:
            raise RunError(f"{path / name}: missing, though {MANIFEST} lists it: use another copy")
        found = (path / name).stat().st_size
        if found != size:
            raise RunError(f"{path / name}: {found:,} bytes, {MANIFEST} says {size:,}: use another copy")


def verify_folder(path: Path) -> None:
    """Reads a whole folder and compares it with its manifest.

    Raises RunError naming the file and the reason: missing, wrong size, wrong hash, unknown format version.
    """
    with told("reading", path):
        listed = read_manifest(path)
        check_listed(path, listed)
        for name, (digest, _) in listed.items():
            try:
                found, _ = hash_file(path / name)
            except ModelFileError as error:
                raise RunError(str(error)) from None
            if found != digest:
                raise RunError(f"{path / name}: its sha256 is not that in {MANIFEST}: use another copy")
