"""What a data set holds and what is wrong with it, before anyone trains on it: nothing is written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sfumato.data.bundled import open_source
from sfumato.data.decode import shown
from sfumato.data.fit import digest, plain
from sfumato.data.ingest import Progress, attempt, in_order
from sfumato.data.size import choose_size
from sfumato.data.source import Flaw, Source
from sfumato.errors import DataError

TINY = 16
"""A picture with a side below this many pixels is called tiny."""


@dataclass(frozen=True)
class Seen:
    """One picture that could be read."""

    height: int
    width: int
    mode: str
    format: str
    digest: str
    clear: bool
    colour: bool


@dataclass(frozen=True)
class Inspection:
    """sizes, modes, formats: how many pictures have each, the commonest first; sizes are "width x height".

    classes: pictures a class; imbalance: the largest class over the smallest, 1 when alike or without
    classes. bad: what cannot be read; flaws: captions and table rows that cannot be used; duplicates:
    groups of pictures that are the same to the pixel; tiny: with a side below 16. without_caption counts
    only where some have one. train_size (height, width) and channels are what `prepare` would choose.
    """

    name: str
    pictures: int
    good: int
    sizes: dict[str, int]
    modes: dict[str, int]
    formats: dict[str, int]
    classes: dict[str, int]
    imbalance: float
    with_caption: int
    without_caption: tuple[str, ...]
    transparent: int
    bad: tuple[Flaw, ...]
    flaws: tuple[Flaw, ...]
    duplicates: tuple[tuple[str, ...], ...]
    tiny: tuple[str, ...]
    notes: tuple[str, ...]
    train_size: tuple[int, int]
    channels: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def inspect(
    data: str | Path | Source,
    *,
    multiple: int = 4,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Decodes every picture of a folder, an .npz file or a bundled set and says what was seen.

    multiple: what the suggested size must be divisible by; 4 is what `sfumato train` asks for.
    Raises DataError when there is nothing there, or nothing that can be read.
    """
    source = data if isinstance(data, Source) else open_source(data)
    total = len(source.items)
    seen: dict[str, Seen] = {}
    bad: list[Flaw] = []
    threads = workers or min(8, os.cpu_count() or 1)
    look = lambda i: attempt(source, i, lambda j: _look(source, j))
    for i, result in enumerate(in_order(range(total), look, threads)):
        if isinstance(result, Flaw):
            bad.append(result)
        else:
            seen[source.items[i].name] = result
        if progress is not None and (i % 32 == 31 or i == total - 1):
            progress(i + 1, total)
    if not seen:
        raise DataError(
            f"none of the {total} pictures in {shown(source.name)} can be read; the first: {bad[0]}"
        )
    return _inspection(source, seen, tuple(bad), multiple)


def _look(source: Source, i: int) -> Seen:
    picture = source.read(i)
    a = picture.array
    least = plain(a)
    return Seen(
        height=a.shape[0],
        width=a.shape[1],
        mode=picture.mode,
        format=picture.format,
        digest=digest(least),
        clear=least.shape[2] in (2, 4),
        colour=least.shape[2] >= 3,
    )


def _inspection(source: Source, seen: dict[str, Seen], bad: tuple[Flaw, ...], multiple: int) -> Inspection:
    items = [item for item in source.items if item.name in seen]
    classes = Counter(item.label for item in items if item.label is not None)
    counts = [classes.get(name, 0) for name in source.label_names]
    captioned = sum(bool(item.captions) for item in items)
    clear = sum(one.clear for one in seen.values())
    groups: dict[str, list[str]] = {}
    for name, one in seen.items():
        groups.setdefault(one.digest, []).append(name)
    colour = any(one.colour for one in seen.values())
    return Inspection(
        name=source.name,
        pictures=len(source.items),
        good=len(seen),
        sizes=_counted(f"{one.width} x {one.height}" for one in seen.values()),
        modes=_counted(one.mode for one in seen.values()),
        formats=_counted(one.format for one in seen.values()),
        classes=dict(zip(source.label_names, counts)),
        imbalance=max(counts) / max(1, min(counts)) if counts else 1.0,
        with_caption=captioned,
        without_caption=tuple(item.name for item in items if not item.captions) if captioned else (),
        transparent=clear,
        bad=bad,
        flaws=source.flaws,
        duplicates=tuple(tuple(group) for group in groups.values() if len(group) > 1),
        tiny=tuple(name for name, one in seen.items() if min(one.height, one.width) < TINY),
        notes=source.notes,
        train_size=choose_size([(one.height, one.width) for one in seen.values()], multiple),
        channels=4 if 2 * clear >= len(seen) else 3 if colour else 1,
    )


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
