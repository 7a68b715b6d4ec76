"""What an extractor sees in a whole set of pictures: batch by batch, kept on disk under the content's hash.

Pictures go through in the order of their content, not of the set, so that neither the set's order nor who
asked first has a say in the numbers. In memory there is one batch, and the result as far as it is looked at.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfumato.data.cache import default_root
from sfumato.errors import RunError, SettingsError
from sfumato.evaluation.features.seen import Extractor, Features, joined
from sfumato.evaluation.sets import PictureSet
from sfumato.files.atomic import Chunk, told, write_atomic

Told = Callable[[int, int], None]
"""Told (done, n) on the way."""
FORMAT = 1
HEADER = 256
STALE = 24 * 3600.0
"""Seconds after which what a killed process left half-written is removed."""


def default_cache() -> Path:
    """Where features are kept if nobody says: beside the decoded pictures. Deleting it loses time alone."""
    return default_root() / "features"


def features_of(
    pictures: PictureSet,
    extractor: Extractor,
    batch: int = 64,
    cache: Path | None = None,
    progress: Told | None = None,
) -> Features:
    """What the extractor sees in all of them, row i of picture i.

    The same pictures give the same numbers in any order, and to 1e-5 in batches of any size. With `cache`, a
    folder, they are written there as they come and found again by the hashes of the pictures and of the
    weights and by the resize protocol; they are then mapped and not read. Raises SettingsError, RunError.
    """
    if batch < 1 or not pictures.count:
        raise SettingsError(f"{pictures.count} pictures in batches of {batch}: give at least 1")
    rows = pictures.order
    seen = _seen(pictures, extractor, batch, rows, progress)
    if cache is None:
        return _in_order(joined(list(seen)), rows)
    key = hashlib.sha256(
        json.dumps([FORMAT, pictures.sha256, extractor.name, extractor.sha256, extractor.resize]).encode()
    ).hexdigest()
    path = cache / f"{extractor.name}-{key[:32]}.rows"
    found = _read(path, key, pictures.count)
    if found is None:
        with told("making room for features", cache):
            cache.mkdir(parents=True, exist_ok=True)
            _sweep(cache)
        write_atomic(path, _file(seen, key, pictures.count))
        found = _read(path, key, pictures.count)
    if found is None:
        raise RunError(f"{path}: changed while it was written: try again")
    return _in_order(found, rows)


def _seen(
    pictures: PictureSet, extractor: Extractor, batch: int, rows: np.ndarray, progress: Told | None
) -> Iterator[Features]:
    done = 0
    for images in pictures.batches(batch, rows):
        yield extractor(images)
        done += len(images)
        if progress is not None:
            progress(done, pictures.count)


def _in_order(sorted_by_content: Features, rows: np.ndarray) -> Features:
    """Each row at its picture's place in the set; nothing is copied where it stands there already."""
    if bool((rows == np.arange(len(rows))).all()):
        return sorted_by_content
    back = torch.from_numpy(np.argsort(rows, kind="stable"))
    pooled, spatial, logits = sorted_by_content
    return Features(
        pooled[back],
        None if spatial is None else spatial[back],
        None if logits is None else logits[back],
    )


def _file(seen: Iterator[Features], key: str, count: int) -> Iterator[Chunk]:
    """The file, batch by batch: a header, then for each picture all that was seen of it, float32."""
    for i, part in enumerate(seen):
        if not i:
            widths = [0 if one is None else one.shape[1] for one in part]
            said = json.dumps({"key": key, "count": count, "widths": widths}).encode()
            yield said.ljust(HEADER - 1) + b"\n"
        row = torch.cat([one for one in part if one is not None], dim=1).contiguous()
        yield row.numpy().astype("<f4", copy=False).tobytes()


def _read(path: Path, key: str, count: int) -> Features | None:
    """The features in a file, mapped; None where there is none, or it is not whole or of something else."""
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(HEADER))
        widths = [int(width) for width in said["widths"]]
        whole = path.stat().st_size == HEADER + 4 * count * sum(widths)
        if said["key"] != key or said["count"] != count or len(widths) != 3 or not whole:
            return None
        rows = np.memmap(path, dtype="<f4", mode="c", offset=HEADER, shape=(count, sum(widths)))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    first, second = widths[0], widths[0] + widths[1]
    whole_rows: Tensor = torch.from_numpy(rows)
    parts = (whole_rows[:, :first], whole_rows[:, first:second], whole_rows[:, second:])
    return Features(
        parts[0], parts[1] if parts[1].shape[1] else None, parts[2] if parts[2].shape[1] else None
    )


def _sweep(folder: Path) -> None:
    """Removes what killed processes left half-written a day ago or earlier."""
    for left in folder.glob("*.rows.tmp-*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE:
                left.unlink()
