"""The sampler for this model and so many evaluations: solver, grid and new noise by a race.

Two sets of seeds: by one the best is found, by the other it is measured beside the present default, so that
the luck of the winner is no part of what is said of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sfumato.conditions.schema import Wish
from sfumato.data.dataset import DataSet
from sfumato.errors import SettingsError
from sfumato.evaluation.features.extractor import Extractor
from sfumato.evaluation.figure import Figure
from sfumato.guided import Scale
from sfumato.runs import Run
from sfumato.tuning.asked import Asked, of_data
from sfumato.tuning.candidates import Candidate, affordable, evaluations, with_noise, without_noise
from sfumato.tuning.halving import Kept, halve, rounds
from sfumato.tuning.verdict import Line, Tuning, Walked
from sfumato.tuning.yardsticks import FEWEST, Distance, Likeness, Yardstick, features

Metric = Literal["error", "kid"]
COUNTS = (5, 8, 10, 15, 20, 30, 50)
"""The evaluations of the table of steps against quality."""
FINE = ("vab", "dpmpp-3m", "dpm-solver-3")
"""What the fine solution is made by: the first that the model can be asked by."""
USUAL = "vab"
"""Stands for a default that has no such number of evaluations."""
_FIRST, _FIRST_KID, _BEST = 4, 64, 8
"""Pictures of a first round, by distance and by kernel; how many samplers without noise are given some."""
_CHECK = 32
"""Pictures by which the fine solution is compared with one of half as many evaluations."""


@dataclass(frozen=True)
class Stage:
    """Seeds with what their pictures are told, and how these are judged."""

    asked: Asked
    yardstick: Yardstick

    def look(self, candidate: Candidate, steps: int, rows: range) -> Tensor:
        """What is kept of a candidate's pictures."""
        return self.yardstick.look(self.asked.pictures(candidate, steps, rows), rows)


@dataclass(frozen=True)
class Question:
    """What is to be found out: the best sampler of so many evaluations, by `metric` on `pictures` seeds.

    `extractor` and, where there are real pictures to compare with, `data` go with "kid". `fine` evaluations
    make the fine solution. `guidance` None is the run's own. `candidates` are those without noise that race,
    None: all that have a name.
    """

    run: Run
    evaluations: int
    metric: Metric = "error"
    wishes: tuple[Wish, ...] = (Wish(),)
    guidance: Scale | None = None
    extractor: Extractor | None = None
    data: DataSet | None = None
    pictures: int = 128
    fine: int = 150
    counts: tuple[int, ...] = COUNTS
    seed: int = 0
    batch: int = 64
    candidates: tuple[Candidate, ...] | None = None

    def __post_init__(self) -> None:
        for what, value, least in (
            ("--steps", self.evaluations, 1),
            ("-n", self.pictures, FEWEST),
            ("--fine", self.fine, 2 * self.evaluations),
            ("--table", min(self.counts, default=1), 1),
            ("--batch", self.batch, 1),
        ):
            if value < least:
                raise SettingsError(f"{what} {value}: give a whole number from {least}")
        if self.metric == "kid":
            self.looking()

    def looking(self) -> Extractor:
        """What looks at pictures. Raises SettingsError without any."""
        if self.extractor is None:
            raise SettingsError("KID needs features: open an extractor, or tune by the error")
        return self.extractor

    def flowing(self) -> dict[Candidate, int]:
        """Those without noise that the evaluations are enough for, with their steps."""
        every = without_noise() if self.candidates is None else self.candidates
        return _affordable(self.run, every, self.evaluations)

    def asked(self, part: int, wishes: tuple[Wish, ...]) -> Asked:
        """The seeds of part 0, 1, ...: no two parts share one."""
        seed = self.seed + part * self.pictures
        return Asked(self.run, wishes, self.guidance, seed, self.batch)


def _affordable(run: Run, every: Sequence[Candidate], most: int) -> dict[Candidate, int]:
    found = {one: affordable(run, one, most) for one in every}
    return {one: steps for one, steps in found.items() if steps is not None}


Tell = Callable[[str, int, int], None]
"""Hears what is going on: words, done, of how many."""


def present(run: Run, evaluations: int) -> tuple[Candidate, int]:
    """The run's default sampler in so many evaluations, and its steps; the usual one in place of a default
    that cannot be walked so. Raises SettingsError where that cannot either."""
    own = run.card.sampler
    for candidate in (Candidate(own.name, own.eta), Candidate(USUAL)):
        steps = affordable(run, candidate, evaluations)
        if steps is not None:
            return candidate, steps
    raise SettingsError(
        f"{run.name}: no default sampler takes {evaluations} evaluations of this model: give another --steps"
    )


def fine_sampler(run: Run, evaluations: int) -> tuple[Candidate, int]:
    """What makes the fine solution of a run, and its steps. Raises SettingsError where nothing can."""
    for name in FINE:
        steps = affordable(run, Candidate(name), evaluations)
        if steps is not None:
            return Candidate(name), steps
    raise SettingsError(
        f"{run.name}: its model cannot be asked at {evaluations} levels of its schedule: give another --fine"
    )


def tune(question: Question, tell: Tell = lambda words, done, total: None) -> Tuning:
    """The race, and what came of it. Raises SettingsError, one sentence, before any picture is made."""
    run, most = question.run, question.evaluations
    fine = fine_sampler(run, question.fine)
    now = present(run, most)
    if question.metric == "error":
        search, final, shown = _by_distance(question, fine, tell)
        racing = question.flowing()
        kept = _race(search, racing, rounds(_FIRST, question.pictures), tell)
    else:
        search, final, shown = _by_likeness(question, fine, tell)
        racing, kept = _race_of_laws(question, search, fine, tell)
    pace = racing | dict([now])
    best = next(iter(kept), now[0])
    lines = [
        _line(question, final, now[0], best, count, tell)
        for count in sorted({*question.counts, most, default_cost(run) or most})
    ]
    verdict = next(line for line in lines if line.evaluations == most)
    return Tuning(
        unit=final.yardstick.unit,
        by_law=question.metric == "kid",
        evaluations=most,
        pictures=question.pictures,
        seed=question.seed,
        tried=len(pace),
        fine=shown,
        verdict=verdict,
        rows=tuple(lines),
        finalists=tuple((one, pace[one], search.yardstick.figure(kept[one].seen)) for one in kept),
    )


def default_cost(run: Run) -> int | None:
    """How many evaluations the run's default takes as it stands; None for one that chooses on the way."""
    own = run.card.sampler
    how = Candidate(own.name, own.eta).how()
    return None if how is None else evaluations(how, run.model.schedule, own.steps)


def _by_distance(question: Question, fine: tuple[Candidate, int], tell: Tell) -> tuple[Stage, Stage, Walked]:
    """Both stages, each beside its own fine pictures; and how far these are from ones half as fine."""
    stages: list[Stage] = []
    data, n, wishes = question.data, question.pictures, question.wishes
    known = wishes if data is None else of_data(question.run, data, n, question.seed)[1]
    for part in (0, 1):
        asked = question.asked(part, known)
        stages.append(Stage(asked, Distance(_fine(asked, fine, question.pictures, tell))))
    coarse = fine_sampler(question.run, max(1, question.fine // 2))
    seen = stages[1].look(*coarse, range(min(_CHECK, n)))
    return stages[0], stages[1], Walked(fine[0], fine[1], stages[1].yardstick.figure(seen))


def _by_likeness(question: Question, fine: tuple[Candidate, int], tell: Tell) -> tuple[Stage, Stage, Walked]:
    """Both stages, each beside a reference of its own: real pictures, or fine ones of other seeds; and how
    alike the fine solution is to it."""
    n, extractor = question.pictures, question.looking()
    image = question.run.card.image
    unit = lambda x: (x - image.low) / (image.high - image.low) * 2 - 1
    wishes = [question.wishes, question.wishes]
    if question.data is not None:
        real, known = of_data(question.run, question.data, 2 * n, question.seed)
        half = len(real) // 2
        if half < FEWEST:
            raise SettingsError(
                f"{question.data.name}: {len(real)} pictures are too few for KID: tune by error"
            )
        references = [features(extractor, unit(part)) for part in (real[:half], real[half : 2 * half])]
        wishes = [known[half:], known[:half]]  # what is drawn is told what the other half's pictures are
    else:
        drawn = [_fine(question.asked(part, question.wishes), fine, n, tell) for part in (2, 3)]
        references = [features(extractor, unit(part)) for part in drawn]
    stages = [
        Stage(question.asked(part, told), Likeness(extractor, reference, unit, question.batch))
        for part, (told, reference) in enumerate(zip(wishes, references, strict=True))
    ]
    final = stages[1]
    if question.data is None:
        seen = references[0]
    else:
        tell("the fine solution", 0, 1)
        seen = final.look(*fine, range(n))
    return stages[0], final, Walked(fine[0], fine[1], final.yardstick.figure(seen))


def _fine(asked: Asked, fine: tuple[Candidate, int], n: int, tell: Tell) -> Tensor:
    """The fine pictures of n seeds. Raises SettingsError where they are not finite."""
    parts: list[Tensor] = []
    for start in range(0, n, asked.batch):
        tell("the fine solution", start, n)
        made = asked.pictures(*fine, range(start, min(start + asked.batch, n)))
        if made is None:
            raise SettingsError(f"{asked.run.path}: its fine solution is not finite: use less guidance")
        parts.append(made)
    return torch.cat(parts)


def _race(
    stage: Stage, racing: dict[Candidate, int], sizes: Sequence[int], tell: Tell
) -> dict[Candidate, Kept]:
    """The race of candidates in their steps."""
    return halve(
        list(racing),
        lambda one, rows: stage.look(one, racing[one], rows),
        lambda seen: stage.yardstick.figure(seen).value,
        sizes,
        lambda at, done, total, n: tell(f"round {at + 1}: {total} samplers on {n} pictures", done, total),
    )


def _race_of_laws(
    question: Question, search: Stage, fine: tuple[Candidate, int], tell: Tell
) -> tuple[dict[Candidate, int], dict[Candidate, Kept]]:
    """First by distance, cheaply, all that draw nothing; then by likeness the best of these, without and with
    shares of new noise, and all that have noise of their own."""
    run = question.run
    sizes = [size for size in (_FIRST, 3 * _FIRST) if size <= question.pictures]
    near = Stage(search.asked, Distance(_fine(search.asked, fine, sizes[-1], tell)))
    flowing = question.flowing()
    best = list(_race(near, flowing, sizes, tell))[:_BEST]
    racing = {one: flowing[one] for one in best}
    racing |= _affordable(run, with_noise(best, run.card.learned_variance), question.evaluations)
    return flowing | racing, _race(search, racing, rounds(_FIRST_KID, question.pictures), tell)


def _line(question: Question, stage: Stage, now: Candidate, best: Candidate, count: int, tell: Tell) -> Line:
    """Both samplers in so many evaluations, from the same seeds."""
    rows, run = range(question.pictures), question.run
    tell(f"the table: {count} evaluations", 0, 1)
    steps = {one: affordable(run, one, count) for one in (now, best)}
    seen = {one: stage.look(one, k, rows) for one, k in steps.items() if k is not None}
    walked = {
        one: Walked(one, k, stage.yardstick.figure(seen[one])) for one, k in steps.items() if k is not None
    }
    both = now in seen and best in seen and now != best
    gain: Figure | None = stage.yardstick.difference(seen[best], seen[now]) if both else None
    return Line(count, walked.get(now), walked.get(best), gain)
