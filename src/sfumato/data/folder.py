"""A folder of pictures, of any nesting, with classes and captions wherever people keep them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from sfumato.data import decode as door
from sfumato.data.captions import read_captions
from sfumato.data.source import Flaw, Item, Source, natural, settle_labels
from sfumato.data.tables import TABLES, Facts, Tables
from sfumato.errors import DataError

PICTURES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".apng")
_OTHER_PICTURES = (
    *(".svg", ".eps", ".psd", ".ico", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".tga", ".exr", ".hdr"),
    *(".fits", ".ppm", ".pgm", ".pbm", ".pnm", ".pcx", ".dds", ".cur", ".wmf", ".emf", ".raw", ".dng"),
)
"""Pictures that people keep and that are not read: reported as such, not passed over in silence."""

_SIDECARS = (".txt", ".caption")


def read_folder(root: Path) -> Source:
    """Lists a folder's pictures by name order; decodes none.

    Classes: from a table if one gives them; else, when every picture lies in a sub-folder and there are two
    or more, the first-level folder's name. Captions: from a table, and from NAME.txt or NAME.caption beside
    the picture, one a line. NAME.json is a line of a table. Hidden files are passed over. Raises DataError
    for a folder without pictures.
    """
    try:
        files = sorted(_walk(root), key=natural)
    except OSError as error:
        raise DataError(
            f"{door.shown(error.filename or root)} cannot be read ({error.strerror or error})"
        ) from None
    names = [name for name in files if name.lower().endswith(PICTURES + _OTHER_PICTURES)]
    if not names:
        raise DataError(
            f"there are no pictures in {door.shown(root)}, that is, no {', '.join(PICTURES)} files"
        )
    tables = Tables()
    for name in files:
        if name.rpartition("/")[2] in TABLES:
            tables.read(root / name, name)
    present = set(files)
    for name in names:
        beside = f"{name.rpartition('.')[0]}.json"
        if beside in present and beside.rpartition("/")[2] not in TABLES:
            tables.read_beside(root / beside, beside, name)
    flaws = [*tables.flaws, *_absent(tables, set(names))]
    labels, label_names, notes = _labels(root, names, tables)
    items = [
        _item(root, name, label, tables.facts.get(name, Facts()), present, flaws)
        for name, label in zip(names, labels)
    ]
    paths = [root / name for name in names]
    return Source(
        name=root.resolve().name,
        items=tuple(items),
        label_names=label_names,
        flaws=tuple(flaws),
        notes=notes,
        stamp=_stamp(paths, items),
        header=partial(_header, paths),
        read=partial(_read, paths),
    )


def _header(paths: list[Path], i: int) -> door.Header:
    return door.probe(paths[i])


def _read(paths: list[Path], i: int) -> door.Picture:
    return door.decode(paths[i])


def _walk(root: Path) -> Iterator[str]:
    """The names of all files, relative to the root, with "/"; links to folders are followed, but never in a
    ring.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        about = os.stat(root / inside)
        if (about.st_dev, about.st_ino) in seen and about.st_ino:
            continue
        seen.add((about.st_dev, about.st_ino))
        with os.scandir(root / inside) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                name = f"{inside}/{entry.name}" if inside else entry.name
                if _is_folder(entry):
                    waiting.append(name)
                else:
                    yield name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a ring of links; the door says so when it is read
        return False


def _labels(
    root: Path, names: list[str], tables: Tables
) -> tuple[list[str | None], tuple[str, ...], tuple[str, ...]]:
    if tables.classes:
        given = [tables.facts[name].label if name in tables.facts else None for name in names]
        return settle_labels(given)
    folders = [name.partition("/")[0] if "/" in name else None for name in names]
    outside = sum(folder is None for folder in folders)
    if outside == len(names):
        return folders, (), ()
    if outside:
        note = f"{outside} of {len(names)} pictures lie in no sub-folder: taken as pictures without classes"
        return [None] * len(names), (), (note,)
    return settle_labels(folders)


def _item(
    root: Path, name: str, label: str | None, facts: Facts, present: set[str], flaws: list[Flaw]
) -> Item:
    captions = list(facts.captions)
    for ending in _SIDECARS:
        beside = name.rpartition(".")[0] + ending
        if beside in present:
            lines, flaw = read_captions(root / beside, beside)
            captions.extend(line for line in lines if line not in captions)
            if flaw is not None and flaw not in flaws:
                flaws.append(flaw)
    return Item(name, label, tuple(captions), tuple(facts.columns.items()))


def _absent(tables: Tables, names: set[str]) -> list[Flaw]:
    return [Flaw(name, "a table names it, but it is not there") for name in tables.facts if name not in names]


def _stamp(paths: list[Path], items: list[Item]) -> str:
    hasher = hashlib.sha256()
    for path, item in zip(paths, items):
        try:
            about = path.stat()
            state = (about.st_size, about.st_mtime_ns)
        except OSError:
            state = (0, 0)
        hasher.update(repr((os.fsencode(path.absolute()), item, state)).encode("utf-8", "backslashreplace"))
    return hasher.hexdigest()
