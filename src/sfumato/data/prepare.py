"""A data set by one call: found, decoded once, split, and ready to be read by position."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from sfumato.data import cache as store
from sfumato.data.aligned import Aligned, paired, placed
from sfumato.data.bundled import open_source
from sfumato.data.dataset import DataSet
from sfumato.data.fit import Resize
from sfumato.data.ingest import Job, Progress, Wishes, build, check_bad
from sfumato.data.size import LARGEST, check_size
from sfumato.data.source import Flaw, Source
from sfumato.data.split import FEWEST, held_out
from sfumato.errors import DataError


def prepare(
    data: str | Path | Source,
    *,
    size: int | tuple[int, int] | None = None,
    multiple: int = 1,
    channels: int | None = None,
    resize: Resize = "crop",
    hold_out: float | int = 0.05,
    room: float | int = 0.0,
    largest: int = LARGEST,
    cache: Path | None = None,
    limit_bad: float | int = 0.05,
    workers: int | None = None,
    progress: Progress | None = None,
    aligned: str = "",
) -> DataSet:
    """A data set from a folder, an .npz file or a bundled name, decoded once into a cache on disk.

    size: (height, width) or one side, divisible by `multiple`; else from the data, `largest` at most.
    channels: 1, 3 or 4; when not given, 4 if at least half of the pictures have real transparency, else 3
    if any has colour, else 1, what is transparent becoming white. 16-bit pictures make the cache 16-bit.
    room: how much larger the cached pictures are, for random crops (0.125 keeps 36 x 36 for 32 x 32).
    hold_out: the share kept for validation (`split.held_out`). cache: where decoded data is kept;
    $SFUMATO_CACHE or the user's cache folder when not given. limit_bad: the largest share of unreadable
    pictures that is put up with. workers: threads that decode. aligned: the column that names a picture to
    go with each (`aligned.paired`).

    Each picture that cannot be read is in `bad` once, whoever opens the data how often, and leaves the
    others' order alone. Raises DataError, one sentence, when there is nothing usable or the wishes cannot
    be met.
    """
    _check(channels, resize, room, multiple, limit_bad, largest)
    wanted = None if size is None else check_size(size, multiple)
    wishes = Wishes(wanted, multiple, channels, resize, room, largest)
    whole = data if isinstance(data, Source) else open_source(data)
    pairs = paired(whole, aligned) if aligned else None
    source = whole if pairs is None else pairs.pictures
    opening = Opening(cache, limit_bad, workers or min(8, os.cpu_count() or 1), progress)
    pixels, manifest, bad, reused = _opened(source, wishes, opening)
    found = _data_set(source, pixels, manifest, bad, hold_out, reused)
    if pairs is None:
        return found
    same = Wishes(found.size, 1, None, resize, room, largest)
    pixels, manifest, bad, _ = _opened(pairs.aligned, same, opening)
    place = placed(found.names, pairs.names, manifest["names"])
    told = json.dumps([found.fingerprint, manifest["fingerprint"], place.tolist()])
    return replace(
        found,
        aligned=Aligned(pixels, place),
        bad=(*found.bad, *bad),
        fingerprint=hashlib.sha256(told.encode()).hexdigest(),
    )


@dataclass(frozen=True)
class Opening:
    """How pictures are opened: where the cache is, how many may be bad, threads, who is told."""

    cache: Path | None
    limit_bad: float | int
    threads: int
    progress: Progress | None


def _opened(
    source: Source, wishes: Wishes, how: Opening
) -> tuple[np.ndarray, dict[str, Any], tuple[Flaw, ...], bool]:
    """A source's pixels, its manifest, what was bad, and whether the cache was there."""
    key = hashlib.sha256(json.dumps([store.VERSION, source.stamp, repr(wishes)]).encode()).hexdigest()[:24]
    slug = "".join(c if c.isascii() and c.isalnum() else "-" for c in source.name)[:40]
    folder = (store.default_root() if how.cache is None else how.cache) / f"{slug}-{key}"
    found = store.read(folder)
    reused = found is not None
    if found is None:
        build(folder, Job(source, wishes, how.limit_bad, how.threads, how.progress))
        found = store.read(folder)
    if found is None:
        raise DataError(
            f"the decoded pictures in {folder} vanished or were damaged while they were opened: try again"
        )
    pixels, manifest = found
    bad = tuple(Flaw(name, reason) for name, reason in manifest["bad"])
    check_bad(source, bad, len(pixels) + len(bad), how.limit_bad)
    return pixels, manifest, bad, reused


def _check(
    channels: int | None, resize: str, room: float | int, multiple: int, limit_bad: float | int, largest: int
) -> None:
    if channels not in (None, 1, 3, 4):
        raise DataError(
            f"pictures have 1 (grey), 3 (colour) or 4 (with transparency) channels, not {channels}"
        )
    if resize not in get_args(Resize):
        raise DataError(f"resize is crop, stretch or pad, not {resize}")
    if not 0 <= room <= 1:
        raise DataError(f"the room for random crops must lie between 0 and 1, not {room}")
    if not 0 <= limit_bad <= 1:
        raise DataError(f"limit_bad must lie between 0 and 1, not {limit_bad}")
    if multiple < 1 or largest < 1:
        raise DataError(f"multiple and largest are whole numbers from 1, not {multiple} and {largest}")


def _data_set(
    source: Source,
    pixels: np.ndarray,
    manifest: dict[str, Any],
    bad: tuple[Flaw, ...],
    hold_out: float | int,
    reused: bool,
) -> DataSet:
    sides = np.array(held_out(manifest["digests"], hold_out), dtype=bool)
    notes: list[str] = list(manifest["notes"])
    if hold_out > 0 and not sides.any():
        notes.append(f"no picture is held out for validation: there are fewer than {FEWEST} different ones")
    captions = manifest["captions"]
    return DataSet(
        name=source.name,
        pixels=pixels,
        size=(manifest["size"][0], manifest["size"][1]),
        train=np.flatnonzero(~sides),
        held=np.flatnonzero(sides),
        labels=None if manifest["labels"] is None else np.array(manifest["labels"], dtype=np.int64),
        label_names=tuple(manifest["label_names"]),
        captions=None if captions is None else tuple(tuple(texts) for texts in captions),
        names=tuple(manifest["names"]),
        columns=tuple(manifest["columns"]),
        digests=tuple(manifest["digests"]),
        bad=bad,
        flaws=tuple(Flaw(name, reason) for name, reason in manifest["flaws"]),
        notes=tuple(notes),
        fingerprint=manifest["fingerprint"],
        reused=reused,
    )
