"""Looks at a model on the way: at held-out pictures and, by a judge, at what it draws. They say which model
is the best so far, and when no better one is to be expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from sfumato.errors import RunError, SettingsError
from sfumato.training.crew import Crew
from sfumato.training.judge import Judge
from sfumato.training.lesson import Lesson
from sfumato.training.settings import TrainSettings
from sfumato.training.state import State
from sfumato.training.validation import HeldOut, Trend, Validation


class Sight(NamedTuple):
    """What was seen after a step: the held-out losses, the judge's figures, and sentences for people. best:
    no look was better."""

    validation: Validation | None = None
    figures: Mapping[str, float] = {}
    notices: tuple[str, ...] = ()
    best: bool = False


@dataclass(frozen=True)
class Looking:
    """Looks with the averaged weights, at the steps that the settings say and at the end."""

    state: State
    lesson: Lesson
    settings: TrainSettings
    held: HeldOut | None = None
    judge: Judge | None = None
    crew: Crew = field(default_factory=Crew)

    def begin(self, resumed: bool) -> None:
        """Raises SettingsError where nobody finds the figure that the best is chosen by, RunError where a run
        goes on with a judge of other terms."""
        by, counters = self.settings.best_by, self.state.counters
        if by != "loss" and (self.judge is None or by not in self.judge.rising):
            known = ", ".join(["loss", *(() if self.judge is None else self.judge.rising)])
            raise SettingsError(f"--best-by {by} is not looked at: choose {known}, or add --metrics {by}")
        if self.judge is None:
            return
        if resumed and counters.terms not in ("", self.judge.terms):
            raise RunError(
                f"this run was judged by {counters.terms}, and would now be by {self.judge.terms}: give it "
                "the same extractor and pictures, or begin another run"
            )
        counters.terms = self.judge.terms

    @property
    def trend(self) -> Trend:
        """How the figure went that the best is chosen by."""
        counters = self.state.counters
        return counters.trend if self.settings.best_by == "loss" else counters.judged

    @property
    def tired(self) -> bool:
        """Whether patience has run out."""
        return 0 < self.settings.patience <= self.trend.since

    def after(self, over: bool) -> Sight | None:
        """What is to be seen after a good step; `over`: it is the last one of the budget. None where the
        judge was asked to stop: the step is then not complete."""
        c, every, validate = self.state.counters, self.settings.metrics_every, self.settings.validate
        judged, validated = Sight(), Sight()
        if self.judge is not None and every and (over or c.position // every > c.looked // every):
            seen = self._judged(self.judge)
            if seen is None:
                return None
            judged = seen
        if self.held is not None and validate and (over or c.step % validate == 0):
            validated = self._validated(self.held)
        notices = (*validated.notices, *judged.notices)
        return Sight(validated.validation, judged.figures, notices, validated.best or judged.best)

    def _judged(self, judge: Judge) -> Sight | None:
        c, by = self.state.counters, self.settings.best_by
        with torch.no_grad(), self.state.averaged():
            figures = judge.look()
        if figures is None:
            return None
        figures = self._agreed(figures)
        c.looked = c.position
        if by not in figures:
            return Sight(figures=figures)
        c.judged.see(c.step, -figures[by] if judge.rising[by] else figures[by])
        tired = (f"no better {by} since step {c.judged.best_step}: stopping early",) if self.tired else ()
        return Sight(figures=figures, notices=tired, best=c.judged.since == 0)

    def _agreed(self, figures: Mapping[str, float]) -> Mapping[str, float]:
        """The leader's figures: what the processes decide by must be the same to the last bit."""
        if self.crew.size == 1:
            return figures
        mine = torch.tensor([*figures.values()], dtype=torch.float64, device=self.lesson.device)
        mine = mine if self.crew.leads else torch.zeros_like(mine)
        self.crew.sum([mine])
        return dict(zip(figures, mine.tolist(), strict=True))

    def _validated(self, held: HeldOut) -> Sight:
        c = self.state.counters
        with self.state.averaged():
            look = held.look(self.lesson, self.settings.batch)
        look = replace(look, loss=self._agreed({"loss": look.loss})["loss"])
        was_rising = c.trend.told
        c.trend.see(c.step, look.loss)
        notices: tuple[str, ...] = ()
        if c.trend.told and not was_rising:
            notices = (f"held-out loss has risen since step {c.trend.best_step}: overfitting",)
        decides = self.settings.best_by == "loss"
        if decides and self.tired:
            notices = (*notices, f"no better held-out loss since step {c.trend.best_step}: stopping early")
        return Sight(look, notices=notices, best=decides and c.trend.since == 0)
