"""Samplers: a solver, a fresh, a grid and a route; and the names that people know them by."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from torch import Tensor

from sfumato import plans
from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.level import Level, Levels
from sfumato.noise import Noise
from sfumato.plans import Grid
from sfumato.sampling import After, Solver, Step, walk
from sfumato.schedules import Schedule
from sfumato.solvers.fresh import Ancestral, Fresh, LargeVariance, Ode, Sde
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


SAMPLERS: Mapping[str, Sampler] = {
    "ddpm": Sampler(Multistep(order=1), Ancestral()),
    "ddpm-large": Sampler(Multistep(order=1), LargeVariance()),
    "ddim": Sampler(Multistep(order=1)),
    "dpmpp-2m": Sampler(Multistep("x0", "log_snr", 2), grid=plans.log_snr),
    "dpmpp-2m-karras": Sampler(Multistep("x0", "log_snr", 2), grid=plans.karras),
    "dpmpp-3m": Sampler(Multistep("x0", "log_snr", 3), grid=plans.log_snr),
    "dpmpp-3m-karras": Sampler(Multistep("x0", "log_snr", 3), grid=plans.karras),
    "dpmpp-2m-sde": Sampler(Multistep("x0", "log_snr", 2), Sde(), grid=plans.log_snr),
    "heun": Sampler(Heun("eps"), grid=plans.karras),
    "euler": Sampler(Multistep(order=1), grid=plans.karras),
    "euler-a": Sampler(Multistep(order=1), Ancestral(), grid=plans.karras),
    "flow-euler": Sampler(Multistep("flow", "linear", 1), grid=plans.uniform),
    "flow-heun": Sampler(Heun("flow"), grid=plans.uniform),
    "flow-ab2": Sampler(Multistep("flow", "linear", 2), grid=plans.uniform),
}
"""The samplers by the names that people know. A name is a value: `Sampler(...)` makes any other."""


def sampler(name: str, eta: float | None = None) -> Sampler:
    """The sampler of this name; `eta` adds ancestral noise to it (DDIM's eta). Raises SettingsError with the
    nearest names."""
    found = SAMPLERS.get(name.strip().lower().replace("_", "-").replace("++", "pp").replace(" ", "-"))
    if found is None:
        near = difflib.get_close_matches(name.lower(), SAMPLERS, n=3) or sorted(SAMPLERS)
        raise SettingsError(f"no sampler is called {name!r}; there are: {', '.join(near)}")
    return found if eta is None else replace(found, fresh=Ancestral(eta))
