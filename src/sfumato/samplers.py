"""Samplers: a solver, a fresh, a grid and a route; and the names that people know them by.

A name is a value: `Sampler(...)` makes any other. "dpmpp-2m-karras" is "dpmpp-2m" on the grid "karras", so
the table holds the bases alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.denoiser import Denoiser, Exact
from sfumato.errors import SettingsError
from sfumato.level import Level, Levels
from sfumato.noise import Noise
from sfumato.plans import Grid
from sfumato.sampler_names import nearest, split
from sfumato.sampling import After, Counted, Solver, Step, prior, walk
from sfumato.schedules import Linear, Schedule
from sfumato.solvers.fresh import Ancestral, Fresh, LargeVariance, LearnedVariance, Ode, Sde
from sfumato.solvers.moves import Move
from sfumato.solvers.multistep import Multistep
from sfumato.solvers.singlestep import Heun


@runtime_checkable
class Route(Protocol):
    """In which order a plan goes through a grid: `plans.descend`, or a zig-zag."""

    def __call__(self, levels: Levels) -> list[Move]: ...


@dataclass(frozen=True)
class Sampler:
    """A way to sample: what to average, how much noise is new, where to stand, and in which order."""

    solver: Solver
    fresh: Fresh = Ode()  # noqa: RUF009 (frozen)
    grid: Grid = plans.trailing
    route: Route = plans.descend

    def plan(self, schedule: Schedule, steps: int) -> list[Move]:
        """The moves of `steps` steps on this schedule."""
        return self.route(self.grid(schedule, steps))

    def start(self, schedule: Schedule, steps: int) -> Level:
        """The level of the noise that a walk starts from."""
        return self.plan(schedule, steps)[0].here

    def walk(
        self,
        denoise: Denoiser,
        x: Tensor,
        schedule: Schedule,
        steps: int,
        noise: Noise,
        after: After | None = None,
    ) -> Iterator[Step]:
        """Walks the plan from x at `start`; see `sampling.walk`."""
        return walk(denoise, x, self.plan(schedule, steps), self.solver, noise, self.fresh, after)


class Known(NamedTuple):
    """A sampler that has a name, and what it is good for."""

    sampler: Sampler
    good_for: str


KNOWN: Mapping[str, Known] = {
    "ddim": Known(Sampler(Multistep(order=1)), "one seed, one picture; the plain move, for comparison"),
    "ddpm": Known(Sampler(Multistep(order=1), Ancestral()), "the original; best from a hundred steps up"),
    "ddpm-large": Known(
        Sampler(Multistep(order=1), LargeVariance()), "the original with beta, for a thousand steps"
    ),
    "ddpm-learned": Known(
        Sampler(Multistep(order=1), LearnedVariance()), "models with a learned variance; from 25 steps up"
    ),
    "dpmpp-2m": Known(Sampler(Multistep("x0", "log_snr", 2), grid=plans.log_snr), "10 to 50 steps, guided"),
    "dpmpp-3m": Known(Sampler(Multistep("x0", "log_snr", 3), grid=plans.log_snr), "20 to 100 steps"),
    "dpmpp-2m-sde": Known(
        Sampler(Multistep("x0", "log_snr", 2), Sde(), plans.log_snr), "stochastic, from 20 steps"
    ),
    "heun": Known(Sampler(Heun("eps"), grid=plans.karras), "a reference: safe from 20 steps up"),
    "euler": Known(Sampler(Multistep(order=1), grid=plans.karras), "DDIM on k-diffusion's grid"),
    "euler-a": Known(
        Sampler(Multistep(order=1), Ancestral(), plans.karras), "DDPM on k-diffusion's grid: varied pictures"
    ),
    "flow-euler": Known(
        Sampler(Multistep("flow", "linear", 1), grid=plans.uniform), "straight flows in few steps"
    ),
    "flow-heun": Known(Sampler(Heun("flow"), grid=plans.uniform), "flows, two looks a step"),
    "flow-ab2": Known(Sampler(Multistep("flow", "linear", 2), grid=plans.uniform), "flows, from 10 steps up"),
}
"""The bases, by name."""

SAMPLERS: Mapping[str, Sampler] = {name: known.sampler for name, known in KNOWN.items()}
"""The same without the words."""

GRIDS: Mapping[str, Grid] = {
    "karras": plans.karras,
    "log-snr": plans.log_snr,
    "uniform": plans.uniform,
    "trailing": plans.trailing,
    "leading": plans.leading,
}
"""The grids that a name may end in."""


def sampler(name: str, eta: float | None = None) -> Sampler:
    """The sampler of this name, in anybody's spelling: "DPM++ 2M Karras", "dpmpp_2m",
    "DPMSolverMultistepScheduler".

    A grid at the end of the name replaces the sampler's own. `eta` makes its new noise ancestral, that share
    of it (DDIM's eta). Raises SettingsError with the nearest names.
    """
    parts = split(name, KNOWN)
    if parts is None:
        near = nearest(name, KNOWN) or list(KNOWN)
        raise SettingsError(f"no sampler is called {name!r}; there are: {', '.join(near)}")
    base, grid = parts
    found = KNOWN[base].sampler
    if grid:
        found = replace(found, grid=GRIDS[grid])
    return found if eta is None else replace(found, fresh=Ancestral(eta))


class Traits(NamedTuple):
    """What a sampler is like, found out by using it."""

    order: int
    evaluations: float
    """Of the model, for each step that is asked for."""
    stochastic: bool
    """Whether a walk from the same x may end elsewhere."""


def traits(how: Sampler) -> Traits:
    """Tries a sampler on one Gaussian: counts evaluations, and looks whether other noise ends elsewhere."""
    data = Mixture.gaussian([0.3], [0.5])
    denoise = Exact(lambda x, level: data.posterior_mean(x, level.alpha, level.sigma))
    x = prior(how.start(Linear(), 12), (1,), Noise((0,)))

    def tried(steps: int, seed: int) -> tuple[int, Tensor]:
        counted = Counted.of(denoise, 1)
        *_, last = how.walk(counted, x, Linear(), steps, Noise((seed,)))
        return counted.counts[0], last.x

    (few, here), (many, _), (_, there) = tried(12, 1), tried(24, 1), tried(12, 2)
    return Traits(how.solver.order, (many - few) / 12, not torch.equal(here, there))
