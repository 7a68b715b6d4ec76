"""The samples that a report shows: rows of the grid in RUN/evaluation/samples.png, one for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.data.decode import decode
from sfumato.evaluation.sets import PictureSet
from sfumato.files import write_json
from sfumato.files.atomic import write_atomic
from sfumato.files.pictures import grid, to_bytes
from sfumato.files.png import encode_png
from sfumato.reporting.inline import of_pixels
from sfumato.reporting.stored import Stored

ROWS, COLUMNS = 20, 10
"""At most so many classes, and pictures of each."""
GAP = 2
_LARGE = 640
"""Pixels: a strip is shown about so wide."""


@dataclass(frozen=True)
class Strip:
    """A row of samples as a picture of its own. name: of its class."""

    name: str
    alt: str
    uri: str
    width: int
    height: int


def pick(drawn: PictureSet, folder: Path, about: str) -> Path:
    """Writes samples.png and samples.json: the first pictures of the first classes, nobody's choice."""
    rows: list[tuple[str, list[int]]] = []
    if drawn.classes is not None:
        for number, name in list(enumerate(drawn.class_names))[:ROWS]:
            of_it = [i for i, c in enumerate(drawn.classes) if c == number][:COLUMNS]
            rows += [(name, of_it)] if of_it else []
    if not rows:
        first = range(min(drawn.count, 6 * COLUMNS))
        rows = [("", list(first[i : i + COLUMNS])) for i in range(0, len(first), COLUMNS)]
    columns = max(len(row) for _, row in rows)
    pictures = [to_bytes(one) for one in drawn.images([i for _, row in rows for i in row])]
    empty = np.zeros_like(pictures[0])
    cells: list[Any] = []
    for _, row in rows:
        cells += [pictures.pop(0) for _ in row] + [empty] * (columns - len(row))
    height, width = drawn.shape[1:]
    said = {
        "format": 1,
        "about": about,
        "rows": [{"name": name, "count": len(row)} for name, row in rows],
        "height": height,
        "width": width,
    }
    write_atomic(folder / "samples.png", [encode_png(grid(cells, columns, gap=GAP), {})])
    write_json(folder / "samples.json", said)
    return folder / "samples.png"


def strips(run: Stored) -> list[Strip]:
    """The rows as they were picked, [] where nothing was."""
    found, path = run.parts.get("samples"), run.home / "samples.png"
    if found is None or not path.is_file():
        return []
    pixels = decode(path).array
    height, width = int(found["height"]), int(found["width"])
    rows: Sequence[dict[str, Any]] = found["rows"]
    out: list[Strip] = []
    for i, row in enumerate(rows):
        top, wide = i * (height + GAP), row["count"] * (width + GAP) - GAP
        strip = np.ascontiguousarray(pixels[top : top + height, :wide])
        times = max(1, round(_LARGE / (COLUMNS * width)))
        name = str(row["name"])
        alt = f"{row['count']} samples of the class {name}" if name else f"{row['count']} samples"
        out.append(Strip(name, alt, of_pixels(strip), wide * times, height * times))
    return out
