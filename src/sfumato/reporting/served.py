"""Who is left out: the groups and the kinds of pictures, due and made, as a report shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from sfumato.reporting.chart import whisker
from sfumato.reporting.stored import Stored

MOST = 60
"""Of more groups those that lack most are shown."""


@dataclass(frozen=True)
class Group:
    """A group as a row: what is due, what it makes, and the latter's interval; drawn, with due as a mark."""

    name: str
    due: str
    made: str
    interval: str
    right: str
    drawn: Markup
    under: bool


@dataclass(frozen=True)
class Sorting:
    """One way of sorting pictures: its name, sentences, and the rows."""

    name: str
    lines: tuple[str, ...]
    rows: tuple[Group, ...]
    asked: bool


@dataclass(frozen=True)
class Served:
    """All of it. modes: of the kinds that nobody named; notes: what could not be told."""

    sortings: tuple[Sorting, ...]
    modes: tuple[str, ...]
    notes: tuple[str, ...]


def served(run: Stored) -> Served | None:
    """Of the run's coverage.json; None where it was not measured."""
    found = run.parts.get("coverage")
    if found is None:
        return None
    modes = found["modes"]
    return Served(
        tuple(_sorting(one) for one in found["groups"]),
        () if modes is None else tuple(_modes(modes)),
        tuple(str(note) for note in found["notes"]),
    )


def _sorting(one: dict[str, Any]) -> Sorting:
    distance, right = one["total_variation"], one["judge_accuracy"]
    groups: list[dict[str, Any]] = one["groups"]
    lines = [
        f"By {one['name']}, {one['samples']:,} samples differ from {one['due']} by a total variation of "
        f"{distance['value']:.3f} ({distance['low']:.3f} to {distance['high']:.3f}); without bias it is up "
        f"to {one['usual']:.3f}.",
        f"A classifier trained on the data judged them. It is right on {right['share']:.1%} of pictures that "
        "it has not seen, and its errors are taken out.",
    ]
    if len(groups) > MOST:
        groups = sorted(groups, key=lambda group: group["share"] - group["due"])[:MOST]
        lines.append(f"Of {len(one['groups']):,} groups the {MOST} that lack most:")
    top = max(max(group["high"], group["due"]) for group in groups)
    return Sorting(
        str(one["name"]),
        tuple(lines),
        tuple(_group(group, top) for group in groups),
        any("as_asked" in group for group in groups),
    )


def _group(one: dict[str, Any], top: float) -> Group:
    asked = one.get("as_asked")
    return Group(
        name=str(one["name"]),
        due=f"{one['due']:.1%}",
        made=f"{one['share']:.1%}",
        interval=f"{one['low']:.1%} to {one['high']:.1%}",
        right="" if asked is None else f"{asked['share']:.0%}",
        drawn=whisker(one["share"], one["low"], one["high"], (0.0, top), (one["due"], one["due"])),
        under=bool(one["under_served"]),
    )


def _modes(one: dict[str, Any]) -> list[str]:
    said = [
        f"Of {one['clusters']:,} kinds of pictures that were found in the data, {one['reached']:,} are made; "
        f"as many training pictures reach {one['expected']:.1f} ± {one['error']:.1f}. The shares of "
        f"{one['different']:,} kinds differ from the data's; without bias up to {one['different_usual']:,}."
    ]
    under = one["under_served"]
    if under:
        said.append(
            f"{len(under):,} {'kind has' if len(under) == 1 else 'kinds have'} surely too few samples."
        )
    return said
