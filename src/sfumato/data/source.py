"""What a source of pictures is, before anything is decoded: a list of names with their classes and
captions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sfumato.data.decode import Header, Picture


@dataclass(frozen=True)
class Item:
    """One picture: its name inside the source ("cats/1.png"), class, captions and any other columns."""

    name: str
    label: str | None = None
    captions: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Flaw:
    """Something wrong with one file, as it is reported: once."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True)
class Source:
    """Pictures that can be read by number: `header(i)` and `read(i)` raise ImageFileError.

    label_names: all classes in order, () without classes. flaws: captions and table rows that could not be
    used; bad pictures are found only when read. stamp: changes whenever a file, a class or a caption does.
    """

    name: str
    items: tuple[Item, ...]
    label_names: tuple[str, ...]
    flaws: tuple[Flaw, ...]
    notes: tuple[str, ...]
    stamp: str
    header: Callable[[int], Header]
    read: Callable[[int], Picture]


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sorting key under which "9" comes before "10"."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return tuple((0, int(p), p) if p.isascii() and p.isdigit() else (1, 0, p) for p in parts)


def settle_labels(
    labels: list[str | None], names: Iterable[str] = ()
) -> tuple[list[str | None], tuple[str, ...], tuple[str, ...]]:
    """The labels, the classes in order and what to note: a lone class is none; a picture without a class is
    one of which the class is not known.
    """
    missing = sum(label is None for label in labels)
    if missing == len(labels):
        return labels, (), ()
    order = tuple(names) or tuple(sorted({label for label in labels if label is not None}, key=natural))
    if len(order) == 1:
        return [None] * len(labels), (), (f"all pictures are of one class, {order[0]}: taken as no class",)
    unknown = f"of {missing} of {len(labels)} pictures the class is not known"
    return labels, order, (unknown,) if missing else ()
