"""The forward process (rows N6, N7): jumps compose, and the posterior is that of the joint Gaussian."""

import itertools
import math

import pytest
import torch

from sfumato.forward import largest_variance, marginal, noised, posterior, transition
from sfumato.level import CLEAN, Level
from sfumato.noise import Noise
from sfumato.schedules import VE, Cosine, Linear, RectifiedFlow, Schedule
from sfumato.tables import Table

CURVES: list[Schedule] = [
    Linear(),
    Cosine(),
    RectifiedFlow(),
    VE(),
    Table.linear(),
    Table.linear(50, 1e-3, 0.2),
]


def at(schedule: Schedule, t: float) -> Level:
    return schedule.level(torch.tensor(t, dtype=torch.float64))


@pytest.mark.parametrize("schedule", CURVES, ids=lambda s: type(s).__name__)
def test_one_jump_is_many_single_steps(schedule: Schedule) -> None:  # N7, Chapman-Kolmogorov
    times = torch.linspace(0, 0.98, 51, dtype=torch.float64)
    start = at(schedule, 0.0)
    mean, variance = start.alpha.clone(), start.sigma**2
    for a, b in itertools.pairwise(times):
        step = transition(schedule.level(a), schedule.level(b))
        mean, variance = step.gain * mean, step.gain**2 * variance + step.variance
    end = at(schedule, 0.98)
    assert float(mean) == pytest.approx(float(end.alpha), rel=1e-12)
    assert float(variance) == pytest.approx(float(end.sigma**2), rel=1e-12)


@pytest.mark.parametrize("schedule", CURVES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(("s", "t"), [(0.0, 0.3), (0.2, 0.21), (0.1, 0.9), (0.5, 0.97)])
def test_the_posterior_is_that_of_the_joint_gaussian(schedule: Schedule, s: float, t: float) -> None:  # N6
    low, high = at(schedule, s), at(schedule, t)
    step = transition(low, high)
    x0, x = torch.tensor([0.7], dtype=torch.float64), torch.tensor([-1.3], dtype=torch.float64)
    # q(x_s, x_t | x_0) is Gaussian; condition on x_t by the usual formula.
    cov, var_t = step.gain * low.sigma**2, high.sigma**2
    mean = low.alpha * x0 + cov / var_t * (x - high.alpha * x0)
    variance = low.sigma**2 - cov**2 / var_t
    ours = posterior(x, x0, high, low)
    assert torch.allclose(ours.mean, mean, rtol=1e-11, atol=1e-12)
    assert float(ours.variance) == pytest.approx(float(variance), rel=1e-9, abs=1e-12)
    assert 0 <= float(ours.variance) <= float(largest_variance(high, low)) + 1e-15


def test_the_posterior_has_ddpms_coefficients_with_the_root_over_alpha_bar_alone() -> None:
    table = Table.linear(1000)
    betas, bars = table.betas, table.alpha_bar
    for t in (1, 10, 500, 999):
        here, there = at(table, (t + 1) / 1000), at(table, t / 1000)
        one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        of_x0 = float(posterior(zero, one, here, there).mean)
        of_x = float(posterior(one, zero, here, there).mean)
        # Ho et al. 2020, eq. 7
        assert of_x0 == pytest.approx(float(bars[t - 1].sqrt() * betas[t] / (1 - bars[t])), rel=1e-10)
        root = float((1 - betas[t]).sqrt() * (1 - bars[t - 1]) / (1 - bars[t]))
        assert of_x == pytest.approx(root, rel=1e-10)
        slip = float(
            (bars[t - 1] * betas[t] / (1 - bars[t])).sqrt()
        )  # the root over everything, as some print it
        assert abs(of_x0 / slip - 1) > 0.05
        tilde = float((1 - bars[t - 1]) / (1 - bars[t]) * betas[t])
        assert float(posterior(one, zero, here, there).variance) == pytest.approx(tilde, rel=1e-10)
        assert float(largest_variance(here, there)) == pytest.approx(float(betas[t]), rel=1e-10)


def test_the_first_step_has_no_posterior_variance() -> None:  # N6
    first = at(Table.linear(), 1 / 1000)
    x0, x = torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    end = posterior(x, x0, first, CLEAN)
    assert float(end.variance) == 0
    assert torch.equal(end.mean, x0)


def test_a_draw_has_the_marginals_moments() -> None:
    level = at(Cosine(), 0.4)
    x0 = torch.full((100_000,), 0.8)
    x = noised(x0, Noise((5,)).normal((100_000,), "draw")[0], level)
    told = marginal(x0, level)
    se = math.sqrt(float(told.variance) / 1e5)
    assert abs(float(x.mean() - told.mean[0])) < 4 * se
    assert abs(float(x.var() / told.variance) - 1) < 4 * math.sqrt(2 / 1e5)


def test_close_levels_do_not_cancel() -> None:
    a, b = at(Linear(), 0.5), at(Linear(), 0.5 + 1e-9)
    beta = 0.1 + 19.9 * 0.5  # variance of a tiny step is beta dt
    assert float(transition(a, b).variance) == pytest.approx(beta * 1e-9, rel=1e-5)
