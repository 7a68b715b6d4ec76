"""Grids and plans: the published formulas, grids of one's own, and the zig-zags."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from oracles import MIXTURE, exact
from torch import Tensor

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.errors import SettingsError
from sfumato.level import CLEAN, PURE_NOISE, Level
from sfumato.noise import Noise
from sfumato.plans import Given
from sfumato.sampling import walk
from sfumato.schedules import VE, Cosine, Linear, Schedule
from sfumato.solvers.moves import Move
from sfumato.solvers.multistep import Multistep
from sfumato.solvers.singlestep import Heun
from sfumato.tables import Table

NOISE = Noise(tuple(range(32)))
START = NOISE.normal((2,), "start").double()


def last(x: Tensor, plan: list[Move], solver: Multistep | Heun) -> Tensor:
    for step in walk(exact(MIXTURE), x, plan, solver, NOISE):
        x = step.x
    return x


def test_the_exponential_grid_is_log_snr() -> None:
    """k-diffusion's get_sigmas_exponential and get_sigmas_karras."""
    even = torch.linspace(math.log(80), math.log(0.002), 9, dtype=torch.float64).exp()
    assert torch.allclose(plans.exponential(VE(), 9).sigma[:-1], even)
    ramp = torch.linspace(0, 1, 9, dtype=torch.float64)
    rho = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert torch.allclose(plans.karras(VE(), 9).sigma[:-1], rho)


@pytest.mark.parametrize("n", [1, 4, 25, 60])
def test_the_late_grid_begins_where_noise_is_n_times_the_signal(n: int) -> None:
    for schedule in (Linear(), Table.linear(), Cosine(), VE()):
        levels = plans.late(schedule, n)
        noisiest = schedule.level(torch.ones((), dtype=torch.float64))
        most = float(noisiest.sigma / noisiest.alpha)
        assert float(levels.sigma[0] / levels.alpha[0]) == pytest.approx(min(most, max(25, n)), rel=1e-9)
        times = schedule.time(Level(levels.alpha[:-1], levels.sigma[:-1]))
        assert torch.allclose(times, times[0] * torch.arange(n, 0, -1) / n, atol=1e-9)


@pytest.mark.parametrize("n", range(1, 12))
def test_the_fast_grid_has_even_strides_with_even_nodes(n: int) -> None:
    """DPM-Solver-fast: K = ceil((n - 1) / 3) strides of one length in log-SNR, three looks in each, what is
    left in the last."""
    levels = plans.fast(Linear(), n)
    assert len(levels) == n + 1
    lam = Level(levels.alpha[:-1], levels.sigma[:-1]).log_snr / 2
    if n == 1:
        return
    gaps = (lam[1:] - lam[:-1]) / (lam[-1] - lam[0])
    strides, left = divmod(n - 1, 3)
    k = strides + (left > 0)
    expected = [1 / 3 / k] * 3 * strides + ([1 / left / k] * left if left else [])
    assert gaps.tolist() == pytest.approx(expected, rel=1e-9)
    assert [len(move.through or ()) + 1 for move in plans.Strides(3)(levels)] == (
        [3] * strides + ([left] if left else []) + [1]
    )


def test_a_grid_to_the_least_noise_that_was_trained() -> None:
    table = Table.linear()
    levels = plans.ToLeast(plans.trailing)(table, 10)
    plain = plans.trailing(table, 10)
    assert torch.equal(levels.sigma[:-1], plain.sigma[:-1])
    assert torch.equal(levels.sigma[-1], table.nodes().sigma[0])
    with pytest.raises(SettingsError, match="already stands at the least noise"):
        plans.ToLeast(plans.log_snr)(table, 10)


@pytest.mark.parametrize("schedule", [Linear(), Table.linear(), Cosine()], ids=lambda s: type(s).__name__)
def test_a_grid_of_ones_own(schedule: Schedule) -> None:
    by_sigma = Given((9.0, 1.0, 0.2, 0.0))(schedule, 3)
    assert (by_sigma.sigma / by_sigma.alpha).tolist() == pytest.approx([9.0, 1.0, 0.2, 0.0], rel=1e-9)
    times = schedule.time(Level(by_sigma.alpha[:3], by_sigma.sigma[:3]))
    by_time = Given(tuple(times.tolist()), "time")(schedule, 3)
    assert torch.allclose(by_time.sigma, by_sigma.sigma, atol=1e-12)
    assert float(by_time.alpha[-1]) == 1


def test_a_grid_of_ones_own_by_steps_is_the_tables() -> None:
    table = Table.linear()
    levels = Given((999, 500, 0), "step")(table, 3)
    assert torch.allclose(levels.sigma[:3], table.nodes().sigma[[999, 500, 0]], atol=1e-14)
    assert torch.equal(Given((1.0, 0.5), "time")(Table.linear(), 2).sigma[:1], table.nodes().sigma[-1:])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Given(()), "finite numbers"),
        (lambda: Given((1.0, math.nan)), "finite numbers"),
        (lambda: Given((1.0, 0.0), "time"), "above 0"),
        (lambda: Given((3.0, 1.0, 1.0)), r"does not fall from 1 to 1 \(places 2 and 3\)"),
        (lambda: Given((1.0, 0.5))(VE(), 3), "3 steps on a grid of 2 levels: ask for 2"),
        (lambda: Given((100.0, 0.5))(VE(), 2), "sigma 100 of the grid lies outside"),
        (lambda: Given((1000, 3), "step")(Table.linear(), 2), "step 1000 of the grid lies outside"),
        (lambda: Given((0.5, 0.0001), "time")(Table.linear(), 2), "time 0.0001 of the grid lies outside"),
        (lambda: Given((999, 3), "step")(Cosine(), 2), "no numbered steps"),
        (lambda: plans.churn(plans.karras(VE(), 5), -1.0), "churn of -1"),
        (lambda: plans.restart(plans.karras(VE(), 5), ((0.1, 0.11, 2),)), "two nodes of the grid"),
        (lambda: plans.restart(plans.karras(VE(), 5), ((0.0, 9.0, 2),)), "above 0"),
        (lambda: plans.corrected(plans.karras(VE(), 5), 0), "at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        make()


def edm(x: Tensor, sigmas: list[float], amount: float, low: float, high: float, spare: float) -> Tensor:
    """Karras et al. 2022, algorithm 2, with Heun, as published; its noise is NOISE by the plan's place."""
    n, i_draw = len(sigmas) - 1, 0
    for i, (t, target) in enumerate(itertools.pairwise(sigmas)):
        gamma = min(amount / n, math.sqrt(2) - 1) if low <= t <= high else 0.0
        hat = min(t * (1 + gamma), sigmas[0])
        if hat > t:
            z = NOISE.normal(x.shape[1:], "renoise", i_draw).double()
            x = x + math.sqrt(hat**2 - t**2) * spare * z
            i_draw += 1
        d = (x - exact(MIXTURE)(x, Level.of(1.0, hat)).x0) / hat
        ahead = x + (target - hat) * d
        if i < n - 1:
            d2 = (ahead - exact(MIXTURE)(ahead, Level.of(1.0, target)).x0) / target
            ahead = x + (target - hat) * (d + d2) / 2
        x, i_draw = ahead, i_draw + 1
    return x


@pytest.mark.parametrize("amount", [0.0, 4.0, 80.0])
def test_churn_is_edms_stochastic_sampler(amount: float) -> None:
    levels = plans.karras(VE(), 12)
    plan = plans.churn(levels, amount, 0.05, 50.0, 1.003)
    theirs = edm(80 * START, levels.sigma.tolist(), amount, 0.05, 50.0, 1.003)
    assert torch.allclose(last(80 * START, plan, Heun("eps")), theirs, atol=1e-9)
    assert (len(plan) > 12) == (amount > 0)


@pytest.mark.parametrize("schedule", [VE(), Linear(), Cosine()], ids=lambda s: type(s).__name__)
def test_churn_stays_in_the_trained_range_and_ends_clean(schedule: Schedule) -> None:
    levels = plans.trailing(schedule, 10)
    for move in plans.churn(levels, 80.0, 0.0, math.inf):
        assert float(move.here.angle) <= float(levels[0].angle) + 1e-12
        assert float(move.there.angle) <= float(levels[0].angle) + 1e-12
    assert float(plans.churn(levels)[-1].there.sigma) == 0


def test_restart_goes_where_it_should() -> None:
    levels = Given((10.0, 2.0, 1.0, 0.5, 0.1))(VE(), 5)
    plan = plans.restart(levels, ((0.4, 2.5, 2), (0.05, 0.7, 1)))
    ratio = lambda level: round(float(level.sigma / level.alpha), 9)
    path = [ratio(plan[0].here), *(ratio(move.there) for move in plan)]
    assert path == [10, 2, 1, 0.5, 2, 1, 0.5, 2, 1, 0.5, 0.1, 0.5, 0.1, 0]
    for before, after in itertools.pairwise(plan):
        assert ratio(before.there) == ratio(after.here)
    assert [move.renoise for move in plan].count(True) == 3
    assert len(plans.restart(levels, ())) == 5


def test_restart_forgets_a_wrong_start() -> None:
    """What is wrong before the interval shrinks by the interval's contraction each time (Xu et al. 2023,
    theorem 1): in the mean, on Gaussian data of std s, by hypot(s, low) / hypot(s, high)."""
    levels = plans.karras(VE(), 60)
    ratios = levels.sigma / levels.alpha
    inside = ratios[(ratios >= 0.1) & (ratios <= 2.0)]
    contraction = math.hypot(0.5, float(inside[-1])) / math.hypot(0.5, float(inside[0]))
    noise = Noise(tuple(range(50)))
    x = 80 * noise.normal((2000,), "start").double() + 40.0  # the mean is off by half a standard deviation
    wide = exact(Mixture.gaussian([0.0] * 2000, [0.5] * 2000))
    means: list[float] = []
    for times in (0, 1, 2):
        intervals = ((0.1, 2.0, times),) if times else ()
        for step in walk(wide, x, plans.restart(levels, intervals), Multistep("x0", "log_snr", 2), noise):
            end = step.x
        means.append(float(end.mean()))
        assert float(end.var()) == pytest.approx(0.25, rel=0.03)
    for before, after in itertools.pairwise(means):
        assert after == pytest.approx(before * contraction, abs=4 * 0.5 / math.sqrt(1e5) + 0.003)


def test_standing_moves_stand_at_every_noisy_level() -> None:
    levels = plans.log_snr(VE(), 4)
    pairs = [(m.here.sigma.item(), m.there.sigma.item()) for m in plans.corrected(levels, 2)]
    s = levels.sigma.tolist()
    standing = lambda sigma: [(sigma, sigma)] * 2
    truth = [(s[0], s[1]), *standing(s[1]), (s[1], s[2]), *standing(s[2]), (s[2], s[3]), *standing(s[3])]
    assert pairs == [*truth, (s[3], 0.0)]
    first = [(m.here.sigma.item(), m.there.sigma.item()) for m in plans.annealed(levels, 2)]
    assert first == [*standing(s[0]), *pairs]


def test_from_pure_noise_churn_has_nothing_to_add() -> None:
    plan = plans.churn(plans.trailing(Cosine(), 6), 80.0, 0.0, math.inf)
    assert torch.equal(plan[0].here.alpha, PURE_NOISE.alpha)
    assert not plan[0].renoise
    assert torch.equal(plan[-1].there.sigma, CLEAN.sigma)


@pytest.mark.parametrize(("jump", "times"), [(0, 3), (-1, 3), (1, 0)])
def test_repainting_by_no_jump_or_no_time_is_refused(jump: int, times: int) -> None:
    with pytest.raises(SettingsError, match="at least 1 of each"):
        plans.repaint(plans.trailing(Cosine(), 4), jump, times)
