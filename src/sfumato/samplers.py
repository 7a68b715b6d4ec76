"""Samplers by name. A name is a value: `Sampler(...)` makes any other. "dpmpp-2m-karras" is "dpmpp-2m" on the
grid "karras", and "ddim-late-to-least" is "ddim" on "late" without its last move to clean data, so the table
holds the bases alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.denoiser import Exact
from sfumato.errors import SettingsError
from sfumato.level import Levels
from sfumato.noise import Noise
from sfumato.plans import Grid
from sfumato.sampler_names import nearest, plain, split
from sfumato.sampling import Counted, prior
from sfumato.schedules import Linear
from sfumato.solvers import adaptive
from sfumato.solvers.fresh import Ancestral, Anew, LargeVariance, LearnedVariance, Sde
from sfumato.solvers.langevin import Langevin, Lower
from sfumato.solvers.moves import Move
from sfumato.solvers.multistep import Multistep
from sfumato.solvers.rungekutta import RungeKutta
from sfumato.solvers.singlestep import Heun, Singlestep
from sfumato.solvers.started import Started
from sfumato.solvers.unipc import UniPC
from sfumato.walkers import Adaptive, Route, Sampler, Walker

__all__ = [
    "GRIDS",
    "KNOWN",
    "SAMPLERS",
    "TO_LEAST",
    "Adaptive",
    "Known",
    "Route",
    "Sampler",
    "Traits",
    "Walker",
    "sampler",
    "traits",
    "usual_steps",
]


def restarted(levels: Levels) -> list[Move]:
    """`plans.restart` from 0.06 to 0.3, twice; a plain descent on a grid that has no two nodes there."""
    ratio = levels.sigma / levels.alpha
    fine = int(((ratio >= 0.06) & (ratio <= 0.3)).sum()) > 1
    return plans.restart(levels, ((0.06, 0.3, 2),)) if fine else plans.descend(levels)


class Known(NamedTuple):
    """A sampler that has a name, what it is good for, and how many steps it takes where none are said."""

    sampler: Sampler | Adaptive
    good_for: str
    steps: int = 20


ONE, PLMS, EVEN = Multistep(order=1), Multistep("eps", "index", 4), plans.log_snr

KNOWN: Mapping[str, Known] = {
    "vab": Known(
        Sampler(Multistep("v", "bounded", 3), grid=plans.bounded),
        "the recommended one: the most exact at any number of steps",
    ),
    # one look a step
    "ddim": Known(Sampler(ONE), "one seed, one picture; the plain move, for comparison", 50),
    "euler": Known(Sampler(ONE, grid=plans.karras), "the same on k-diffusion's grid", 50),
    "ddpm": Known(Sampler(ONE, Ancestral()), "the original; from a hundred steps up", 250),
    "ddpm-large": Known(Sampler(ONE, LargeVariance()), "the original with beta; for a thousand steps", 1000),
    "ddpm-learned": Known(Sampler(ONE, LearnedVariance()), "models with a learned variance; from 25 up", 50),
    "euler-a": Known(Sampler(ONE, Ancestral(), plans.karras), "varied pictures, on k-diffusion's grid", 50),
    "lcm": Known(Sampler(ONE, Anew()), "consistency models, 1 to 8 steps", 4),
    # what was seen before, averaged
    "dpmpp-2m": Known(Sampler(Multistep("x0", "log_snr", 2), grid=EVEN), "10 to 50 steps, strong guidance"),
    "dpmpp-3m": Known(Sampler(Multistep("x0", "log_snr", 3), grid=EVEN), "20 to 100 steps", 25),
    "dpmpp-2m-sde": Known(
        Sampler(Multistep("x0", "log_snr", 2), Sde(), EVEN), "stochastic, from 20 steps", 40
    ),
    "dpmpp-3m-sde": Known(
        Sampler(Multistep("x0", "log_snr", 3), Sde(), EVEN), "stochastic, from 50 steps", 50
    ),
    "unipc": Known(Sampler(UniPC(2), grid=EVEN), "10 to 50 steps: looks back at each move"),
    "unipc-1": Known(Sampler(UniPC(1), grid=EVEN), "the same, of lower order"),
    "unipc-3": Known(Sampler(UniPC(3), grid=EVEN), "the same, from 25 steps, little guidance", 25),
    "unipc-4": Known(Sampler(UniPC(4), grid=EVEN), "the same, for fine grids", 50),
    "v-ab2": Known(Sampler(Multistep("v", "log_snr", 2), grid=EVEN), "5 to 10 steps"),
    "v-ab3": Known(Sampler(Multistep("v", "log_snr", 3), grid=EVEN), "5 to 25 steps"),
    "dpm-solver-2m": Known(Sampler(Multistep("eps", "log_snr", 2), grid=EVEN), "10 to 50, no guidance"),
    "deis": Known(Sampler(Multistep("eps", "log_snr", 3), grid=EVEN), "10 to 50, no guidance"),
    "deis-tab": Known(Sampler(Multistep("eps", "time", 3), grid=plans.trailing), "DEIS as first published"),
    "lms": Known(Sampler(Multistep("eps", "ratio", 4), grid=EVEN), "from 50 steps up, very exact", 50),
    "plms": Known(Sampler(PLMS), "what older models' pages were made with", 50),
    "pndm": Known(Sampler(Started(PLMS, RungeKutta("eps", 4))), "the same with its Runge-Kutta start", 50),
    # further looks within the step
    "heun": Known(Sampler(Heun("eps"), grid=plans.karras), "a reference, from 20 steps up", 25),
    "dpm2": Known(Sampler(Singlestep("eps", 2), grid=plans.karras), "a reference, from 20 steps up", 25),
    "dpm-solver-2": Known(Sampler(Singlestep("eps", 2), grid=EVEN), "10 steps up, no guidance"),
    "dpm-solver-3": Known(Sampler(Singlestep("eps", 3), grid=EVEN), "5 steps up, no guidance"),
    "dpm-fast": Known(
        Sampler(Singlestep("eps", 3), grid=plans.fast, route=plans.Strides(3)),
        "DPM-Solver-fast, as published",
    ),
    "dpmpp-2s": Known(Sampler(Singlestep("x0", 2), grid=EVEN), "5 steps up, strong guidance"),
    "dpmpp-3s": Known(Sampler(Singlestep("x0", 3), grid=EVEN), "5 steps up, exact"),
    "dpmpp-2s-strides": Known(
        Sampler(Singlestep("x0", 2), grid=EVEN, route=plans.Strides(2)), "looks at nodes: any count"
    ),
    "dpmpp-3s-strides": Known(
        Sampler(Singlestep("x0", 3), grid=EVEN, route=plans.Strides(3)), "looks at nodes: any count"
    ),
    "dpm2-a": Known(
        Sampler(Singlestep("eps", 2), Ancestral(), plans.karras), "stochastic, from 50 steps", 50
    ),
    "dpmpp-2s-a": Known(Sampler(Singlestep("x0", 2), Ancestral(), plans.karras), "stochastic, from 10 steps"),
    "dpmpp-sde": Known(Sampler(Singlestep("x0", 2), Sde(), plans.karras), "stochastic, from 10 steps"),
    # up and down again
    "edm": Known(Sampler(Heun("eps"), grid=plans.karras, route=plans.churn), "stochastic, 50 steps up", 50),
    "restart": Known(Sampler(Heun("eps"), grid=plans.karras, route=restarted), "stochastic, 20 steps up", 40),
    "pc": Known(
        Sampler(ONE, Langevin(moving=Ancestral()), EVEN, plans.corrected),
        "score models, hundreds of steps",
        250,
    ),
    "langevin": Known(
        Sampler(ONE, Langevin(moving=Lower()), EVEN, plans.annealed),
        "score models, 200 levels up: fewer end in noise",
        200,
    ),
    # as many steps as it takes
    "dpm-adaptive": Known(Adaptive(), "an error to keep instead of a number of steps"),
    "dpm-adaptive-12": Known(Adaptive(adaptive.Pair(order=2)), "the same, of lower order"),
    # straight paths
    "flow-euler": Known(
        Sampler(Multistep("flow", "linear", 1), grid=plans.uniform), "straight flows, few steps", 50
    ),
    "flow-ab2": Known(Sampler(Multistep("flow", "linear", 2), grid=plans.uniform), "flows, from 10 steps up"),
    "flow-midpoint": Known(
        Sampler(Singlestep("flow", 2, clock="linear"), grid=plans.uniform), "flows, two looks a step"
    ),
    "flow-heun": Known(Sampler(Heun("flow"), grid=plans.uniform), "flows, two looks a step"),
}
"""The bases, by name."""

SAMPLERS: Mapping[str, Sampler] = {
    name: known.sampler for name, known in KNOWN.items() if isinstance(known.sampler, Sampler)
}
"""Those with steps, without the words."""

GRIDS: Mapping[str, Grid] = {
    "karras": plans.karras,
    "log-snr": plans.log_snr,
    "uniform": plans.uniform,
    "trailing": plans.trailing,
    "leading": plans.leading,
    "interior": plans.interior,
    "late": plans.late,
    "bounded": plans.bounded,
    "fast": plans.fast,
}
"""The grids that a name may end in."""
TO_LEAST = "-to-least"
"""The end of a name whose grid ends at the least noise that was trained (`plans.ToLeast`)."""


def sampler(name: str, eta: float | None = None, tolerance: float | None = None) -> Walker:
    """The sampler of this name, in anybody's spelling: "DPM++ 2M Karras", "dpmpp_2m",
    "DPMSolverMultistepScheduler".

    A grid at the end of the name replaces the sampler's own, and "to-least" after it ends that at the least
    noise that was trained. `eta` makes its new noise ancestral, that share of it (DDIM's eta). `tolerance`
    goes with adaptive samplers. Raises SettingsError, for an unknown name with the nearest ones.
    """
    parts = _parted(name)
    if parts is None:
        near = nearest(name, KNOWN) or list(KNOWN)
        raise SettingsError(f"no sampler is called {name!r}; there are: {', '.join(near)}")
    base, grid, least = parts
    found = KNOWN[base].sampler
    fresh = found.fresh if eta is None else Ancestral(eta)
    if isinstance(found.fresh, Langevin):
        fresh = replace(found.fresh, moving=found.fresh.moving if eta is None else fresh)
    if isinstance(found, Adaptive):
        if grid or least:
            raise SettingsError(f"{base} chooses its own levels: leave {grid or 'to-least'} out of its name")
        return replace(found, fresh=fresh, tolerance=found.tolerance if tolerance is None else tolerance)
    if tolerance is not None:
        raise SettingsError(f"{base} takes the steps that it is told: a tolerance goes with dpm-adaptive")
    place = GRIDS[grid] if grid else found.grid
    return replace(found, fresh=fresh, grid=plans.ToLeast(place) if least else place)


def _parted(name: str) -> tuple[str, str, bool] | None:
    """(base, grid, whether it ends at the least noise) of a name; None for one that nobody knows."""
    text = plain(name)
    parts = split(text.removesuffix(TO_LEAST), KNOWN)
    return None if parts is None else (*parts, text.endswith(TO_LEAST))


def usual_steps(how: str | Walker) -> int | None:
    """The steps that a sampler takes where none are said; None for one without a name."""
    parts = _parted(how) if isinstance(how, str) else None
    return None if parts is None else KNOWN[parts[0]].steps


class Traits(NamedTuple):
    """What a sampler is like, found out by using it."""

    order: int
    evaluations: float
    """Of the model, for each step that is asked for."""
    stochastic: bool
    """Whether a walk from the same x may end elsewhere."""


def traits(how: Walker) -> Traits:
    """Tries a sampler on one Gaussian: counts evaluations, and looks whether other noise ends elsewhere."""
    data = Mixture.gaussian([0.3], [0.5])
    denoise = Exact(lambda x, level: data.posterior_mean(x, level.alpha, level.sigma))
    few, many = (None, None) if isinstance(how, Adaptive) else (12, 24)
    x = prior(how.start(Linear(), few), (1,), Noise((0,)))

    def tried(steps: int | None, seed: int) -> tuple[int, int, Tensor]:
        counted = Counted.of(denoise, 1)
        *_, last = how.walk(counted, x, Linear(), steps, Noise((seed,)))
        return counted.counts[0], last.i, last.x

    (least, i, _), (most, _, here), (_, _, there) = tried(few, 1), tried(many, 1), tried(many, 2)
    each = (most - least) / (many - few) if few and many else (least - 1) / i
    return Traits(how.order, each, not torch.equal(here, there))
