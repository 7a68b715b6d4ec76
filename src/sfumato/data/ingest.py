"""Decoding a whole source into the cache, once: sizes and channels chosen, bad pictures set aside by name."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sfumato.data import cache as store
from sfumato.data.decode import BadPicture, Header, shown
from sfumato.data.fit import Resize, digest, fit, plain, with_channels
from sfumato.data.size import choose_size, rounded
from sfumato.data.source import Flaw, Source
from sfumato.errors import DataError, ImageFileError

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Told (done, total) while pictures are decoded."""

_CHUNK = 32
_NO_PIXELS = np.empty(0, np.uint8)


@dataclass(frozen=True)
class Wishes:
    """What the caller asked of the pictures; together with the files it decides which cache is used."""

    size: tuple[int, int] | None
    multiple: int
    channels: int | None
    resize: Resize
    room: float | int
    largest: int


@dataclass(frozen=True)
class Form:
    """What a picture becomes: stored (H, W), channels, 16 bits or 8."""

    size: tuple[int, int]
    stored: tuple[int, int]
    channels: int
    deep: bool


@dataclass(frozen=True)
class Ready:
    """One decoded picture in its form, and what it was."""

    pixels: np.ndarray
    digest: str
    clear: bool
    colour: bool
    small: bool


@dataclass(frozen=True)
class Job:
    """A source, what is wanted of it, and how to work: `threads` decode, `progress` is told."""

    source: Source
    wishes: Wishes
    limit_bad: float | int
    threads: int
    progress: Progress | None


def build(folder: Path, job: Job) -> None:
    """Decodes a source into a cache at this folder. Each bad picture is logged once, and is in the
    manifest.
    """
    source = job.source
    headers = list(
        in_order(range(len(source.items)), lambda i: attempt(source, i, source.header), job.threads)
    )
    check_bad(source, tuple(h for h in headers if isinstance(h, Flaw)), len(headers), job.limit_bad)
    good = [h for h in headers if isinstance(h, Header)]
    form = _form(good, job.wishes)
    a_row = form.stored[0] * form.stored[1] * form.channels * (2 if form.deep else 1)
    narrows = job.wishes.channels is None and form.channels > 1
    need = a_row * len(good) * (2 if narrows else 1) + 2000 * len(good) + 1_000_000
    store.write(folder, need, lambda into: _decode_all(into, job, headers))


def _decode_all(into: Path, job: Job, headers: list[Header | Flaw]) -> dict[str, Any]:
    """Fills pixels.bin and returns the manifest.

    A picture that fails only when decoded may have had a say in the form; if so, all is done again without
    it, so that the bad ones leave no trace in the good.
    """
    while True:
        form = _form([h for h in headers if isinstance(h, Header)], job.wishes)
        results = _fill(into / "pixels.bin", job, form, headers)
        bad = [r for r in results if isinstance(r, Flaw)]
        check_bad(job.source, tuple(bad), len(results), job.limit_bad)
        headers = [r if isinstance(r, Flaw) else h for r, h in zip(results, headers)]
        if _form([h for h in headers if isinstance(h, Header)], job.wishes) == form:
            break
    for flaw in bad:
        log.warning("%s", flaw)
    kept = [i for i, r in enumerate(results) if isinstance(r, Ready)]
    seen = [r for r in results if isinstance(r, Ready)]
    channels = form.channels if job.wishes.channels else _channels_of(seen)
    if channels != form.channels:
        _narrow(into / "pixels.bin", (len(kept), *form.stored, form.channels), form.deep, channels)
    return _manifest(job.source, form, channels, kept, seen, bad)


def _form(headers: list[Header], wishes: Wishes) -> Form:
    """What to decode into: with channels still open, all that some file may hold."""
    size = wishes.size or choose_size([(h.height, h.width) for h in headers], wishes.multiple, wishes.largest)
    stored = (rounded(size[0] * (1 + wishes.room), 1), rounded(size[1] * (1 + wishes.room), 1))
    widest = 4 if any(h.has_alpha for h in headers) else 3 if any(h.has_colour for h in headers) else 1
    return Form(size, stored, wishes.channels or widest, any("16" in h.mode for h in headers))


def _fill(pixels: Path, job: Job, form: Form, headers: list[Header | Flaw]) -> list[Ready | Flaw]:
    """Decodes every picture, the good ones' pixels one after the other into the file, not kept in memory."""

    def one(i: int) -> Ready | Flaw:
        header = headers[i]
        if isinstance(header, Flaw):
            return header
        return attempt(job.source, i, lambda j: _ready(job.source, j, job.wishes, form))

    results: list[Ready | Flaw] = []
    total = len(headers)
    with pixels.open("wb") as file:
        for i, result in enumerate(in_order(range(total), one, job.threads)):
            if isinstance(result, Ready):
                file.write(result.pixels.data)
                result = replace(result, pixels=_NO_PIXELS)
            results.append(result)
            if job.progress is not None and (i % _CHUNK == _CHUNK - 1 or i == total - 1):
                job.progress(i + 1, total)
        file.flush()
        os.fsync(file.fileno())
    return results


def _ready(source: Source, i: int, wishes: Wishes, form: Form) -> Ready:
    a = source.read(i).array
    least = plain(a)
    pixels = np.ascontiguousarray(fit(a, form.stored, wishes.resize, form.channels, form.deep))
    return Ready(
        pixels=pixels,
        digest=digest(least),
        clear=least.shape[2] in (2, 4),
        colour=least.shape[2] >= 3,
        small=min(a.shape[0] / form.size[0], a.shape[1] / form.size[1]) < 0.5,
    )


def _channels_of(seen: list[Ready]) -> int:
    if 2 * sum(one.clear for one in seen) >= len(seen):
        return 4
    return 3 if any(one.colour for one in seen) else 1


def _narrow(path: Path, shape: tuple[int, int, int, int], deep: bool, channels: int) -> None:
    """Rewrites pixels.bin with fewer channels, some rows at a time."""
    wide = np.memmap(path, dtype=np.uint16 if deep else np.uint8, mode="r", shape=shape)
    other = path.with_suffix(".narrow")
    with other.open("wb") as file:
        for start in range(0, shape[0], 1024):
            rows = with_channels(np.asarray(wide[start : start + 1024]), channels)
            file.write(np.ascontiguousarray(rows).data)
        file.flush()
        os.fsync(file.fileno())
    del wide  # Windows does not replace a file that is mapped
    other.replace(path)


def _manifest(
    source: Source, form: Form, channels: int, kept: list[int], seen: list[Ready], bad: list[Flaw]
) -> dict[str, Any]:
    items = [source.items[i] for i in kept]
    number = {name: i for i, name in enumerate(source.label_names)}
    labels = [-1 if item.label is None else number[item.label] for item in items] if number else None
    captions = [item.captions for item in items] if any(item.captions for item in items) else None
    dtype = "uint16" if form.deep else "uint8"
    told = [
        channels,
        dtype,
        form.size,
        form.stored,
        source.label_names,
        [one.digest for one in seen],
        labels,
        captions,
    ]
    notes = list(source.notes)
    small = sum(one.small for one in seen)
    if small:
        notes.append(f"{small} of {len(seen)} pictures are less than half of {form.size[0]} x {form.size[1]}")
    return {
        "version": store.VERSION,
        "shape": [len(kept), *form.stored, channels],
        "dtype": dtype,
        "size": list(form.size),
        "names": [item.name for item in items],
        "digests": [one.digest for one in seen],
        "labels": labels,
        "label_names": list(source.label_names),
        "captions": captions,
        "columns": [dict(item.columns) for item in items],
        "bad": [[flaw.name, flaw.reason] for flaw in bad],
        "flaws": [[flaw.name, flaw.reason] for flaw in source.flaws],
        "notes": notes,
        "fingerprint": hashlib.sha256(json.dumps(told).encode()).hexdigest(),
    }


def check_bad(source: Source, bad: tuple[Flaw, ...], total: int, limit: float | int) -> None:
    """Raises DataError, with a count and an example, when more than `limit` of them are bad, or all."""
    if len(bad) == total:
        raise DataError(
            f"none of the {total} pictures in {shown(source.name)} can be read; the first: {bad[0]}"
        )
    if len(bad) <= limit * total:
        return
    kinds = Counter(flaw.reason for flaw in bad).most_common(1)[0]
    raise DataError(
        f"{len(bad)} of {total} pictures in {shown(source.name)} cannot be read, more than {limit:.0%}: "
        f"for example {bad[0]}; {kinds[1]} of them because {kinds[0]}; remove or mend them "
        "(`sfumato inspect` lists them all)"
    )


def attempt(source: Source, i: int, read: Callable[[int], Result]) -> Result | Flaw:
    """What `read` gives for picture i, or, if it cannot be read, its name and the reason."""
    try:
        return read(i)
    except BadPicture as error:
        return Flaw(shown(source.items[i].name), error.reason)
    except (ImageFileError, MemoryError) as error:
        return Flaw(shown(source.items[i].name), str(error) or "there is not enough memory to resize it")


def in_order(items: Iterable[int], do: Callable[[int], Result], threads: int) -> Iterator[Result]:
    """do(i) for each i by several threads, results in order, only a few chunks in memory."""
    waiting: deque[Future[list[Result]]] = deque()
    chunk: list[int] = []

    def work(numbers: list[int]) -> list[Result]:
        return [do(i) for i in numbers]

    pool = ThreadPoolExecutor(threads, thread_name_prefix="sfumato-decode")
    try:
        for i in items:
            chunk.append(i)
            if len(chunk) == _CHUNK:
                waiting.append(pool.submit(work, chunk))
                chunk = []
            if len(waiting) > 2 * threads:
                yield from waiting.popleft().result()
        if chunk:
            waiting.append(pool.submit(work, chunk))
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
