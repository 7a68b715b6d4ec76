"""The trials of a sweep, best first: as a table with error bars, and as what comes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from sfumato.errors import SettingsError
from sfumato.evaluation.figure import Figure
from sfumato.evaluation.record import Record, difference
from sfumato.evaluation.shares import Z95
from sfumato.tuning.space import words
from sfumato.tuning.trial import Result

By = Literal["loss", "kid"]


@dataclass(frozen=True)
class Place:
    """A trial in its place. behind: how far it is behind the first, in the 95 % interval of that difference;
    None for the first and where there is no such figure. level: whether that may as well be nothing."""

    result: Result
    behind: Figure | None

    @property
    def level(self) -> bool:
        """Not behind by more than the error."""
        return self.behind is not None and self.behind.low <= 0


def key(result: Result, by: By) -> float:
    """What a trial is ranked by; infinite where it has none."""
    if by == "loss":
        return math.inf if result.loss is None else result.loss.value
    return math.inf if result.kid is None else result.kid.value


def ranked(results: Sequence[Result], by: By) -> list[Place]:
    """All trials, the best first, failed ones last."""
    order = sorted(results, key=lambda one: (key(one, by), one.number))
    return [Place(one, None if one is order[0] else behind(one, order[0], by)) for one in order]


def behind(one: Result, first: Result, by: By) -> Figure | None:
    """How far a trial is behind the first. The losses are of the same pictures and noise, so the error is of
    their differences picture by picture; KID's by its record."""
    if by == "kid":
        return None if one.kid is None or first.kid is None else _of_records(one.kid, first.kid)
    if one.loss is None or first.loss is None:
        return None
    apart = torch.tensor(one.losses, dtype=torch.float64) - torch.tensor(first.losses, dtype=torch.float64)
    return Figure.of(float(apart.mean()), float(apart.std()) / math.sqrt(len(apart)))


def _of_records(a: Record, b: Record) -> Figure | None:
    found = difference(a, b)
    if found.low is None or found.high is None:
        return None
    return Figure(found.difference, found.low, found.high)


def table(places: Sequence[Place], by: By) -> Iterator[str]:
    """The ranking in Markdown."""
    has_kid = any(place.result.kid is not None for place in places)
    yield (
        "| | trial | | held-out loss | behind the first |"
        + (" KID |" if has_kid else "")
        + " steps | M weights |"
    )
    yield "|---" * (8 if has_kid else 7) + "|"
    for rank, place in enumerate(places, 1):
        one = place.result
        if one.failed is not None:
            yield f"| - | {one.number} | {words(one.said)} | {one.failed} |" + " |" * (4 if has_kid else 3)
            continue
        loss = "-" if one.loss is None else f"{one.loss.value:.4f} ± {Z95 * one.loss.error:.4f}"
        apart = "" if place.behind is None else _apart(place.behind, by)
        cells = [str(rank), str(one.number), words(one.said), loss, apart]
        cells += [_kid(one.kid)] if has_kid else []
        yield f"| {' | '.join([*cells, str(one.steps), f'{one.parameters / 1e6:.2f}'])} |"


def _apart(figure: Figure, by: By) -> str:
    scale = 1000 if by == "kid" else 1
    value, low, high = (f"{scale * end:.4f}" if by == "loss" else f"{scale * end:.2f}" for end in figure)
    return f"{value} ({low} .. {high})" + (", as good" if figure.low <= 0 else "")


def _kid(record: Record | None) -> str:
    if record is None or record.low is None or record.high is None:
        return "-"
    return f"{1000 * record.value:.2f} ({1000 * record.low:.2f} .. {1000 * record.high:.2f})"


def legend(places: Sequence[Place], by: By) -> Iterator[str]:
    """What the columns mean, and the verdict."""
    yield (
        "Held-out loss: of epsilon, mean over log-SNRs -8 .. 8, ± 95 %; behind: paired by picture and noise, "
        "95 % interval."
        if by == "loss"
        else "Ranked by KID x 1000; behind: 95 % interval, the same real pictures for both."
    )
    if any(place.result.kid is not None for place in places):
        yield "KID x 1000 of the averaged weights against training pictures, 95 % interval."
    even = [str(place.result.number) for place in places if place.level]
    if even:
        yield f"Not worse than the first by more than the error: trial {', '.join(even)}."


def winner(places: Sequence[Place], by: By) -> Result:
    """The first. Raises SettingsError where every trial failed."""
    if not places or not math.isfinite(key(places[0].result, by)):
        raise SettingsError("every trial of the sweep failed: see its table, and try smaller learning rates")
    return places[0].result


def to_json(places: Sequence[Place], by: By) -> dict[str, Any]:
    """Plain values, all trials in their order."""
    return {
        "format": 1,
        "ranked_by": by,
        "trials": [
            place.result.model_dump(mode="json")
            | {"behind": None if place.behind is None else place.behind._asdict()}
            for place in places
        ],
    }
