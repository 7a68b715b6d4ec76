"""What is evaluated: a run, the pictures that it is held against, and the pictures that it makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.card import CARD
from sfumato.data.bundled import BUNDLED, model_path, open_source
from sfumato.data.dataset import DataSet
from sfumato.data.fit import Resize
from sfumato.data.ingest import Progress
from sfumato.data.prepare import prepare
from sfumato.data.source import Source
from sfumato.errors import ImageFileError, SettingsError
from sfumato.evaluation.sets import PictureSet, of_dataset, of_run
from sfumato.inside.losses import as_trained
from sfumato.interop.folder import is_foreign
from sfumato.noise import permutation
from sfumato.runs import Run

HEADERS = 50_000
"""The sizes of more pictures are not counted."""
_LISTED = 200


@dataclass(frozen=True)
class Subject:
    """A run and the data it is held against. same: it was trained on these very pictures, and `data` is
    divided as in training; else as training would divide it."""

    run: Run
    data: DataSet
    same: bool
    source: Source
    said: str
    """DATA as the user wrote it."""

    @cached_property
    def train(self) -> PictureSet:
        """The training pictures."""
        return of_dataset(self.data, self.data.train, f"{self.data.name}, training")

    @cached_property
    def held(self) -> PictureSet | None:
        """The held-out pictures, None where there are none."""
        rows = self.data.held
        return of_dataset(self.data, rows, f"{self.data.name}, held out") if len(rows) else None

    def samples(
        self, n: int, seed: int, batch: int, cache: Path | None = None, told: Progress | None = None
    ) -> PictureSet:
        """n pictures that the run makes, each told what is known of a training picture that the seed drew:
        so classes and captions come as often as in the data. Raises SettingsError, RunError."""
        wishes = self.run.conditions.wishes(self.data.take(self.drawn(n, seed)))
        asked: dict[str, Any] = {}
        if self.run.card.classes is not None:
            asked["classes"] = [wish.label for wish in wishes]
        if self.run.card.text is not None:
            asked["prompt"] = [wish.prompt for wish in wishes]
        if self.run.conditions.attributes.names:
            asked["set"] = [wish.values for wish in wishes]
        return of_run(self.run, n, seed, cache, told, batch=batch, **asked)

    def drawn(self, n: int, seed: int) -> np.ndarray:
        """n training rows, each as often as any other but for one: whole orders by the seed, then a part of
        one."""
        rows, orders = self.data.train, -(-n // len(self.data.train))
        drawn = [rows[permutation(len(rows), seed, "evaluate", i).numpy()] for i in range(orders)]
        return np.concatenate(drawn)[:n]


def subject(
    run: Run,
    data: str,
    resize: Resize = "crop",
    crop: float | int = 0.0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Subject:
    """A run and its data, fitted as `train` fits it. Raises DataError, and SettingsError for classes that the
    run does not know."""
    source = open_source(data)
    fitting = run.card.fitting(source)
    found = prepare(source, **fitting, resize=resize, room=crop, cache=cache, progress=progress)
    if run.card.classes is not None and found.label_names != run.card.classes:
        raise SettingsError(
            f"{found.name}: its classes are not those that {run.name} was trained on: give the data that it "
            "was trained on, or sort this into the same classes"
        )
    divided, same = as_trained(run, found)
    return Subject(run, divided, same, source, data)


def is_run(path: Path) -> bool:
    """Whether this is a model: a run's folder, one of diffusers or a bundled model's name."""
    folder = model_path(path)
    return (folder / CARD).is_file() or (folder.is_dir() and is_foreign(folder))


def data_summary(of: Subject) -> dict[str, Any]:
    """The data for a report, as JSON."""
    data = of.data
    rows = np.concatenate([data.train, data.held])
    classes = {} if data.labels is None else Counter(data.labels[rows].tolist())
    again = Counter(data.digests)
    return {
        "format": 1,
        "name": of.said if of.said in BUNDLED else Path(of.said).name or data.name,
        "bundled": of.said if of.said in BUNDLED else None,
        "same": of.same,
        "fingerprint": data.fingerprint,
        "train": len(data.train),
        "held_out": len(data.held),
        "classes": {name: classes.get(i, 0) for i, name in enumerate(data.label_names)},
        "captions": sum(bool(one) for one in data.captions or ()),
        "sizes": dict(Counter(_sizes(of.source)).most_common()),
        "duplicates": sum(n - 1 for n in again.values()),
        "bad": [str(flaw) for flaw in (*data.bad, *data.flaws)][:_LISTED],
        "notes": list(data.notes),
    }


def _sizes(source: Source) -> Iterator[str]:
    """Width x height of each picture by its header; of unreadable ones none."""
    for i in range(min(len(source.items), HEADERS)):
        try:
            header = source.header(i)
        except ImageFileError:
            continue
        yield f"{header.width} x {header.height}"
