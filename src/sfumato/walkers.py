"""What a sampler is: a solver, a fresh, a grid and a route; or steps chosen on the way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from sfumato import plans
from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.level import CLEAN, Level, Levels
from sfumato.noise import Noise
from sfumato.plans import Grid
from sfumato.sampling import After, Solver, walk
from sfumato.schedules import Schedule
from sfumato.solvers import adaptive
from sfumato.solvers.fresh import Fresh, Ode
from sfumato.solvers.moves import Move, Step


@runtime_checkable
class Route(Protocol):
    """In which order a plan goes through a grid: `plans.descend`, or a zig-zag."""

    def __call__(self, levels: Levels) -> list[Move]: ...


@runtime_checkable
class Walker(Protocol):
    """What runs, films and previews need of a sampler, whether its steps are counted or chosen on the way."""

    @property
    def fresh(self) -> Fresh: ...

    @property
    def order(self) -> int: ...

    def plan(self, schedule: Schedule, steps: int | None) -> list[Move]: ...

    def start(self, schedule: Schedule, steps: int | None) -> Level: ...

    def walk(
        self,
        denoise: Denoiser,
        x: Tensor,
        schedule: Schedule,
        steps: int | None,
        noise: Noise,
        after: After | None = None,
    ) -> Iterator[Step]: ...


@dataclass(frozen=True)
class Sampler:
    """A way to sample: what to average, how much noise is new, where to stand, and in which order."""

    solver: Solver
    fresh: Fresh = Ode()  # noqa: RUF009 (frozen)
    grid: Grid = plans.trailing
    route: Route = plans.descend

    @property
    def order(self) -> int:
        """The solver's."""
        return self.solver.order

    def plan(self, schedule: Schedule, steps: int | None) -> list[Move]:
        """The moves of `steps` steps on this schedule."""
        if steps is None:
            raise SettingsError("how many steps? Only adaptive samplers choose them on the way")
        return self.route(self.grid(schedule, steps))

    def start(self, schedule: Schedule, steps: int | None) -> Level:
        """The level of the noise that a walk starts from."""
        return self.plan(schedule, steps)[0].here

    def walk(
        self,
        denoise: Denoiser,
        x: Tensor,
        schedule: Schedule,
        steps: int | None,
        noise: Noise,
        after: After | None = None,
    ) -> Iterator[Step]:
        """Walks the plan from x at `start`; see `sampling.walk`."""
        return walk(denoise, x, self.plan(schedule, steps), self.solver, noise, self.fresh, after)


@dataclass(frozen=True)
class Adaptive:
    """Steps chosen on the way, by every picture for itself; see `solvers.adaptive`.

    tolerance: the error of a step that is allowed, as a share of x; where x is small, 0.156 times as much in
    absolute terms, which at the default of 0.05 is 0.0078, one of 256 steps of brightness (Lu et al. 2022,
    appendix C).
    """

    pair: adaptive.Pair = adaptive.Pair()  # noqa: RUF009 (frozen)
    tolerance: float = 0.05
    fresh: Fresh = Ode()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < math.inf:
            raise SettingsError(f"a tolerance of {self.tolerance:g}: give one above 0, such as 0.05")

    @property
    def order(self) -> int:
        """That of the better of the two rules."""
        return self.pair.order

    def plan(self, schedule: Schedule, steps: int | None) -> list[Move]:
        """From the noisiest level to the least noisy one that was trained, as one move; then to clean data.
        Raises SettingsError if a number of steps is given."""
        if steps is not None:
            raise SettingsError(
                "an adaptive sampler chooses its own steps: leave their number out, and say how exact the "
                "pictures should be by a tolerance"
            )
        start, end = plans.trailing(schedule, 1)[0], plans.log_snr(schedule, 2)[1]
        return [Move(start, end), Move(end, CLEAN)]

    def start(self, schedule: Schedule, steps: int | None) -> Level:
        """The level of the noise that a walk starts from."""
        return self.plan(schedule, steps)[0].here

    def walk(
        self,
        denoise: Denoiser,
        x: Tensor,
        schedule: Schedule,
        steps: int | None,
        noise: Noise,
        after: After | None = None,
    ) -> Iterator[Step]:
        """Walks every row from x at `start`; a step says how often each was looked at so far. Raises
        SettingsError for a hook: rows are at different levels."""
        if after is not None:
            raise SettingsError("an adaptive sampler takes no hook after its steps: choose one with steps")
        way, close = self.plan(schedule, steps)[0], 0.0078 / 0.05 * self.tolerance
        return adaptive.walk(
            denoise, x, way.here, way.there, self.pair, self.tolerance, close, noise, self.fresh
        )
