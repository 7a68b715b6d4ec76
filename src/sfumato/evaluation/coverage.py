"""Coverage and bias: what of the training data a model makes, and what it makes too little of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.data.ingest import Progress
from sfumato.errors import SettingsError
from sfumato.evaluation.features.extractor import Extractor
from sfumato.evaluation.features.store import features_of
from sfumato.evaluation.groups import Grouping, Groups, compare
from sfumato.evaluation.modes import Modes, modes
from sfumato.evaluation.sets import PictureSet


@dataclass(frozen=True)
class Coverage:
    """What was found of samples. modes: None where there were too few pictures; notes: what could not be
    told, and why, a sentence each. extractor: name, weights' hash, resize. sets: as in `Novelty`."""

    groups: tuple[Groups, ...]
    modes: Modes | None
    notes: tuple[str, ...]
    sets: tuple[tuple[str, str, int], ...]
    extractor: tuple[str, str, str]

    @property
    def under(self) -> tuple[str, ...]:
        """All under-served groups, as "class 3"."""
        return tuple(f"{one.name} {name}" for one in self.groups for name in one.under)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        name, sha256, resize = self.extractor
        return {
            "under_served": list(self.under),
            "groups": [one.to_json() for one in self.groups],
            "modes": None if self.modes is None else self.modes.to_json(),
            "notes": list(self.notes),
            "sets": [{"name": name, "sha256": sha, "pictures": n} for name, sha, n in self.sets],
            "extractor": {"name": name, "weights_sha256": sha256, "resize": resize},
        }

    def lines(self) -> Iterator[str]:
        """The same for people."""
        for one in self.groups:
            yield from one.lines()
        if self.modes is not None:
            yield from self.modes.lines()
        yield from self.notes


def look(
    samples: PictureSet,
    train: PictureSet,
    held: PictureSet,
    extractor: Extractor,
    *,
    groupings: Sequence[Grouping] = (),
    seed: int = 0,
    batch: int = 64,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Coverage:
    """Classes, the groups that `groupings` sort the training data into, and modes, of samples.

    Classes are those of the pictures, where they have any; of samples that were asked for by class the shares
    asked for are due, of others those of the training data. What too few pictures are there for is a note.
    Without held-out pictures `held` is empty. Raises SettingsError where groupings are not of these pictures.
    """
    for one in groupings:
        if (len(one.train), len(one.held)) != (train.count, held.count):
            raise SettingsError(
                f"{one.name}: sorts other pictures than {train.name}: give those of this data"
            )
    seen = [
        features_of(one, extractor, batch, cache, progress).pooled
        if one.count
        else torch.empty(0, extractor.width)
        for one in (train, held, samples)
    ]
    found: list[Groups] = []
    notes: list[str] = []
    classes = _classes(train, held)
    wanted = [(classes, _asked(samples, classes))] if classes is not None else []
    for one, asked in (*wanted, *((grouping, None) for grouping in groupings)):
        try:
            found.append(compare(one, seen[0], seen[1], seen[2], asked, seed))
        except SettingsError as error:
            notes.append(str(error))
    kinds = None
    try:
        kinds = modes(seen[0], seen[1], seen[2], seed)
    except SettingsError as error:
        notes.append(str(error))
    return Coverage(
        tuple(found),
        kinds,
        tuple(notes),
        tuple((one.name, one.sha256, one.count) for one in (samples, train, held)),
        (extractor.name, extractor.sha256, extractor.resize),
    )


def _classes(train: PictureSet, held: PictureSet) -> Grouping | None:
    """The grouping by class, where there is one."""
    if train.classes is None or len(train.class_names) < 2:
        return None
    held_classes = held.classes if held.class_names == train.class_names else None
    known = (-1,) * held.count if held_classes is None else held_classes
    return Grouping(
        "class", train.class_names, torch.tensor(train.classes), torch.tensor(known, dtype=torch.int64)
    )


def _asked(samples: PictureSet, classes: Grouping) -> Tensor | None:
    """What the samples were asked to be, in the numbers of the training data's classes."""
    if samples.classes is None or not {*samples.class_names} <= {*classes.options}:
        return None
    numbers = [classes.options.index(name) for name in samples.class_names]
    return torch.tensor([-1 if label < 0 else numbers[label] for label in samples.classes])
