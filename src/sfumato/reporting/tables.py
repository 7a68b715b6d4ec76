"""Records as the rows of a table: value, interval, baseline and terms, ready to be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sfumato.evaluation.record import Record
from sfumato.reporting.chart import whisker
from sfumato.reporting.numbers import figure, fixed, places
from sfumato.reporting.stored import Stored


@dataclass(frozen=True)
class Row:
    """One record. drawn: the value with its interval on a line, the baseline as a band."""

    title: str
    value: str
    interval: str
    baseline: str
    drawn: Markup
    better: str
    numbers: str
    how: str
    reached: bool


def row(record: Record) -> Row:
    """A record as a row."""
    terms, base = record.terms, record.baseline
    sure, ends = places(record.low, record.high), ""
    if record.low is not None and record.high is not None:
        ends = f"{fixed(record.low, sure)} to {fixed(record.high, sure)}"
    settings = ", ".join(f"{name} {value}" for name, value in terms.settings.items())
    how = [f"{terms.extractor}, {terms.resize}", settings, record.interval]
    return Row(
        title=terms.title,
        value=fixed(record.value, sure),
        interval=ends,
        baseline="" if base is None else figure(base.value, base.low, base.high, sure),
        drawn=_drawn(record),
        better=f"{record.better} is better",
        numbers=f"{terms.generated:,} against {terms.real:,}" if terms.real else f"{terms.generated:,}",
        how="; ".join(part for part in how if part),
        reached=record.as_real,
    )


def _drawn(record: Record) -> Markup:
    base = record.baseline
    mark = None
    if base is not None:
        mark = (base.value if base.low is None else base.low, base.value if base.high is None else base.high)
    ends = [record.value, *(v for v in (record.low, record.high) if v is not None), *(mark or ())]
    low, high = min(ends), max(ends)
    room = 0.06 * (high - low) or 0.5
    return whisker(record.value, record.low, record.high, (low - room, high + room), mark)


def whole(run: Stored) -> list[Row]:
    """The newest record of each metric on all pictures."""
    return [row(record) for record in run.newest if record.group is None]


@dataclass(frozen=True)
class Groups:
    """Per-class figures: the metrics' titles, and for each class its values in their order."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def groups(run: Stored) -> Groups | None:
    """The newest records of each class side by side; None where no class was measured alone."""
    found: dict[str, dict[str, Record]] = {}
    for record in run.newest:
        if record.group is not None:
            found.setdefault(record.group, {})[record.terms.title] = record
    titles = tuple(dict.fromkeys(title for each in found.values() for title in each))
    rows = tuple((name, _cells(each, titles)) for name, each in found.items())
    return Groups(titles, rows) if rows else None


def _cells(each: Mapping[str, Record], titles: Sequence[str]) -> tuple[str, ...]:
    out: list[str] = []
    for title in titles:
        record = each.get(title)
        out.append("" if record is None else figure(record.value, record.low, record.high))
    return tuple(out)


def terms_used(run: Stored) -> list[tuple[str, str]]:
    """What looked at the pictures, by name and hash, each once; and the references."""
    found: dict[tuple[str, str], None] = {}
    for record in (one for one in run.newest if one.group is None):
        terms = record.terms
        found[f"features: {terms.extractor}", terms.weights_sha256] = None
        if terms.reference_sha256:
            found[f"reference: {terms.reference}", terms.reference_sha256] = None
        found[f"generated: {record.name}", record.sha256] = None
    return list(found)
