"""metadata.csv, metadata.jsonl, dataset.json and NAME.json: what tables beside the pictures say of them.

`file_name` names the picture relative to the table's own folder; `class` or `label` is its class, `text` or
`caption` its caption (a list is several), and every other column is kept as text (the layout of Hugging
Face's imagefolder). dataset.json is EDM's: {"labels": [["00000/img.png", 5], ...]} (Karras et al. 2022);
null or -1 there is a class that is not known.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfumato.data.captions import CAPTION_BYTES, caption_lines, decode_text
from sfumato.data.source import Flaw
from sfumato.errors import DataError

TABLES = ("metadata.csv", "metadata.jsonl", "dataset.json")
_TABLE_BYTES, _BESIDE_BYTES = 1 << 30, 1 << 20


@dataclass
class Facts:
    """What tables said of one picture."""

    label: str | None = None
    captions: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)


@dataclass
class Tables:
    """All tables of a folder, by the pictures' names relative to its root."""

    facts: dict[str, Facts] = field(default_factory=dict)
    flaws: list[Flaw] = field(default_factory=list)
    classes: bool = False

    def read(self, path: Path, name: str) -> None:
        """Adds one table; name is its path relative to the root. Raises DataError if it is no table at
        all.
        """
        try:
            raw = path.read_bytes() if path.stat().st_size <= _TABLE_BYTES else None
        except OSError as error:
            raise DataError(f"{name} cannot be read ({error.strerror or error})") from None
        if raw is None:
            raise DataError(f"{name} is larger than {_TABLE_BYTES:,} bytes")
        text, sound = decode_text(raw)
        if not sound:
            self.flaws.append(
                Flaw(name, "is not all UTF-8 or UTF-16: captions with damaged letters are left out")
            )
        folder = name.rpartition("/")[0]
        if name.endswith(".csv"):
            self._read_csv(text, name, folder)
        elif name.endswith(".jsonl"):
            self._read_jsonl(text, name, folder)
        else:
            self._read_dataset(text, name, folder)

    def read_beside(self, path: Path, name: str, picture: str) -> None:
        """Adds what NAME.json says of NAME.png: an object as a line of metadata.jsonl, of which plain values
        and lists of texts are taken. Other files of that name are passed over with a word."""
        try:
            raw = path.read_bytes() if path.stat().st_size <= _BESIDE_BYTES else None
            row: object = None if raw is None else json.loads(decode_text(raw)[0])
        except (OSError, ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            self.flaws.append(Flaw(name, "is no JSON object of up to 1 MB, and is left out"))
            return
        folder, _, own = picture.rpartition("/")
        plain = {str(key): value for key, value in row.items() if _plain(value)}
        self._add({**plain, "file_name": own}, name, 1, folder)

    def _read_csv(self, text: str, name: str, folder: str) -> None:
        rows = csv.reader(io.StringIO(text, newline=""))
        header: list[str] | None = None
        while True:
            try:
                row = next(rows)
            except StopIteration:
                break
            except csv.Error as error:
                self.flaws.append(Flaw(f"{name}, line {rows.line_num}", f"is left out ({error})"))
                continue
            if header is None:
                header = [cell.strip() for cell in row]
                if "file_name" not in header:
                    raise DataError(f"{name} has no column file_name: its first line must name the columns")
                continue
            if not row:
                continue
            if len(row) != len(header):
                self._flaw(name, rows.line_num, f"has {len(row)} cells, not {len(header)}, and is left out")
                continue
            self._add(dict(zip(header, row)), name, rows.line_num, folder)

    def _read_jsonl(self, text: str, name: str, folder: str) -> None:
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                row: object = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                self._flaw(name, number, "is no JSON object and is left out")
                continue
            self._add({str(key): value for key, value in row.items()}, name, number, folder)

    def _read_dataset(self, text: str, name: str, folder: str) -> None:
        try:
            whole: object = json.loads(text)
        except (ValueError, RecursionError):
            raise DataError(f"{name} is no JSON: mend it or move it away") from None
        labels: object = whole.get("labels") if isinstance(whole, dict) else None
        if labels is None:
            return
        if not isinstance(labels, list):
            raise DataError(f'{name} must hold {{"labels": [["picture.png", 0], ...]}}')
        for number, pair in enumerate(labels, 1):
            match pair:
                case [str(), None | -1]:
                    pass
                case [str() as picture, int() as label]:
                    self._add({"file_name": picture, "label": label}, name, number, folder)
                case _:
                    self._flaw(name, number, "is no pair of a name and a whole number, and is left out")

    def _add(self, row: dict[str, Any], name: str, line: int, folder: str) -> None:
        picture = row.pop("file_name", None)
        if not isinstance(picture, str) or not picture:
            self._flaw(name, line, "names no picture and is left out")
            return
        picture = picture.replace("\\", "/").removeprefix("./")
        facts = self.facts.setdefault(f"{folder}/{picture}" if folder else picture, Facts())
        for column, value in row.items():
            if value is None or value == "":
                continue
            if column in ("class", "label"):
                self.classes = True
                label = _text(value).strip()
                if facts.label not in (None, label):
                    self._flaw(name, line, f"calls {picture} {label!r}, but it was {facts.label!r}")
                else:
                    facts.label = label
            elif column in ("text", "caption"):
                self._add_captions(facts, value, name, line)
            else:
                facts.columns[column] = _text(value)

    def _add_captions(self, facts: Facts, value: object, name: str, line: int) -> None:
        for one in value if isinstance(value, list) else [value]:
            text = _text(one).replace("\0", "")
            if len(text) > CAPTION_BYTES:
                self._flaw(
                    name, line, f"has a caption longer than {CAPTION_BYTES:,} letters, which is left out"
                )
            elif "\ufffd" in text:
                self._flaw(name, line, "has a caption with damaged letters, which is left out")
            else:
                facts.captions.extend(c for c in caption_lines(text) if c not in facts.captions)

    def _flaw(self, name: str, line: int, reason: str) -> None:
        self.flaws.append(Flaw(f"{name}, line {line}", reason))


def _plain(value: object) -> bool:
    """Whether a value may be a column: no table of its own, and not longer than a caption."""
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value) and sum(map(len, value)) <= CAPTION_BYTES
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= CAPTION_BYTES)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
