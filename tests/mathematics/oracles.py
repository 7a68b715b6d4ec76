"""Exact answers for the solvers' tests: denoisers of known distributions, and their probability-flow
solutions."""

import math

import torch
from torch import Tensor

from sfumato.data.toy import Mixture
from sfumato.denoiser import Exact
from sfumato.level import Level, Levels
from sfumato.schedules import Schedule


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


MIXTURE = Mixture(
    f64(0.3, 0.3, 0.4),
    torch.stack([f64(-0.8, 0.1), f64(0.2, 0.7), f64(0.6, -0.5)]),
    torch.stack([f64(0.35, 0.3), f64(0.25, 0.4), f64(0.4, 0.3)]),
)


def exact(mixture: Mixture) -> Exact:
    return Exact(lambda x, level: mixture.posterior_mean(x, level.alpha, level.sigma))


def between(schedule: Schedule, most: float, least: float, n: int, extra: int = 0) -> Levels:
    """n moves even in log-SNR from sigma/alpha = most to least, on the schedule's own curve; `extra` nodes
    before them."""
    step = (math.log(least) - math.log(most)) / n
    ratio = torch.exp(math.log(most) + step * torch.arange(-extra, n + 1, dtype=torch.float64))
    return Levels.of(schedule.level(schedule.time(Level(torch.ones_like(ratio), ratio))))


def flow_map(mixture: Mixture, x: Tensor, here: Level, there: Level, steps: int = 800) -> Tensor:
    """The probability-flow solution from x at `here` to `there`: classic RK4 on dy / dlog sigma = y - D(y,
    sigma)."""
    y = x / here.alpha
    start = float((here.sigma / here.alpha).log())
    h = (float((there.sigma / there.alpha).log()) - start) / steps
    slope = lambda y, l: y - mixture.posterior_mean(y, 1.0, math.exp(l))
    for i in range(steps):
        l = start + i * h
        k1 = slope(y, l)
        k2 = slope(y + h / 2 * k1, l + h / 2)
        k3 = slope(y + h / 2 * k2, l + h / 2)
        k4 = slope(y + h * k3, l + h)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return there.alpha * y


def gaussian_map(mean: float, std: float, x: Tensor, here: Level, there: Level) -> Tensor:
    """The same for one Gaussian, in closed form: standardised x does not change along the flow."""
    z = (x - here.alpha * mean) / torch.hypot(here.alpha * std, here.sigma)
    return there.alpha * mean + torch.hypot(there.alpha * std, there.sigma) * z
