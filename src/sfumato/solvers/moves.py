"""The two moves that every sampler is made of: carry an estimate to another level, or renoise.

A plan is a list of moves between scalar levels; a leg is a move with everything that can be worked out
beforehand as Python floats, so that a step touches only tensors of x's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.forward import transition
from sfumato.level import Level, spread_on
from sfumato.predictions import Estimate


class Move(NamedTuple):
    """From one level to another: solved (in whichever direction), or renoised (upwards only).

    spare: a renoising move's noise, in units of what the forward process adds (EDM's S_noise).
    through: where a single-step solver looks again on the way, in place of its own nodes; None leaves that to
    the solver. Other solvers refuse it.
    """

    here: Level
    there: Level
    renoise: bool = False
    spare: float = 1.0
    through: tuple[Level, ...] | None = None


class Point(NamedTuple):
    """A scalar level as floats."""

    alpha: float
    sigma: float

    @staticmethod
    def of(level: Level) -> Point:
        return Point(float(level.alpha), float(level.sigma))


class Leg(NamedTuple):
    """A solved move: from `here` to `kept`, the target level less the noise that will be drawn anew.

    `restart` says that what was seen before does not lie on this trajectory (the first leg, or one after
    renoising); `through` is the move's.
    """

    here: Point
    there: Point
    kept: Point
    restart: bool
    through: tuple[Point, ...] | None = None


def refuse_through(legs: Sequence[Leg], solver: object) -> None:
    """Raises SettingsError where a leg says at which levels to look again, to a solver that would not."""
    if any(leg.through for leg in legs):
        raise SettingsError(
            f"this plan says where to look again within a move (plans.Strides), and {type(solver).__name__} "
            "does not look there: take Singlestep, or plans.descend"
        )


class Step(NamedTuple):
    """What a walk yields after each move: x at `level`, and the estimate that the move was made from (None:
    renoised).

    evaluations: how often each picture has been looked at so far, (B,), where pictures differ in it.
    """

    i: int
    x: Tensor
    level: Level
    estimate: Estimate | None
    evaluations: Tensor | None = None


def carry(estimate: Estimate, there: Level) -> Tensor:
    """The one deterministic move, x' = alpha' x0 + sigma' eps (DDIM; Song et al. 2021, eq. 12).

    At a scalar level a half that is multiplied by zero is not computed, so it may be one that the network
    cannot tell.
    """
    if there.alpha.ndim == 0:
        return carried(estimate, Point.of(there))
    alpha, sigma = there.on(estimate.x)
    return alpha * estimate.x0 + sigma * estimate.eps


def carried(estimate: Estimate, there: Point) -> Tensor:
    """`carry` to a level given as floats."""
    if there.sigma == 0:
        return estimate.x0 * there.alpha
    if there.alpha == 0:
        return estimate.eps * there.sigma
    return torch.add(estimate.x0 * there.alpha, estimate.eps, alpha=there.sigma)


def renoise(x: Tensor, here: Level, there: Level, z: Tensor) -> Tensor:
    """The one stochastic move, upwards: a draw of q(x_there | x_here) from standard normals z."""
    step = transition(here, there)
    return spread_on(step.gain, x) * x + spread_on(step.variance.sqrt(), x) * z.to(x)


def check_renoise(here: Level, there: Level) -> None:
    """Noise can only be added: raises SettingsError for a move towards clean data."""
    if float(there.angle) < float(here.angle) - 1e-12:
        raise SettingsError(
            f"cannot renoise from sigma = {float(here.sigma):.4g} down to sigma = {float(there.sigma):.4g}: "
            "renoising moves go towards more noise"
        )
