"""Everything that a run's folder says of it, read once: the card, the settings, the log, what was measured.

RUN/evaluation/records.json        metrics, each with its terms; new ones are added, none is lost
               losses.json         the loss at each noise level, on training and held-out pictures
               novelty.json        whether it copies; nearest.png shows the most similar
               coverage.json       classes and attributes of what it makes beside the data's
               likelihood.json, rate-distortion.json
               samples.json, .png  what it makes
               data.json           what it was trained on
               about.json          when, with what, and what the user said of licence and power
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from sfumato.card import CARD, Card, read_card
from sfumato.errors import RunError, SettingsError
from sfumato.evaluation.record import Record
from sfumato.files import read_json, write_json
from sfumato.training.logs import LOG, read_log
from sfumato.tuning.kept import Entry, read_history

RECORDS, SETTINGS = "records.json", "settings.json"
PARTS = ("losses", "novelty", "coverage", "likelihood", "rate-distortion", "samples", "data", "about")
DISTANCES = ("kid", "fid-infinity", "fid", "sfid")
"""How far the pictures lie from real ones, the most trustworthy at small numbers first."""
_LARGE = 64 << 20

Part = Mapping[str, Any]


@dataclass(frozen=True)
class Stored:
    """What is known of a run. path: its folder; home: where its evaluation lies. parts: by name, only those
    that were measured."""

    path: Path
    home: Path
    card: Card
    settings: Part = field(default_factory=dict)
    log: Sequence[Part] = ()
    records: tuple[Record, ...] = ()
    parts: Mapping[str, Part] = field(default_factory=dict)
    tuned: Entry | None = None
    """The last tuning of its sampler."""

    @property
    def name(self) -> str:
        """The run's name: its folder's."""
        return self.path.resolve().name

    @property
    def data_name(self) -> str:
        """What the data was called, "its data" where nobody knows."""
        return str(self.parts.get("data", {}).get("name") or "its data")

    def metric(self, name: str, group: str | None = None) -> Record | None:
        """The newest record of a metric, of all pictures or of one group."""
        found = [r for r in self.records if r.terms.metric == name and r.group == group]
        return found[-1] if found else None

    @property
    def distance(self) -> Record | None:
        """The record by which the run is judged: of KID, else of a Fréchet distance."""
        found = (self.metric(name) for name in DISTANCES)
        return next((one for one in found if one is not None), None)

    @property
    def newest(self) -> tuple[Record, ...]:
        """The newest record of each metric, extractor and group, in the order in which they came."""
        found = {(r.terms.metric, r.terms.extractor, r.group): r for r in self.records}
        return tuple(found.values())


def stored(path: Path, home: Path | None = None, card: Card | None = None) -> Stored:
    """What a run's folder holds; `home` is its evaluation (RUN/evaluation). A run without a card of its own
    (of diffusers) is given one. Raises RunError where this is no run, and for a file that is damaged."""
    home = path / "evaluation" if home is None else home
    if card is None:
        if not (path / CARD).is_file():
            raise RunError(f"{path}: no run, there is no {CARD} in it: give the folder that training made")
        card = read_card(path / CARD)
    parts = {name: found for name in PARTS if (found := _part(home / f"{name}.json"))}
    return Stored(
        path,
        home,
        card,
        _part(path / SETTINGS) or {},
        read_log(path / LOG),
        read_records(home / RECORDS),
        parts,
        next(reversed(read_history(path).tunings), None),
    )


def _part(path: Path) -> Part | None:
    if not path.is_file():
        return None
    found = read_json(path, limit=_LARGE)
    if not isinstance(found, dict):
        raise SettingsError(f"{path}: not as sfumato wrote it: remove it and measure again")
    return cast(Part, found)


def read_records(path: Path) -> tuple[Record, ...]:
    """The records in a file, () where there is none. Raises SettingsError for what is no record."""
    found = _part(path)
    said = [] if found is None else found.get("records")
    if not isinstance(said, list):
        raise SettingsError(f"{path}: no list of records: remove it and measure again")
    return tuple(Record.of_json(one, path) for one in said)


def add_records(path: Path, new: Sequence[Record]) -> tuple[Record, ...]:
    """Adds records to a file and gives all. One that repeats another to the terms and to the generated
    pictures takes its place at the end; nothing else is lost."""
    same = {_identity(record) for record in new}
    kept = [record for record in read_records(path) if _identity(record) not in same]
    whole = (*kept, *new)
    write_json(path, {"format": 1, "records": [record.to_json() for record in whole]})
    return whole


def _identity(record: Record) -> tuple[str, str]:
    return record.terms.model_dump_json(), record.sha256
