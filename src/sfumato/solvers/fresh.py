"""How much of a solved move's noise is new. 0 is the ODE; the rest are four formulas for one number.

A move ends at sigma'. Part of it, `kept`, is carried along the estimate's eps; the rest, `added`, is drawn
anew. For all but DDPM with beta the two are tied: kept^2 + added^2 = sigma'^2. A move that ends at sigma' = 0
adds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.forward import largest_variance
from sfumato.level import Level
from sfumato.predictions import Estimate


class Split(NamedTuple):
    """kept: the sigma that the solver aims at. added: the std of the new noise, or a function of the estimate
    giving it (shaped like x) where it is learned."""

    kept: float
    added: float | Callable[[Estimate], Tensor]


@runtime_checkable
class Fresh(Protocol):
    """How a move from `here` to `there` splits its noise into kept and new."""

    def __call__(self, here: Level, there: Level) -> Split: ...


def _tied(there: Level, added: float) -> Split:
    sigma = float(there.sigma)
    return Split(math.sqrt(max(0.0, (sigma - added) * (sigma + added))), added)


def _ratio(here: Level, there: Level) -> float:
    """(alpha_t / sigma_t) / (alpha_s / sigma_s), at most 1 for a move towards clean data: exp(-h) on the
    lambda clock."""
    if float(here.alpha) == 0:
        return 0.0
    return float(here.alpha / there.alpha * there.sigma / here.sigma)


def _posterior_std(here: Level, there: Level) -> float:
    """sqrt(beta-tilde) of this move: sigma_s sqrt(1 - ratio^2)."""
    ratio = min(1.0, _ratio(here, there))
    return float(there.sigma) * math.sqrt((1 - ratio) * (1 + ratio))


@dataclass(frozen=True)
class Ode:
    """No new noise: the probability-flow ODE."""

    def __call__(self, here: Level, there: Level) -> Split:
        return Split(float(there.sigma), 0.0)


@dataclass(frozen=True)
class Ancestral:
    """eta times the posterior's standard deviation, sqrt(beta-tilde) (DDIM's eta, Song et al. 2021, eq. 16).

    eta = 1 is DDPM with the small variance and Euler-ancestral; eta = 0 is the ODE.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise SettingsError(f"eta is {self.eta}, but must lie in 0 .. 1")

    def __call__(self, here: Level, there: Level) -> Split:
        return _tied(there, self.eta * _posterior_std(here, there))


@dataclass(frozen=True)
class LargeVariance:
    """DDPM with beta, the upper bound of the reverse variance: beta-tilde's mean, but more noise (Ho et al.
    2020, sec. 3.2).

    Exact for data of unit variance, where beta-tilde is exact for a single point; not tied.
    """

    def __call__(self, here: Level, there: Level) -> Split:
        kept = Ancestral(1.0)(here, there).kept
        return Split(
            kept, 0.0 if float(there.sigma) == 0 else math.sqrt(float(largest_variance(here, there)))
        )


@dataclass(frozen=True)
class Between:
    """A standard deviation that the model says: `Estimate.spread` of the way from log low to log high, the
    two variances; that of low where it says none."""

    low: float
    high: float

    def __call__(self, estimate: Estimate) -> Tensor:
        low, high = math.log(self.low), math.log(self.high)
        spread = torch.zeros((), dtype=estimate.x.dtype) if estimate.spread is None else estimate.spread
        return torch.exp((low + (high - low) * spread) / 2)


@dataclass(frozen=True)
class LearnedVariance:
    """DDPM with a learned variance: beta-tilde's mean, and for each pixel a noise between beta-tilde's and
    beta's of the move that is made, so that skipping steps needs no more (Nichol & Dhariwal 2021, eq. 15)."""

    def __call__(self, here: Level, there: Level) -> Split:
        small = _posterior_std(here, there)
        kept = _tied(there, small).kept
        return Split(kept, Between(small**2, float(largest_variance(here, there))) if small else 0.0)


@dataclass(frozen=True)
class Sde:
    """The reverse SDE sped up by eta^2 and solved exactly over the step for a frozen estimate (Lu et al.
    2022b; Song 2021).

    added = sigma' sqrt(1 - exp(-2 eta h)), h the step in half log-SNR; eta = 1 is the ancestral step.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta < math.inf:
            raise SettingsError(f"eta is {self.eta}, but must be a number from 0")

    def __call__(self, here: Level, there: Level) -> Split:
        ratio = min(1.0, _ratio(here, there)) ** self.eta
        return _tied(there, float(there.sigma) * math.sqrt((1 - ratio) * (1 + ratio)))


@dataclass(frozen=True)
class Anew:
    """All noise is new: multistep consistency sampling (Song et al. 2023, algorithm 1)."""

    def __call__(self, here: Level, there: Level) -> Split:
        return Split(0.0, float(there.sigma))
