"""What was found of copies, as a report shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sfumato.reporting.stored import Stored


@dataclass(frozen=True)
class Space:
    """Near-copies in one space, as a row. expected: the share among new pictures, and the most of them by
    chance."""

    name: str
    count: str
    share: str
    expected: str
    flagged: bool


@dataclass(frozen=True)
class Novel:
    """The verdict, a row for each space, and what else is to be said."""

    verdict: str
    spaces: tuple[Space, ...]
    lines: tuple[str, ...]


def novel(run: Stored) -> Novel | None:
    """Of the run's novelty.json; None where it was not measured."""
    found = run.parts.get("novelty")
    if found is None:
        return None
    copies = found["copies"]
    lines = [
        "Outright copies, which a training picture explains by 99 %: "
        f"{copies['count']:,} of {copies['of']:,}."
    ]
    held = found["held_out_copies"]
    if held:
        lines.append(
            f"{held:,} held-out pictures are copies of training pictures, and were left out of the measure."
        )
    return Novel(str(found["verdict"]), tuple(_space(one) for one in found["spaces"]), tuple(lines))


def _space(one: dict[str, Any]) -> Space:
    near = one["near_copies"]
    return Space(
        name=str(one["space"]),
        count=f"{near['count']:,} of {near['of']:,}",
        share=f"{near['share']:.1%} ({near['low']:.1%} to {near['high']:.1%})",
        expected=f"{one['expected']:.1%}, up to {one['most']:,} by chance",
        flagged=bool(one["flagged"]),
    )
