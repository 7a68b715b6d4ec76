"""RUN/tuning.json: what was tuned and when, and the defaults that were there before.

The record is written before the card, and the card before the record when a default comes back; a crash
between leaves a default that is one of the two, and coming back from it twice is the same as once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from sfumato import __version__
from sfumato.card import Card, SamplerSettings
from sfumato.errors import RunError, SettingsError
from sfumato.files import read_json, write_json
from sfumato.folders.default_sampler import set_sampler
from sfumato.records.facts import Name
from sfumato.records.part import Hash, Part
from sfumato.records.sentence import sentence
from sfumato.runs import Run
from sfumato.tuning.verdict import Tuning

RECORD = "tuning.json"
_MOST = 100


class Entry(Part):
    """One tuning whose winner became the default."""

    library: Name
    weights_sha256: Hash
    before: SamplerSettings
    after: SamplerSettings
    guidance: float | None
    found: dict[str, Any]


class History(Part):
    """All of them, the last one last."""

    format: Literal[1] = 1
    tunings: tuple[Entry, ...] = Field(default=(), max_length=_MOST)


def read_history(folder: Path) -> History:
    """What RUN/tuning.json says, nothing where there is none. Raises RunError for a damaged one."""
    path = folder / RECORD
    if not path.exists():
        return History()
    try:
        return History.model_validate_json(json.dumps(read_json(path)), strict=True)
    except ValidationError as error:
        raise RunError(f"{path}: no record of tunings ({sentence(error)}): mend or remove it") from None


def keep(run: Run, found: Tuning, guidance: float | None) -> Card:
    """Makes the winner the run's default, and keeps the one that was there. Raises RunError."""
    before = run.card.sampler
    after = found.chosen(before, guidance)
    entry = Entry(
        library=__version__,
        weights_sha256=run.sha256,
        before=before,
        after=after,
        guidance=guidance,
        found=found.to_json(),
    )
    kept = (*read_history(run.path).tunings, entry)[-_MOST:]
    write_json(run.path / RECORD, History(tunings=kept).model_dump(mode="json"))
    return set_sampler(run.path, after)


def restore(folder: Path) -> Card:
    """Brings back the default that was there before the last tuning. Raises SettingsError where there was
    none."""
    tunings = read_history(folder).tunings
    if not tunings:
        raise SettingsError(f"{folder}: no tuning to take back: its default is the one that it came with")
    card = set_sampler(folder, tunings[-1].before)
    write_json(folder / RECORD, History(tunings=tunings[:-1]).model_dump(mode="json"))
    return card
