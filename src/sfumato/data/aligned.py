"""Pictures that go with the pictures, pixel by pixel: masks, edges, sketches, small versions, named by a
column of the tables.

    file_name,outline
    cats/1.png,outlines/1.png

Paths are as seen from the picture's own folder, or else from the root. Without a column they lie beside the
picture: 1.outline.png for 1.png. They are conditions, never pictures to train on, and so are others in
folders of theirs alone.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from sfumato.data import augment as augmentation
from sfumato.data.source import Flaw, Item, Source, settle_labels
from sfumato.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True)
class Aligned:
    """pixels: (k, H', W', C) uint8 or uint16, a memory map. place: (rows,) int64, where the picture of each
    row of the data stands in it, -1 for none."""

    pixels: np.ndarray
    place: np.ndarray

    @property
    def channels(self) -> int:
        """Of what a model is shown: the picture's, and a plane that is 1 where there is one."""
        return self.pixels.shape[3] + 1

    def shown(
        self, rows: np.ndarray, size: tuple[int, int], flip: bool = False, drawn: np.ndarray | None = None
    ) -> Tensor:
        """(B, channels, *size) in [-1, 1]; zeros where there is none. Cut and flipped as `drawn` says
        (`augment.draws`), or their middle."""
        place = self.place[rows]
        stored = np.asarray(self.pixels[np.maximum(place, 0)])
        if drawn is None:
            top, left = (stored.shape[1] - size[0]) // 2, (stored.shape[2] - size[1]) // 2
            stored = stored[:, top : top + size[0], left : left + size[1]]
        else:
            stored = augmentation.place(stored, size, flip, drawn)
        return with_trust(stored) * torch.from_numpy(place >= 0)[:, None, None, None]


def with_trust(stored: np.ndarray) -> Tensor:
    """(B, H, W, C) whole numbers -> float32 (B, C + 1, H, W): in [-1, 1], and a plane of ones."""
    half = np.float32(np.iinfo(stored.dtype).max / 2)
    values = torch.from_numpy(stored.transpose(0, 3, 1, 2).astype(np.float32) / half - np.float32(1))
    return torch.cat([values, torch.ones_like(values[:, :1])], dim=1)


@dataclass(frozen=True)
class Pairs:
    """A source without the pictures that a column names, those as a source of their own, and the name of each
    picture's own, "" for none."""

    pictures: Source
    aligned: Source
    names: dict[str, str]


def paired(source: Source, column: str) -> Pairs:
    """Takes a source apart by a column of its tables. Raises DataError if no picture has one."""
    at = {item.name: i for i, item in enumerate(source.items)}
    sidecars = {
        _stem(name).removesuffix(f".{column}"): name for name in at if _stem(name).endswith(f".{column}")
    }
    names: dict[str, str] = {}
    flaws: list[Flaw] = []
    for item in source.items:
        said = dict(item.columns).get(column, "").strip()
        found = _found(item, said, at) if said else sidecars.get(_stem(item.name), "")
        if said and not found:
            flaws.append(Flaw(item.name, f"its {column}, {said[:200]!r}, is no picture of this folder"))
        names[item.name] = found
    own = sorted({name for name in names.values() if name}, key=lambda name: at[name])
    if not own:
        named = f"no column {column} names one, and there is no NAME.{column}.png"
        why = f": {flaws[0]}" if flaws else f": {named}"
        raise DataError(f"no picture of {source.name} has a picture beside it{why}")
    described = {posixpath.dirname(item.name) for item in source.items if item.columns or names[item.name]}
    apart = {posixpath.dirname(name) for name in own} - described
    beside = {*own, *(item.name for item in source.items if posixpath.dirname(item.name) in apart)}
    kept = [i for i, item in enumerate(source.items) if item.name not in beside]
    spare = len(beside) - len(own)
    left = (f"{spare} pictures beside those of {column} belong to none: left out",) if spare else ()
    labels = [source.items[i].label for i in kept]
    of_all = settle_labels([item.label for item in source.items], source.label_names)[2]
    settled, label_names, notes = settle_labels(labels, _left(source.label_names, labels))
    items = [replace(source.items[i], label=label) for i, label in zip(kept, settled)]
    pictures = replace(
        _part(source, source.name, kept, items),
        label_names=label_names,
        flaws=(*source.flaws, *flaws),
        notes=(*(note for note in source.notes if note not in of_all), *notes, *left),
    )
    bare = _part(source, f"{source.name}-{column}", [at[name] for name in own], [Item(name) for name in own])
    return Pairs(pictures, replace(bare, label_names=(), flaws=(), notes=()), names)


def named(source: Source, column: str) -> str:
    """The column, where a source's tables or files beside its pictures have it, and "" where they do not: for
    data of which nobody knows whether it is what a model with such a column was trained on."""
    ending = f".{column}"
    known = any(column in dict(item.columns) or _stem(item.name).endswith(ending) for item in source.items)
    return column if column and known else ""


def placed(names: Sequence[str], own: dict[str, str], there: Sequence[str]) -> np.ndarray:
    """Where the aligned picture of each named picture stands among those that are there, -1 for none."""
    at = {name: i for i, name in enumerate(there)}
    return np.array([at.get(own.get(name, ""), -1) for name in names], dtype=np.int64)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _found(item: Item, said: str, at: dict[str, int]) -> str:
    beside = posixpath.normpath(posixpath.join(posixpath.dirname(item.name), said))
    return next((name for name in (beside, posixpath.normpath(said)) if name in at), "")


def _left(names: tuple[str, ...], labels: list[str | None]) -> tuple[str, ...]:
    return tuple(name for name in names if name in labels)


def _part(source: Source, name: str, rows: list[int], items: list[Item]) -> Source:
    """Some of a source's pictures, as these items."""
    stamp = hashlib.sha256(repr((source.stamp, name, items)).encode("utf-8", "backslashreplace")).hexdigest()
    header, read = partial(_at, source.header, rows), partial(_at, source.read, rows)
    return replace(source, name=name, items=tuple(items), stamp=stamp, header=header, read=read)


def _at(do: Callable[[int], T], rows: list[int], i: int) -> T:
    return do(rows[i])
