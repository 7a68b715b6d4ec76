"""The clock "bounded" and its grid: even steps of it, both ends included, on every schedule."""

import itertools
import math

import pytest
import torch
from oracles import exact, gaussian_map

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.level import CLEAN, PURE_NOISE
from sfumato.sampling import walk
from sfumato.schedules import VE, Cosine, Linear, RectifiedFlow, Schedule
from sfumato.solvers.clocks import tick
from sfumato.solvers.moves import Point
from sfumato.solvers.multistep import Multistep
from sfumato.tables import Table

CURVES = [Linear(), Cosine(), RectifiedFlow(), Table.linear(), Table.cosine()]


@pytest.mark.parametrize("schedule", CURVES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 10])
def test_steps_are_even_on_the_clock_and_end_at_clean_data(schedule: Schedule, n: int) -> None:
    levels = plans.bounded(schedule, n)
    ticks = [tick(Point.of(level), "bounded") for level in levels]
    assert len(levels) == n + 1
    assert float(levels[0].angle) == pytest.approx(
        float(schedule.level(torch.ones((), dtype=torch.float64)).angle), abs=1e-9
    )
    assert (float(levels.alpha[-1]), float(levels.sigma[-1])) == (1.0, 0.0)
    steps = [a - b for a, b in itertools.pairwise(ticks)]
    assert max(steps) - min(steps) < 1e-6 * max(steps)


@pytest.mark.parametrize(
    "schedule", [Table.linear(), Table.scaled_linear(), VE()], ids=lambda s: type(s).__name__
)
def test_it_never_asks_below_the_least_noise_that_was_trained(schedule: Schedule) -> None:
    least = 1 / schedule.steps if isinstance(schedule, Table) else 0.0
    level = schedule.level(torch.tensor(least, dtype=torch.float64))
    for n in (1, 2, 50, 200, 900):
        levels = plans.bounded(schedule, n)
        assert len(levels) == n + 1
        noisy = levels.sigma[:-1] / levels.alpha[:-1]
        assert float(noisy.min()) >= float(level.sigma / level.alpha) * (1 - 1e-9)
        assert bool((noisy[:-1] > noisy[1:]).all())


def test_the_last_step_is_like_any_other() -> None:
    """In log-SNR the step to clean data is infinite and of order one, and its error is the whole error; on
    this clock the order holds from pure noise to sigma = 0."""
    schedule, data = Cosine(), Mixture.gaussian([0.2], [0.4])
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]
    truth = gaussian_map(0.2, 0.4, x, PURE_NOISE, CLEAN)
    error: list[float] = []
    for n in (20, 40, 80):
        end = x
        plan = plans.descend(plans.bounded(schedule, n))
        for step in walk(exact(data), x, plan, Multistep("v", "bounded", 2)):
            end = step.x
        error.append(float((end - truth).abs().max()))
    for a, b in itertools.pairwise(error):
        assert math.log2(a / b) > 1.8, error
