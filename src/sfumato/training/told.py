"""What a run tells its model, from the run's settings and its data: classes, attributes, captions, a task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from sfumato.conditions.attributes import Attributes, Choice
from sfumato.conditions.classes import Classes
from sfumato.conditions.columns import attributes_of, offered
from sfumato.conditions.frozen import FrozenText
from sfumato.conditions.remembered import Remembered
from sfumato.conditions.schema import Conditions, Shown
from sfumato.conditions.tokens import Tokenizer, load_tokenizer, train_tokenizer
from sfumato.data.dataset import DataSet
from sfumato.errors import SettingsError
from sfumato.networks import text_preset
from sfumato.networks.text import TextConfig
from sfumato.records.conditions import AnyText, describe_frozen, describe_own
from sfumato.training.tasks import task_named
from sfumato.training.telling import LABEL, Telling


@dataclass(frozen=True)
class Wanted:
    """What a model is to be told.

    text: "none", "own" for a text encoder that is trained with it, or the folder of a frozen one, by states
    of tokens or `pooled`. attributes: columns, each "NAME" or "NAME:kind". picture: the column that names a
    picture to be shown; task: what makes one instead (`tasks.TASKS`).
    """

    classes: bool = True
    text: str = "none"
    pooled: bool = False
    attributes: tuple[str, ...] = ()
    picture: str = ""
    task: str = ""

    def anything(self, data: DataSet) -> bool:
        """Whether the model is told anything of this data."""
        classes = self.classes and data.classes > 0
        return classes or bool(self.attributes or self.picture or self.task) or self.text != "none"

    def __post_init__(self) -> None:
        if self.picture and self.task:
            raise SettingsError(
                f"a model is shown one picture: by --task {self.task}, or yours by --picture, not both"
            )
        if self.pooled and self.text in ("none", "own"):
            raise SettingsError("--pooled is about a frozen text encoder: give its folder as --text FOLDER")


@dataclass(frozen=True)
class Told:
    """The conditions of a run. `reader` is what reads captions: in `telling` a frozen one also remembers."""

    telling: Telling = field(default_factory=Telling)
    reader: Tokenizer | FrozenText | None = None

    @property
    def conditions(self) -> Conditions:
        return self.telling.conditions

    def text(self, size: str) -> AnyText | None:
        """What a card says of the text, for a model of this size."""
        if isinstance(self.reader, Tokenizer):
            return describe_own(encoder_of(self.reader, size), self.reader)
        return None if self.reader is None else describe_frozen(self.reader)


def encoder_of(tokenizer: Tokenizer, size: str) -> TextConfig:
    """The text encoder that is trained with a model of this size."""
    return text_preset(size, len(tokenizer), tokenizer.length, tokenizer.end_number)


def told(wanted: Wanted, data: DataSet, tokens: Path | None = None, frozen: Path | None = None) -> Told:
    """The conditions that are wanted, of this data. `tokens` is the folder of a tokenizer that is there
    already, `frozen` that of a copy of the frozen encoder. Raises SettingsError, ModelFileError."""
    attributes, shown, task = attributes_of(data.columns, wanted.attributes), None, None
    if wanted.task:
        task = task_named(wanted.task, data.shape)
        shown = Shown((task.channels, *data.size), task.name)
        if task.labels:
            attributes = Attributes((*attributes.items, Choice(LABEL, task.labels)))
    if wanted.picture and data.aligned is None:
        raise SettingsError(f"--picture {wanted.picture}: prepare the data with aligned={wanted.picture!r}")
    if data.aligned is not None and wanted.picture:
        shown = Shown((data.aligned.channels, *data.size), column=wanted.picture)
    reader: Tokenizer | FrozenText | None = None
    if wanted.text == "own":
        reader = _tokenizer(data) if tokens is None else load_tokenizer(tokens)
    elif wanted.text != "none":
        _check_captions(data, wanted.text)
        reader = FrozenText(frozen or wanted.text, wanted.pooled)
    names = data.label_names if wanted.classes else ()
    conditions = Conditions(
        classes=Classes(names, null=True) if names else None,
        attributes=attributes,
        text=Remembered(reader) if isinstance(reader, FrozenText) else reader,
        shown=shown,
    )
    return Told(Telling(conditions, task), reader)


def text_wanted(asked: str, data: DataSet) -> tuple[str, str | None]:
    """What `--text` means for this data, and why: "auto" is "own" where at least half of the pictures have a
    caption."""
    if asked != "auto":
        return asked, None
    captions = data.captions or ()
    count = sum(bool(captions[row]) for row in data.train.tolist()) if captions else 0
    if not count:
        return "none", None
    share = f"{count} of {len(data.train)} pictures have a caption"
    if 2 * count < len(data.train):
        return "none", f"text none: only {share} (--text own to learn from them)"
    return "own", f"text own: {share} (--text none to leave them out)"


def columns_left(data: DataSet, attributes: Sequence[str]) -> str | None:
    """A sentence on the columns that could be attributes and are none, if there are any."""
    used = {one.rpartition(":")[0] or one for one in attributes} | set(attributes)
    left = [f"{name} ({kind})" for name, kind in offered(data.columns).items() if name not in used]
    if not left:
        return None
    more = f" and {len(left) - 6} more" if len(left) > 6 else ""
    return f"columns that the model could be told too, by --attribute: {', '.join(left[:6])}{more}"


def fingerprint(wanted: Wanted, data: DataSet) -> str:
    """Of all that the run learns from: the data's own, and the columns that are told."""
    if not wanted.attributes:
        return data.fingerprint
    rows = [sorted(row.items()) for row in data.columns]
    return hashlib.sha256(json.dumps([data.fingerprint, rows]).encode()).hexdigest()


def settled(
    data: DataSet, text: str, attributes: Sequence[str], others: Mapping[str, Any]
) -> tuple[Wanted, list[str]]:
    """What a model of this data is told, everything said, and why. `others` are the rest of `Wanted`, where
    they are said, among other settings."""
    text, why = text_wanted(text, data)
    known = [one.name for one in fields(Wanted)]
    more = {name: value for name, value in others.items() if name in known}
    wanted = _with_kinds(Wanted(text=text, attributes=tuple(attributes), **more), data)
    left = columns_left(data, wanted.attributes)
    return wanted, [one for one in (why, left) if one is not None]


def _with_kinds(wanted: Wanted, data: DataSet) -> Wanted:
    """The same with the kind of every attribute said, as this data shows it."""
    kinds = {"Number": "number", "Choice": "choice", "Labels": "labels"}
    found = attributes_of(data.columns, wanted.attributes)
    said = tuple(f"{item.name}:{kinds[type(item).__name__]}" for item in found.items)
    return replace(wanted, attributes=said)


def _tokenizer(data: DataSet) -> Tokenizer:
    _check_captions(data, "own")
    captions = data.captions or ()
    return train_tokenizer(text for row in data.train.tolist() for text in captions[row])


def _check_captions(data: DataSet, text: str) -> None:
    if not any(data.captions or ()):
        raise SettingsError(
            f"--text {text}: the pictures of {data.name} have no captions: put a .txt file beside each, or a "
            "column text into a metadata.csv"
        )
