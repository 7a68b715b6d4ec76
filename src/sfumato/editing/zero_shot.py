"""Solving an inverse problem with a run that was never trained for it: one door for the three methods."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from sfumato.editing.inverse import Measured, ddrm, ddrm_steps, dps, pigdm
from sfumato.editing.job import Bench, bench
from sfumato.errors import SettingsError
from sfumato.guidance.bound import Clipped
from sfumato.operators import Operator
from sfumato.runs import Recipe, Run
from sfumato.solvers.fresh import Ancestral
from sfumato.solvers.multistep import Multistep

METHODS = ("pigdm", "ddrm", "dps")
STEPS = {"dps": 100}
"""The steps of a method that does badly in as few as samplers need."""


@dataclass(frozen=True)
class Method:
    """How an inverse problem is solved. noise: of the measurement, its standard deviation as a share of the
    pictures' range; scale: of DPS alone. Raises SettingsError for what a method does not use."""

    name: str = "pigdm"
    noise: float | int = 0.0
    scale: float | int | None = None

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise SettingsError(f"--method is one of {', '.join(METHODS)}, not {self.name!r}")
        if not 0 <= self.noise < 1:
            raise SettingsError(f"--noise is a share of the picture's range from 0 to 1, not {self.noise}")
        if self.noise and self.name == "dps":
            raise SettingsError(
                "dps is told no noise: leave out --noise, and trust less by a smaller --scale"
            )
        if self.scale is not None and self.name != "dps":
            raise SettingsError(f"--scale goes with --method dps: {self.name} follows from --noise")


def solve(run: Run, recipe: Recipe, operator: Operator, y: Tensor, method: Method) -> Tensor:
    """Pictures x, one for each of the recipe's, with operator(x) = y, (1 or B, ...) in the run's range. They
    are on the CPU, and of the operator's size, which may be larger than the model's (in tiles then).

    Pi-GDM solves with the recipe's own sampler; of the others' the grid is used. Where the recipe clips
    estimates, a gradient is taken before they are clipped. Raises SettingsError for an eta that is not used.
    """
    image = run.card.image
    span = image.high - image.low
    inner = method.name == "ddrm"
    if method.name != "pigdm" and recipe.eta not in (None, run.card.sampler.eta):
        raise SettingsError(f"--eta goes with --method pigdm: {method.name} has its own share of new noise")
    part = recipe if inner else replace(recipe, clip=False)
    b = bench(run, part).over((operator.shape[1], operator.shape[2]))
    rows = y.expand(len(recipe.seeds), *y.shape[1:]).to(run.device)
    measured = Measured(operator, rows, method.noise * span)
    if inner:
        job = ddrm(b.denoise, measured, b.levels, b.noise)
        return replace(b, how=ddrm_steps(b.how)).finished(job)
    if method.name == "pigdm":
        job = pigdm(b.denoise, measured, b.levels, b.noise, 0.5 * span)
    else:
        job = dps(b.denoise, operator, rows, operator.shape, b.levels, b.noise, method.scale)
        b = ddpm_steps(b)
    if recipe.clip:
        job = replace(job, denoise=Clipped(job.denoise, image.low, image.high))
    return b.finished(job)


def ddpm_steps(b: Bench) -> Bench:
    """The bench with DDPM's steps on the grid of its sampler."""
    return replace(b, how=replace(b.how, solver=Multistep(order=1), fresh=Ancestral()))
