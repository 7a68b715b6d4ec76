"""Langevin dynamics, as a way to split standing moves: the solver need not know.

A standing move (here -> here) of Langevin dynamics adds step * score and normals of variance 2 step to x.
With score = -eps / sigma that is x' = alpha x0 + (sigma - step / sigma) eps + sqrt(2 step) z: carry to less
noise than there was, then add noise. So predictor-corrector sampling (Song et al. 2021, algorithms 4 and 5)
is `plans.corrected` with `Langevin(snr, predictor)`, and annealed Langevin dynamics (Song & Ermon 2019,
algorithm 1) is `plans.annealed` with `Langevin(snr, Lower())`. Solvers take standing moves at order one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.solvers.fresh import Fresh, Ode, Split


@dataclass(frozen=True)
class Langevin:
    """Langevin steps of signal-to-noise ratio `snr` where the plan stands; `moving` splits the other moves.

    step = 2 (snr sigma)^2. Song et al. (2021) write 2 (snr |z| / |score|)^2 with both norms averaged over the
    batch; eps = -sigma score and z are normals of one size, so this is its value for an exact model, and it
    depends on no neighbour and on no draw. In the words of Song & Ermon (2019), whose steps are half their
    alpha_i = epsilon sigma_i^2 / sigma_L^2: snr = sqrt(epsilon) / (2 sigma_L).

    The variance that a chain of them settles at is too large by a part of up to snr^2: nothing is rejected.
    """

    snr: float = 0.16
    moving: Fresh = Ode()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if not 0 < self.snr <= math.sqrt(0.5):
            raise SettingsError(f"a Langevin step of snr = {self.snr:g}: choose above 0 and at most 0.7")

    def __call__(self, here: Level, there: Level) -> Split:
        sigma = float(here.sigma)
        if (float(here.alpha), sigma) != (float(there.alpha), float(there.sigma)):
            return self.moving(here, there)
        return Split(sigma * max(0.0, 1 - 2 * self.snr**2), 2 * self.snr * sigma)


@dataclass(frozen=True)
class Lower:
    """To the next level with x as it is, but for the curve's scale: what annealed Langevin dynamics does. The
    last move, to sigma = 0, says what is seen (Jolicoeur-Martineau et al. 2021)."""

    def __call__(self, here: Level, there: Level) -> Split:
        if float(there.sigma) == 0 or float(here.alpha) == 0:
            return Split(float(there.sigma), 0.0)
        return Split(float(here.sigma * there.alpha / here.alpha), 0.0)
