"""From the columns of a data set's tables to attributes: which kind each is, and what it can be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sfumato.conditions.attributes import (
    MOST_OPTIONS,
    RESERVED,
    Attribute,
    Attributes,
    Choice,
    Labels,
    Number,
    Value,
    number,
    split,
)
from sfumato.conditions.nearest import match, unknown
from sfumato.data.source import natural
from sfumato.errors import SettingsError

KINDS = ("number", "choice", "labels")
MISSING = {"", "nan", "n/a", "na", "null"}
"""What stands for a value that is not known, in any letters."""
FEW = 12
"""With more different numbers than these a column is a real number, with fewer a choice."""

Columns = Sequence[Mapping[str, str]]
"""The columns of each picture: a name that is not there is not known."""


def missing(text: str) -> bool:
    """Whether this stands for a value that is not known."""
    return text.strip().lower() in MISSING


def told(attributes: Attributes, columns: Columns) -> list[dict[str, Value]]:
    """The values of each picture; what is missing in its columns is missing here."""
    return [
        {item.name: item.parse(row[item.name]) for item in attributes.items if _known(row, item.name)}
        for row in columns
    ]


def attributes_of(columns: Columns, wanted: Sequence[str]) -> Attributes:
    """The attributes of a data set that are wanted: each "NAME", or "NAME:number", "NAME:choice" or
    "NAME:labels" where its kind should not be found from its values.

    Raises SettingsError for a column that is not there, with the nearest names, and for one that is no
    attribute or not of the kind that was said.
    """
    names = sorted({name for row in columns for name in row}, key=natural)
    return Attributes(tuple(_attribute(columns, names, one) for one in wanted))


def offered(columns: Columns) -> dict[str, str]:
    """The columns that could be attributes, each with its kind."""
    out: dict[str, str] = {}
    for name in sorted({name for row in columns for name in row}, key=natural):
        kind = kind_of(_values(columns, name))
        if kind is not None and name not in RESERVED:
            out[name] = kind
    return out


def kind_of(values: Sequence[str]) -> str | None:
    """The kind of a column, from what is known of it; None for one that tells pictures apart by name alone
    (file names, titles), or says the same of all.

    All numbers and more than 12 different ones: a number. Parts that come again and again, between | or in
    lists, or between commas in a tenth of the values: labels. Few different values, each of two pictures or
    more on average: a choice.
    """
    different = set(values)
    if len(different) < 2:
        return None
    if all(number(value) is not None for value in different) and len(different) > FEW:
        return "number"
    parts = Counter(part for value in values for part in split(value))
    marked = any("|" in value or value.strip().startswith("[") for value in different)
    several = marked or 10 * sum(len(split(value)) > 1 for value in values) >= len(values)
    if several and 2 * len(parts) <= parts.total() and len(parts) <= MOST_OPTIONS:
        return "labels"
    return "choice" if 2 * len(different) <= len(values) and len(different) <= MOST_OPTIONS else None


def _known(row: Mapping[str, str], name: str) -> bool:
    return name in row and not missing(row[name])


def _values(columns: Columns, name: str) -> list[str]:
    return [row[name] for row in columns if _known(row, name)]


def _attribute(columns: Columns, names: list[str], wanted: str) -> Attribute:
    name, _, kind = wanted.rpartition(":")
    if kind not in KINDS or not name:
        name, kind = wanted, ""
    if not names:
        raise SettingsError(
            f"--attribute {name}: the pictures have no columns; a metadata.csv beside them gives them some"
        )
    at = match(name, names)
    if at is None:
        raise unknown("--attribute: no column is called", name, names)
    name = names[at]
    values = _values(columns, name)
    chosen = kind or kind_of(values)
    if chosen is None:
        raise SettingsError(
            f"--attribute {name}: {len(set(values)):,} different values in {len(values):,} pictures, neither "
            f"numbers nor a choice: say {name}:number, {name}:choice or {name}:labels to take it so"
        )
    if chosen == "number":
        return _number(columns, name)
    if chosen == "labels":
        return Labels(name, _options({part for value in values for part in split(value)}))
    return Choice(name, _options({value.strip() for value in values}))


def _options(found: set[str]) -> tuple[str, ...]:
    return tuple(sorted(found, key=natural))


def _number(columns: Columns, name: str) -> Number:
    held = {value: number(value) for value in _values(columns, name)}
    wrong = next((text for text, value in held.items() if value is None), None)
    if wrong is not None:
        raise SettingsError(f"--attribute {name}:number: its column holds {wrong[:60]!r}, which is no number")
    values = [value for value in held.values() if value is not None]
    if len(set(values)) < 2:
        raise SettingsError(f"--attribute {name}:number: it is the same in all pictures, so it says nothing")
    return Number(name, min(values), max(values))
