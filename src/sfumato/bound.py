"""The variational bound on -log p(x0), term by term: every number in nats, shaped like x0 (not summed).

With levels clean = 0 < 1 < ... < T and p(x_s | x_t) = N(posterior mean with the estimate for x0, variance),

    -log p(x0) <= L_T + sum over steps of KL(q(x_s | x_t, x0) || p(x_s | x_t)) + L_0,   L_0 = -log p(x0 | x_1)

(Ho et al. 2020, eq. 5), L_T = `prior_kl`, the sum's terms `step_kl`, L_0 `decoder_nll`. In continuous time
the sum becomes an integral over the log-SNR of `rate` (Kingma et al. 2021, "Variational diffusion models",
eq. 17 in terms of SNR, eq. 19 in terms of t): only its ends matter, not the way between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.forward import largest_variance, transition
from sfumato.level import CLEAN, Level, spread_on
from sfumato.predictions import Estimate
from sfumato.schedules import Schedule

Variance = Literal["small", "large", "learned"]
"""The variance of p(x_s | x_t): beta-tilde, beta, or between them by `Estimate.spread` (Nichol & Dhariwal
2021, eq. 15)."""


@dataclass(frozen=True)
class Bins:
    """The values that a picture's numbers can take: `count` of them, evenly from `low` to `high`."""

    count: int = 256
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.count < 2 or not self.low < self.high:
            raise SettingsError(f"{self.count} values from {self.low} to {self.high} are no range of numbers")

    @property
    def width(self) -> float:
        """The distance of two neighbours."""
        return (self.high - self.low) / (self.count - 1)


BYTES = Bins()
"""8-bit pictures in [-1, 1]."""


def gaussian_kl(mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor) -> Tensor:
    """KL(N(mean1, e^log_variance1) || N(mean2, e^log_variance2)) number by number; the shapes broadcast.

    1/2 (e^d - 1 - d + (mean1 - mean2)^2 e^-log_variance2), d = log_variance1 - log_variance2, written so that
    it is 0 for equal ones and never below -1e-12 in float64.
    """
    d = log_variance1 - log_variance2
    return (torch.expm1(d) - d + (mean1 - mean2) ** 2 * torch.exp(-log_variance2)) / 2


def log_ndtr(z: Tensor) -> Tensor:
    """log of the standard normal's distribution function, with a gradient that stays right in the lower tail:
    that of torch.special.log_ndtr is a difference of z^2/2 and itself, lost from z = -1000 in float32."""
    low, high = z.clamp(max=-1.0), z.clamp(min=-1.0)
    tail = torch.log(torch.special.erfcx(-low / math.sqrt(2)) / 2) - low**2 / 2
    return torch.where(z < -1, tail, torch.log1p(-torch.special.erfc(high / math.sqrt(2)) / 2))


def discretised_gaussian_log_likelihood(x0: Tensor, mean: Tensor, std: Tensor, bins: Bins = BYTES) -> Tensor:
    """log of the probability that N(mean, std^2), rounded to the nearest of the bins' values, is x0's.

    The first and the last bin are open, so all probabilities add to 1 (Ho et al. 2020, eq. 13). Differences
    of the exact normal distribution function, taken in the lower tail as log Phi(b) + log(1 - Phi(a)/Phi(b)),
    so that it stays right (and has a gradient) thousands of deviations away. x0 is rounded to its bin; the
    shapes broadcast.
    """
    place = ((x0 - bins.low) / bins.width).round()
    # Both edges from one formula: neighbours share theirs to the last bit.
    lower = (bins.low + (place - 0.5) * bins.width - mean) / std
    upper = (bins.low + (place + 0.5) * bins.width - mean) / std
    below = lower + upper < 0
    a, b = torch.where(below, lower, -upper), torch.where(below, upper, -lower)
    log_b = log_ndtr(b)
    ratio = (log_ndtr(a) - log_b).clamp(max=-1e-30)  # so that no gradient is infinite
    inside = log_b + torch.log(-torch.expm1(ratio))
    first, last = log_ndtr(upper), log_ndtr(-lower)
    return torch.where(place <= 0, first, torch.where(place >= bins.count - 1, last, inside))


def prior_kl(x0: Tensor, level: Level, data: float = 1.0) -> Tensor:
    """L_T = KL(q(x_T | x0) || p(x_T)) at the noisiest level, p(x_T) = N(0, (alpha data)^2 + sigma^2) as
    `sampling.prior` draws it: a unit normal on variance-preserving curves. Exactly 0 at alpha = 0."""
    part = (level.alpha * data / torch.hypot(level.alpha * data, level.sigma)) ** 2
    fixed = spread_on((-part - torch.log1p(-part)) / 2, x0)
    return fixed + spread_on(part / (2 * data**2), x0) * x0**2


def lowest_variance(here: Level, there: Level) -> Tensor:
    """beta-tilde, the variance of q(x_there | x_here, x0), float64; 0 where `there` is clean."""
    return transition(there, here).variance * (there.sigma / here.sigma) ** 2


def reverse_log_variance(
    estimate: Estimate, there: Level, variance: Variance = "small", above: Level | None = None
) -> Tensor:
    """log of the variance of p(x_there | x), x the estimate's: shaped like x where it is learned, otherwise
    to broadcast with it.

    "learned" is v log beta + (1 - v) log beta-tilde with v = `estimate.spread`. Where `there` is clean,
    beta-tilde is 0 and no density; the step from `above` to the estimate's level lends its own, as Ho et al.
    and Nichol & Dhariwal do (beta without `above`). Raises SettingsError for a learned variance that no one
    learned.
    """
    here, x = estimate.level, estimate.x
    largest = largest_variance(here, there)
    smallest = largest if variance == "large" else lowest_variance(here, there)
    if bool((there.sigma == 0).any()):
        smallest = torch.where(
            there.sigma == 0, largest if above is None else lowest_variance(above, here), smallest
        )
    if variance == "large":
        return spread_on(largest.log(), x)
    if variance == "small":
        return spread_on(smallest.log(), x)
    if estimate.spread is None:
        raise SettingsError("this model has no learned variance: use the small or the large one")
    low, high = spread_on(smallest.log(), x), spread_on(largest.log(), x)
    return low + estimate.spread * (high - low)


def step_kl(x0: Tensor, estimate: Estimate, there: Level, variance: Variance = "small") -> Tensor:
    """KL(q(x_there | x, x0) || p(x_there | x)) for any two levels, from the estimate's towards less noise.

    With the small variance this is (SNR_there - SNR_here)/2 |x0 - estimate|^2 (Kingma et al. 2021, eq. 13).
    The means' difference is taken between the two x0, so close levels do not cancel. `there` must not be
    clean: that step is `decoder_nll`'s. Levels are () or (B,).
    """
    here = estimate.level
    if bool((there.sigma == 0).any()):
        raise SettingsError("the step to clean data has no KL: its term of the bound is decoder_nll")
    gain = there.alpha * transition(there, here).variance / here.sigma**2
    apart = spread_on(gain, x0) * (x0 - estimate.x0)
    exact = spread_on(lowest_variance(here, there).log(), x0)
    return gaussian_kl(apart, exact, torch.zeros_like(apart), reverse_log_variance(estimate, there, variance))


def decoder_nll(
    x0: Tensor,
    estimate: Estimate,
    variance: Variance = "small",
    above: Level | None = None,
    bins: Bins = BYTES,
) -> Tensor:
    """L_0 = -log p(x0 | x_1), a discretised Gaussian around the estimate at the least noisy level.

    `above` is the next noisier level of the walk: see `reverse_log_variance`.
    """
    std = torch.exp(reverse_log_variance(estimate, CLEAN, variance, above) / 2)
    return -discretised_gaussian_log_likelihood(x0, estimate.x0, std, bins)


def direct_nll(x0: Tensor, x: Tensor, level: Level, bins: Bins = BYTES) -> Tensor:
    """L_0 of a continuous process: -log p(x0 | x), a discretised N(x / alpha, (sigma / alpha)^2); it asks no
    model and vanishes with sigma (cf. Kingma et al. 2021, appendix B.1)."""
    alpha, sigma = level.on(x)
    return -discretised_gaussian_log_likelihood(x0, x / alpha, sigma / alpha, bins)


def rate(eps: Tensor, estimate: Estimate) -> Tensor:
    """The bound's density in continuous time: 1/2 |eps - estimate|^2 for each unit that the log-SNR falls by
    (Kingma et al. 2021, eq. 17, as an integral over the log-SNR)."""
    return (eps - estimate.eps) ** 2 / 2


def steepness(schedule: Schedule, t: Tensor) -> Tensor:
    """-d log-SNR / dt at these times, float64, by differentiating the schedule; infinite where a curve ends
    in clean data or pure noise."""
    with torch.enable_grad():
        time = t.detach().double().requires_grad_()
        (slope,) = torch.autograd.grad(schedule.level(time).log_snr.sum(), time)
    return -slope


def bits(nats: Tensor) -> Tensor:
    """Nats as bits."""
    return nats / math.log(2)
