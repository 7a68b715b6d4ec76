"""The forward process: how data becomes noise, one jump at a time, and what that says backwards.

With a level (alpha, sigma) at each time, x_t = alpha_t x0 + sigma_t eps, and for s < t (less noise at s) the
process is Markov with gain k = alpha_t / alpha_s. In the notation of Ho et al. (2020): alpha_t^2 is their
alpha-bar_t, k^2 their alpha_t = 1 - beta_t. Popular texts write "alpha_t = cos^2(pi t / 2T)": that is
alpha-bar, the square of our alpha.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from sfumato.level import Level, spread_on


class Gaussian(NamedTuple):
    """A diagonal Gaussian: its mean, shaped like x, and its variance, shaped like the level (float64)."""

    mean: Tensor
    variance: Tensor


class Transition(NamedTuple):
    """q(x_t | x_s) = N(gain x_s, variance): float64, shaped like the levels."""

    gain: Tensor
    variance: Tensor


def noised(x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """x = alpha x0 + sigma eps, a draw of q(x_t | x_0) for standard normal eps (Ho et al. 2020, eq. 4)."""
    alpha, sigma = level.on(x0)
    return alpha * x0 + sigma * eps


def marginal(x0: Tensor, level: Level) -> Gaussian:
    """q(x_t | x_0) in one jump: N(alpha x0, sigma^2)."""
    return Gaussian(level.on(x0)[0] * x0, level.sigma**2)


def transition(here: Level, there: Level) -> Transition:
    """The single step q(x_there | x_here) towards noise, for any two levels of one process with alpha_here >
    0.

    gain = alpha_t / alpha_s; variance = sigma_t^2 - gain^2 sigma_s^2. Written as a product so that close
    levels do not cancel: (sigma_t - gain sigma_s)(sigma_t + gain sigma_s).
    """
    gain = there.alpha / here.alpha
    carried = gain * here.sigma
    return Transition(gain, ((there.sigma - carried) * (there.sigma + carried)).clamp(min=0))


def posterior(x: Tensor, x0: Tensor, here: Level, there: Level) -> Gaussian:
    """q(x_s | x_t, x_0), x_t = x at `here`, towards less noise at `there` (Ho et al. 2020, eqs. 6-7).

    mean = (k sigma_s^2 x_t + alpha_s v x0) / sigma_t^2,   variance = v sigma_s^2 / sigma_t^2,   v the
    variance of q(x_t|x_s).

    In DDPM's notation the weight of x0 is sqrt(alpha-bar_{t-1}) beta_t / (1 - alpha-bar_t): the root covers
    alpha-bar_{t-1} alone, where some popular texts draw it over the whole numerator. The variance is
    beta-tilde_t.
    """
    gain, variance = transition(there, here)
    weight_x = spread_on(gain * there.sigma**2 / here.sigma**2, x)
    weight_x0 = spread_on(there.alpha * variance / here.sigma**2, x)
    return Gaussian(weight_x * x + weight_x0 * x0, variance * there.sigma**2 / here.sigma**2)


def largest_variance(here: Level, there: Level) -> Tensor:
    """The variance of q(x_s | x_t) for data of unit variance: DDPM's beta_t, the upper bound (Ho et al. 2020,
    sec. 3.2).

    With r^2 = alpha^2 + sigma^2 it is v r_s^2 / r_t^2; beta-tilde, the lower bound, is v sigma_s^2 /
    sigma_t^2.
    """
    return transition(there, here).variance * (there.norm / here.norm) ** 2
