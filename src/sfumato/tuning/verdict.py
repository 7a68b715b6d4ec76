"""What came of a tuning: the winner beside the present default, in words and as plain values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from sfumato.card import SamplerSettings
from sfumato.evaluation.figure import Figure
from sfumato.tuning.candidates import Candidate

SHOWN = 8
"""So many of the finalists are named."""


class Walked(NamedTuple):
    """A sampler in some number of steps, and what its pictures came to."""

    candidate: Candidate
    steps: int
    figure: Figure

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "sampler": self.candidate.name,
            "eta": self.candidate.eta,
            "steps": self.steps,
            **_plain(self.figure),
        }


class Line(NamedTuple):
    """A line of the table of steps against quality: the present default's sampler and the winner in the same
    number of evaluations (None for one that has none), and how much the winner lies above it."""

    evaluations: int
    present: Walked | None
    winner: Walked | None
    gain: Figure | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "evaluations": self.evaluations,
            "present": None if self.present is None else self.present.to_json(),
            "winner": None if self.winner is None else self.winner.to_json(),
            "difference": None if self.gain is None else _plain(self.gain),
        }


@dataclass(frozen=True)
class Tuning:
    """unit: what was measured, less is better; by_law: by likeness, not by distance. pictures: of each
    figure. tried: how many samplers raced.

    fine: the fine solution; its figure is how sure it is by distance, and how alike it is by likeness.
    verdict: the table's line of the evaluations that were asked for. finalists: with their steps, and figures
    on the seeds of the search.
    """

    unit: str
    by_law: bool
    evaluations: int
    pictures: int
    seed: int
    tried: int
    fine: Walked
    verdict: Line
    rows: tuple[Line, ...]
    finalists: tuple[tuple[Candidate, int, Figure], ...]

    @property
    def better(self) -> bool:
        """Whether the winner is better than the present default by more than the error, and can say so."""
        return self.verdict.gain is not None and self.verdict.gain.high < 0

    def chosen(self, before: SamplerSettings, guidance: float | None) -> SamplerSettings:
        """The winner as a default; with the guidance that it was tuned at, if another than before."""
        best = self.verdict.winner
        if best is None:
            return before
        return SamplerSettings(
            name=best.candidate.name,
            steps=best.steps,
            eta=best.candidate.eta,
            guidance=before.guidance if guidance is None else guidance,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, with all that they follow from but the model."""
        return {
            "unit": self.unit,
            "evaluations": self.evaluations,
            "pictures": self.pictures,
            "seed": self.seed,
            "tried": self.tried,
            "better": self.better,
            "fine": self.fine.to_json(),
            "table": [line.to_json() for line in self.rows],
            "finalists": [Walked(one, steps, figure).to_json() for one, steps, figure in self.finalists],
        }

    def lines(self) -> Iterator[str]:
        """All of it."""
        fine, sure = self.fine, self.fine.figure.value
        if self.by_law:
            yield f"fine       {fine.candidate}, {fine.steps} steps: {_cell(fine)}"
        else:
            yield f"fine       {fine.candidate}, {fine.steps} steps; {_number(sure)} from half as many"
        shown = self.finalists[:SHOWN]
        yield f"race       {self.tried} samplers, the best {len(shown)} of them"
        for one, steps, figure in shown:
            yield f"  {_cell(Walked(one, steps, figure)):>34}  {one}, {steps} steps"
        yield from self.table()
        yield self.sentence()

    def table(self) -> Iterator[str]:
        """Steps against quality, a line each."""
        yield f"{self.unit}, 95 % interval, {self.pictures} pictures"
        heads = [_name(line) for line in (self.verdict.present, self.verdict.winner)]
        yield f"{'evaluations':>11}  {heads[0]:>34}" + (f"  {heads[1]:>34}" if self._two else "")
        for line in self.rows:
            cells = [_cell(line.present), *([_cell(line.winner)] if self._two else [])]
            mark = "  <" if line.evaluations == self.evaluations else ""
            yield f"{line.evaluations:>11}" + "".join(f"  {cell:>34}" for cell in cells) + mark

    @property
    def _two(self) -> bool:
        return self.verdict.winner is not None and self.verdict.gain is not None

    def sentence(self) -> str:
        """The verdict."""
        line, n = self.verdict, self.evaluations
        now, best, gain = line.present, line.winner, line.gain
        if now is None or best is None or gain is None:
            return f"no change: of {self.tried} samplers none is better than {_name(now)} in {n} evaluations"
        whole = 0.0 if self.by_law else now.figure.value  # a share of KID, which may be 0, says nothing
        share = [_share(part, whole) for part in (gain.value, gain.high, gain.low)]
        if not self.better:
            return (
                f"no change: {best.candidate} is not better than {now.candidate} in {n} evaluations beyond "
                f"the error ({share[0]}, 95 %: {share[2]} to {share[1]})"
            )
        return (
            f"{best.candidate} in {best.steps} steps is better than {now.candidate} in {n} evaluations: "
            f"{_number(best.figure.value)} beside {_number(now.figure.value)}, {share[0]} "
            f"(95 %: {share[2]} to {share[1]})"
        )


def _plain(figure: Figure) -> dict[str, float | None]:
    """JSON has no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in figure._asdict().items()}


def _name(walked: Walked | None) -> str:
    return "-" if walked is None else str(walked.candidate)


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "not finite"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:+.0f} %" if whole > 0 and math.isfinite(part) else f"{part:+.3g}"


def _cell(walked: Walked | None) -> str:
    if walked is None:
        return "-"
    value, low, high = walked.figure
    if not math.isfinite(value):
        return "not finite"
    return f"{_number(value)} ({_number(low)} .. {_number(high)})"
