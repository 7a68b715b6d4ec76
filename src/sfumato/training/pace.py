"""The learning rate and the length of a run: functions of the step and of the share of the budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sfumato.errors import SettingsError


@dataclass(frozen=True)
class Budget:
    """How long a run is: in steps, images or minutes of training; exactly one is given.

    A resumed run is bit for bit the uninterrupted one for budgets in steps and images. With minutes the
    learning rate follows the clock, which no two runs share.
    """

    steps: int | None = None
    images: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        given = [v for v in (self.steps, self.images, self.minutes) if v is not None]
        if len(given) != 1 or not given[0] > 0:
            raise SettingsError("the length of a run is one of --steps, --images or --minutes, above 0")

    def share(self, step: int, images: int, seconds: float) -> float:
        """The part of the budget that is used up, from 0 to 1."""
        if self.steps is not None:
            done = step / self.steps
        elif self.images is not None:
            done = images / self.images
        else:
            done = seconds / (60 * (self.minutes or 1.0))
        return min(done, 1.0)


@dataclass(frozen=True)
class Pace:
    """Linear warm-up over `warmup` steps, then a cosine from the peak to floor x peak (Loshchilov & Hutter
    2017). Without a number of steps the warm-up takes a twentieth of the budget, at most 100 steps."""

    peak: float
    warmup: int | None = None
    floor: float = 0.01

    def __post_init__(self) -> None:
        if not self.peak > 0 or (self.warmup or 0) < 0 or not 0 <= self.floor <= 1:
            raise SettingsError(
                f"a learning rate needs a peak above 0, a warm-up of 0 or more steps and a floor in 0 .. 1, "
                f"not {self.peak}, {self.warmup}, {self.floor}"
            )

    def rate(self, step: int, share: float) -> float:
        """The learning rate of step 0, 1, ... when this share of the budget is used up."""
        rise = (step + 1) / ((100 if self.warmup is None else self.warmup) + 1)
        if self.warmup is None:
            rise = max(rise, 20 * share)
        fall = self.floor + (1 - self.floor) * (1 + math.cos(math.pi * share)) / 2
        return self.peak * min(1.0, rise) * fall
