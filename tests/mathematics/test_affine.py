"""On Gaussian data every stochastic sampler is an affine recursion: its moments, written out by hand.

x is kept as a linear form in the start and in every draw, so what a multistep rule remembers of past noise is
exact. The hand's formulas are the published ones; they share nothing with the samplers but the plan's levels.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato import plans
from sfumato.denoiser import Denoiser
from sfumato.level import Level, Levels
from sfumato.noise import Noise
from sfumato.predictions import Estimate
from sfumato.sampling import Solver, walk
from sfumato.solvers.fresh import Ancestral, Anew, Fresh, LargeVariance, LearnedVariance, Ode, Sde
from sfumato.solvers.langevin import Langevin
from sfumato.solvers.moves import Move
from sfumato.solvers.multistep import Multistep
from sfumato.solvers.singlestep import Heun, Singlestep
from sfumato.tables import Table

pytestmark = pytest.mark.slow

MEAN, STD, SPREAD, SNR = 0.3, 0.5, 0.4, 0.16
ROWS, WIDTH = 100, 1000
Form = np.ndarray[Any, np.dtype[np.float64]]


class Case(NamedTuple):
    """A sampler of ours, and the words for the hand: how noise is split, and by which rule it moves."""

    solver: Solver
    fresh: Fresh
    route: Callable[[Levels], list[Move]]
    noise: str
    rule: str
    weak: float


ONE = Multistep(order=1)
CHURN = partial(plans.churn, amount=15.0, low=0.05, high=50.0, spare=1.003)
CORRECTED = partial(plans.corrected, times=2)
RESTART = partial(plans.restart, intervals=((0.02, 8.0, 2),))
CASES = {
    "ddpm": Case(ONE, Ancestral(), plans.descend, "ancestral", "one", 1),
    "ddpm, eta 0.5": Case(ONE, Ancestral(0.5), plans.descend, "half ancestral", "one", 1),
    "large": Case(ONE, LargeVariance(), plans.descend, "large", "one", 1),
    "learned": Case(ONE, LearnedVariance(), plans.descend, "learned", "one", 1),
    "sde 0.5": Case(ONE, Sde(0.5), plans.descend, "half sde", "one", 1),
    "sde 2m": Case(Multistep("x0", "log_snr", 2), Sde(), plans.descend, "ancestral", "adams 2", 2),
    "sde 3m": Case(Multistep("x0", "log_snr", 3), Sde(), plans.descend, "ancestral", "adams 3", 2),
    "2s-a": Case(Singlestep("x0", 2), Ancestral(), plans.descend, "ancestral", "midpoint", 2),
    "churn": Case(Heun("eps"), Ode(), CHURN, "ode", "heun", 2),
    "restart": Case(Heun("eps"), Ode(), RESTART, "ode", "heun", 2),
    "corrected": Case(ONE, Langevin(SNR, Ancestral()), CORRECTED, "ancestral", "one", 0),
    "anew": Case(ONE, Anew(), plans.descend, "anew", "one", 0),
}


def splits(noise: str, a: float, s: float, b: float, t: float) -> tuple[float, float]:
    """What is kept and what is added from (a, s) to (b, t), by the published formulas."""
    if t == 0 or noise == "ode":
        return t, 0.0
    r = a * t / (b * s)
    small, between = t**2 * (1 - r**2), s**2 - (a * t / b) ** 2
    large = between * (b**2 + t**2) / (a**2 + s**2)
    if noise == "half ancestral":
        return math.sqrt(t**2 - small / 4), math.sqrt(small) / 2
    if noise == "half sde":
        return t * math.sqrt(r), t * math.sqrt(1 - r)
    if noise == "anew":
        return 0.0, t
    added = {"ancestral": small, "large": large, "learned": small ** (1 - SPREAD) * large**SPREAD}[noise]
    return t * r, math.sqrt(added)


def believed(x: Form, a: float, s: float) -> Form:
    """E[x0 | x]."""
    gain = a * STD**2 / (a**2 * STD**2 + s**2)
    out = gain * x
    out[0] += MEAN * (1 - gain * a)
    return out


def lagrange_means(nodes: Sequence[float], rate: float) -> list[float]:
    """The mean of each node's polynomial over [0, 1] with density exp(rate s), by quadrature."""
    at, weight = np.polynomial.legendre.leggauss(60)
    at, weight = (at + 1) / 2, weight * np.exp(rate * ((at + 1) / 2 - 1))
    means: list[float] = []
    for node in nodes:
        others = [other for other in nodes if other != node]
        basis = np.prod([(at - other) / (node - other) for other in others], axis=0) * np.ones_like(at)
        means.append(float((basis * weight).sum() / weight.sum()))
    return means


def moved(
    rule: str, x: Form, past: list[tuple[float, Form]], ends: tuple[float, float, float, float], kept: float
) -> Form:
    """The part of a move that is not noise. past: (log alpha/sigma, estimate), this one's first."""
    a, s, b, t = ends
    clean = past[0][1]
    eps = (x - a * clean) / s
    if kept == 0 or rule == "one" or (rule.startswith("adams") and len(past) == 1):
        return b * clean + kept * eps
    if rule == "heun":
        ahead = b * clean + kept * eps
        return b / a * x + (kept - b * s / a) * (eps + (ahead - b * believed(ahead, b, kept)) / kept) / 2
    if rule == "midpoint":
        ratio = math.sqrt(s / a * kept / b)
        c, u = 1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio)
        y = believed(u / s * x + (c - u * a / s) * clean, c, u)
    else:
        start, span = math.log(a / s), math.log(b / t) - math.log(a / s)
        used = past[: int(rule[-1])]
        means = lagrange_means([(lam - start) / span for lam, _ in used], math.log(b / kept) - start)
        y = sum((mean * seen for mean, (_, seen) in zip(means, used, strict=True)), np.zeros_like(x))
    return kept / s * x + (b - kept * a / s) * y


def recursion(plan: Sequence[Move], case: Case, wide: float, mean: float) -> tuple[float, float]:
    """Mean and variance at the end of the plan, from a start of this standard deviation and mean."""
    x = np.zeros(2 + len(plan))
    x[:2] = mean, wide
    past: list[tuple[float, Form]] = []
    for i, move in enumerate(plan):
        a, s, b, t = (float(v) for level in (move.here, move.there) for v in (level.alpha, level.sigma))
        if move.renoise:
            x, past = b / a * x, []
            x[2 + i] += move.spare * math.sqrt(t**2 - (b / a * s) ** 2)
            continue
        clean = believed(x, a, s)
        if (a, s) == (b, t):
            x, past = a * clean + (1 - 2 * SNR**2) * (x - a * clean), []
            x[2 + i] += 2 * SNR * s
            continue
        past = [(math.log(a / s), clean), *past]
        kept, added = splits(case.noise, a, s, b, t)
        x = moved(case.rule, x, past, (a, s, b, t), kept)
        x[2 + i] += added
    return float(x[0]), float((x[1:] ** 2).sum())


class Gaussian:
    """The exact denoiser of N(MEAN, STD^2), which says a spread, too."""

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        gain = float(level.alpha) * STD**2 / float(level.alpha**2 * STD**2 + level.sigma**2)
        e = Estimate.of(x, level, x0=MEAN + gain * (x - float(level.alpha) * MEAN))
        return Estimate(e.x, e.level, e.said, torch.full((), SPREAD, dtype=x.dtype))

    def take(self, rows: Sequence[int]) -> Denoiser:
        return self

    def check(self, level: Level) -> None:
        return None


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("name", CASES)
def test_the_moments_are_those_of_the_affine_recursion(name: str, steps: int) -> None:
    case = CASES[name]
    plan = case.route(plans.log_snr(Table.linear(), steps))
    mean, variance = recursion(plan, case, 1.0, 0.0)
    noise = Noise(tuple(range(ROWS)))
    x = noise.normal((WIDTH,), "start").double()
    for step in walk(Gaussian(), x, plan, case.solver, noise, case.fresh):
        x = step.x
    n = x.numel()
    assert abs(float(x.mean()) - mean) < 4 * math.sqrt(variance / n)
    assert abs(float(x.var()) / variance - 1) < 4 * math.sqrt(2 / n)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.weak])
def test_the_bias_falls_at_the_weak_order(name: str) -> None:
    """From sigma/alpha = 5 to 0.05, started at the exact variance: the relative error of the variance."""
    case, bias = CASES[name], []
    for n in (40, 80, 160):
        ratio = torch.logspace(math.log10(5.0), math.log10(0.05), n + 1, dtype=torch.float64)
        levels = Levels((1 + ratio**2).rsqrt(), ratio * (1 + ratio**2).rsqrt())
        a, s = float(levels.alpha[0]), float(levels.sigma[0])
        plan = [m._replace(spare=1.0) for m in case.route(levels)]
        _, variance = recursion(plan, case, math.hypot(a * STD, s), a * MEAN)
        b, t = float(levels.alpha[-1]), float(levels.sigma[-1])
        bias.append(abs(variance / ((b * STD) ** 2 + t**2) - 1))
    slopes = [math.log2(before / after) for before, after in itertools.pairwise(bias)]
    assert slopes[-1] > case.weak - 0.2, (bias, slopes)


@pytest.mark.parametrize(("name", "steps"), [("ddpm", 200), ("sde 2m", 200), ("2s-a", 100)])
def test_a_mixtures_weights_come_out_at_200_evaluations(name: str, steps: int) -> None:
    """Within half a per cent of all samples, for components that do not touch."""
    case = CASES[name]
    weights, means, std = (torch.tensor(values) for values in ([0.2, 0.3, 0.5], [-1.0, 0.1, 0.9], 0.08))

    class Three(Gaussian):
        def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
            a, s = float(level.alpha), float(level.sigma)
            v = a**2 * std**2 + s**2
            away = x[..., None] - a * means
            share = torch.softmax(weights.log() - away**2 / (2 * v), -1)
            return Estimate.of(x, level, x0=(share * (means + a * std**2 / v * away)).sum(-1))

    plan = case.route(plans.bounded(Table.linear(), steps))
    noise = Noise(tuple(range(ROWS)))
    x = noise.normal((WIDTH,), "start")
    for step in walk(Three(), x, plan, case.solver, noise, case.fresh):
        x = step.x
    share = (x.flatten()[:, None] - means).abs().argmin(1).bincount(minlength=3) / x.numel()
    assert float((share - weights).abs().max()) < 0.005
