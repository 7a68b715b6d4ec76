"""A contact sheet: each sample above the training picture that it is nearest to, the most similar first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.errors import SettingsError
from sfumato.evaluation.novelty import Novelty
from sfumato.evaluation.sets import PictureSet
from sfumato.files import write_json
from sfumato.files.atomic import write_atomic
from sfumato.files.pictures import grid, to_bytes
from sfumato.files.png import encode_png

COLUMNS = 12
ENLARGED = 64
"""Small pictures are enlarged to about this side, so that people can see them."""


def write_contact(
    path: Path,
    found: Novelty,
    samples: PictureSet,
    train: PictureSet,
    names: Sequence[str] | None = None,
    most: int = 2 * COLUMNS,
) -> None:
    """Writes x.png, and beside it x.json with which sample and which training picture stand where.

    names: of the training pictures, row by row, such as their files. The sheet shows pictures that are not
    synthetic, so it does not bear the mark of synthetic ones. Raises SettingsError for another ending or
    names that do not fit.
    """
    if path.suffix.lower() != ".png" or most < 1:
        raise SettingsError(f"{path}: a contact sheet is written as x.png, with at least one picture")
    if names is not None and len(names) != train.count:
        raise SettingsError(f"{len(names)} names for {train.count} training pictures: give each its own")
    shown: list[int] = found.order[:most].tolist()
    entries = [_entry(found, row, names) for row in shown]
    nearest = [entry["training_picture"] for entry in entries]
    pictures: list[np.ndarray] = []
    for start in range(0, len(shown), COLUMNS):
        part = slice(start, start + COLUMNS)
        for some, rows in ((samples, shown[part]), (train, nearest[part])):
            line = [_enlarged(to_bytes(one)) for one in some.images(rows)]
            pictures += line + [np.zeros_like(line[0])] * (min(COLUMNS, len(shown)) - len(line))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, [encode_png(grid(pictures, COLUMNS), {})])
    write_json(path.with_suffix(".json"), {"columns": COLUMNS, "pairs": entries})


def _entry(found: Novelty, sample: int, names: Sequence[str] | None) -> dict[str, Any]:
    space = found.closest(sample)
    row = int(space.nearest[sample])
    said: dict[str, Any] = {
        "sample": sample,
        "training_picture": row,
        "space": space.space,
        "distance": float(space.distance[sample]),
        "score": float(space.score[sample]),
        "p": float(space.p[sample]),
        "copy": bool(found.copies[sample]),
    }
    return said if names is None else said | {"name": names[row]}


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    times = max(1, ENLARGED // max(pixels.shape[:2]))
    return pixels.repeat(times, 0).repeat(times, 1)
