"""The samplers that a run may be sampled by, at equal numbers of evaluations.

A candidate has a name, so that a run's card and a picture's own account can say it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.denoiser import Exact
from sfumato.errors import SettingsError
from sfumato.noise import Noise
from sfumato.runs import Run
from sfumato.samplers import GRIDS, SAMPLERS, TO_LEAST, Sampler, sampler
from sfumato.sampling import Counted, prior
from sfumato.schedules import Schedule
from sfumato.solvers.fresh import LearnedVariance, Ode

_KNOWN = Mixture.gaussian([0.0], [0.5])
_SLACK = 2
"""A sampler that takes several looks a step may leave so many evaluations over."""
ETAS = (0.25, 0.5, 1.0)
"""Shares of new noise that are tried on a sampler without any."""


@dataclass(frozen=True)
class Candidate:
    """A sampler by its name and share of new noise (None: its own)."""

    name: str
    eta: float | None = None

    def how(self) -> Sampler | None:
        """The sampler; None for one that chooses its own steps, which has no number of evaluations."""
        found = sampler(self.name, self.eta)
        return found if isinstance(found, Sampler) else None

    def __str__(self) -> str:
        return self.name if self.eta is None else f"{self.name} with eta {self.eta:g}"


def _falls(how: Sampler) -> bool:
    """Whether it only ever goes down: a run's default is also what edits walk by."""
    return how.route == plans.descend or isinstance(how.route, plans.Strides)


def _once(names: Sequence[Candidate]) -> list[Candidate]:
    """Each sampler once, under its first name."""
    found: dict[Sampler, Candidate] = {}
    for name in names:
        how = name.how()
        if how is not None:
            found.setdefault(how, name)
    return list(found.values())


def without_noise() -> list[Candidate]:
    """Every solver that draws nothing on its way, on every grid."""
    bases = [name for name, how in SAMPLERS.items() if how.fresh == Ode() and _falls(how)]
    ends = ["", *(f"-{grid}" for grid in GRIDS)]
    ends += [f"-{grid}{TO_LEAST}" for grid in ("trailing", "interior", "late", "bounded")]
    return _once([Candidate(f"{base}{end}") for end in ends for base in bases])


def with_noise(best: Sequence[Candidate], learned_variance: bool) -> list[Candidate]:
    """The samplers that draw new noise, and the `best` without noise with shares of it. Those of a learned
    variance only where the model has learned it."""
    named = [Candidate(name) for name, how in SAMPLERS.items() if how.fresh != Ode() and _falls(how)]
    if not learned_variance:
        named = [one for one in named if not isinstance(SAMPLERS[one.name].fresh, LearnedVariance)]
    return _once([*named, *(Candidate(one.name, eta) for one in best for eta in ETAS)])


def evaluations(how: Sampler, schedule: Schedule, steps: int) -> int:
    """How often a walk of so many steps asks a model, guidance not counted. Raises SettingsError for steps
    that its grid does not have."""
    denoise = Exact(lambda x, level: _KNOWN.posterior_mean(x, level.alpha, level.sigma))
    counted, noise = Counted.of(denoise, 1), Noise((0,))
    for _ in how.walk(counted, prior(how.start(schedule, steps), (1,), noise), schedule, steps, noise):
        pass
    return counted.counts[0]


def steps_for(how: Sampler, schedule: Schedule, most: int) -> int | None:
    """The most steps that cost at most so many evaluations; None where they would leave more than two over,
    or where the schedule has no such grid."""
    steps = most
    while steps > 0:
        try:
            cost = evaluations(how, schedule, steps)
        except SettingsError:
            return None
        if cost <= most:
            return steps if cost >= most - _SLACK else None
        steps = min(steps - 1, max(1, steps * most // cost + 1))
    return None


def affordable(run: Run, candidate: Candidate, most: int) -> int | None:
    """`steps_for` on the run's own schedule; None also where its model cannot be asked at those levels."""
    how, schedule = candidate.how(), run.model.schedule
    steps = None if how is None else steps_for(how, schedule, most)
    if how is None or steps is None:
        return None
    try:
        with torch.no_grad():
            for move in how.plan(schedule, steps):
                if not move.renoise:
                    run.model.check(move.here)
    except SettingsError:
        return None
    return steps
