"""Langevin dynamics: the published formulas, and on Gaussian data its affine recursion."""

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
from sfumato.level import Level
from sfumato.noise import Noise
from sfumato.sampling import Solver, walk
from sfumato.schedules import VE, Linear
from sfumato.solvers.fresh import Ancestral, Fresh, Ode
from sfumato.solvers.langevin import Langevin, Lower
from sfumato.solvers.moves import Move
from sfumato.solvers.multistep import Multistep
from sfumato.solvers.rungekutta import RungeKutta
from sfumato.solvers.singlestep import Heun, Singlestep
from sfumato.solvers.unipc import UniPC

NOISE = Noise(tuple(range(32)))
START = NOISE.normal((2,), "start").double()
PLAIN = Multistep(order=1)


def last(x: Tensor, plan: list[Move], fresh: Fresh, solver: Solver = PLAIN, noise: Noise = NOISE) -> Tensor:
    for step in walk(exact(MIXTURE), x, plan, solver, noise, fresh):
        x = step.x
    return x


def score(x: Tensor, sigma: float) -> Tensor:
    return (exact(MIXTURE)(x, Level.of(1.0, sigma)).x0 - x) / sigma**2


def test_annealed_langevin_dynamics_as_published() -> None:
    """Song & Ermon 2019, algorithm 1: x is handed to the next level as it is; then one look at the last."""
    levels, epsilon, times = plans.log_snr(VE(0.05, 5.0), 6), 2e-4, 4
    sigmas = levels.sigma.tolist()[:-1]
    x, place = 5.0 * START, 0
    for sigma in sigmas:
        alpha = epsilon * sigma**2 / sigmas[-1] ** 2
        for _ in range(times):
            z = NOISE.normal((2,), "step", place).double()
            x = x + alpha / 2 * score(x, sigma) + math.sqrt(alpha) * z
            place += 1
        place += 1  # the move between two levels
    x = x + sigmas[-1] ** 2 * score(x, sigmas[-1])
    fresh = Langevin(math.sqrt(epsilon) / (2 * sigmas[-1]), Lower())
    assert torch.allclose(last(5.0 * START, plans.annealed(levels, times), fresh), x, atol=1e-10)


def test_predictor_corrector_as_published() -> None:
    """Song et al. 2021, algorithm 4 (variance exploding): reverse diffusion, then Langevin there."""
    levels, snr = plans.log_snr(VE(0.05, 5.0), 10), 0.16
    sigmas, x, place = levels.sigma.tolist(), 5.0 * START, 0
    for sigma, target in itertools.pairwise(sigmas):
        if target == 0:
            x = x + sigma**2 * score(x, sigma)
            break
        # their predictor is Euler's, ours keeps the posterior's variance; both have this drift
        added = target * math.sqrt(1 - (target / sigma) ** 2)
        z = NOISE.normal((2,), "step", place).double()
        x = x + (sigma**2 - target**2) * score(x, sigma) + added * z
        step = 2 * (snr * target) ** 2  # 2 (snr |z| / |score|)^2, with |z| = |eps|
        z = NOISE.normal((2,), "step", place + 1).double()
        x = x + step * score(x, target) + math.sqrt(2 * step) * z
        place += 2
    ours = last(5.0 * START, plans.corrected(levels), Langevin(snr, Ancestral()))
    assert torch.allclose(ours, x, atol=1e-10)


@pytest.mark.parametrize("snr", [0.1, 0.16, 0.5])
def test_a_chain_settles_at_the_variance_of_its_recursion(snr: float) -> None:
    """x' = (1 - step / v) x + sqrt(2 step) z settles at v / (1 - step / (2 v))."""
    level, std = Level.of(0.8, 0.6), 0.5
    v = float(level.alpha**2) * std**2 + float(level.sigma) ** 2
    step = 2 * (snr * float(level.sigma)) ** 2
    settled = v / (1 - step / (2 * v))
    assert abs(settled / v - 1) < 1.1 * snr**2
    noise = Noise(tuple(range(100)))
    x = math.sqrt(settled) * noise.normal((1000,), "start").double()
    gaussian = exact(Mixture.gaussian([0.0] * 1000, [std] * 1000))
    for at in walk(gaussian, x, [Move(level, level)] * 6, PLAIN, noise, Langevin(snr)):
        x = at.x
    assert abs(float(x.var()) / settled - 1) < 4 * math.sqrt(2 / x.numel())
    if snr >= 0.5:  # and that is told apart from v
        assert abs(v / settled - 1) > 8 * math.sqrt(2 / x.numel())


def variance(levels: list[tuple[float, float]], std: float, snr: float, times: int, fresh: Fresh) -> float:
    """The variance at the last noisy level of predictor (DDIM or ancestral) and corrector, by hand."""
    a, s = levels[0]
    var = a * a * std * std + s * s
    for (a, s), (b, t) in itertools.pairwise(levels):
        kept, added = fresh(Level.of(a, s), Level.of(b, t))
        v = a * a * std * std + s * s
        assert not callable(added)
        var = ((b * a * std * std + kept * s) / v) ** 2 * var + added**2
        v = b * b * std * std + t * t
        for _ in range(times):
            var = (1 - 2 * (snr * t) ** 2 / v) ** 2 * var + 4 * (snr * t) ** 2
    return var / v


@pytest.mark.parametrize("fresh", [Ode(), Ancestral()], ids=repr)
@pytest.mark.parametrize("steps", [10, 50])
def test_predictor_corrector_has_the_variance_of_its_affine_recursion(fresh: Fresh, steps: int) -> None:
    levels, std, width = plans.log_snr(Linear(), steps), 0.5, 1000
    points = [(float(level.alpha), float(level.sigma)) for level in levels][:-1]
    truth = variance(points, std, 0.16, 2, fresh)
    noise = Noise(tuple(range(100)))
    end = levels[steps - 1]
    wide = math.hypot(points[0][0] * std, points[0][1])
    x = wide * noise.normal((width,), "start").double()
    gaussian = exact(Mixture.gaussian([0.0] * width, [std] * width))
    for step in walk(gaussian, x, plans.corrected(levels, 2)[:-1], PLAIN, noise, Langevin(0.16, fresh)):
        x = step.x
    v = float(end.alpha) ** 2 * std**2 + float(end.sigma) ** 2
    assert abs(float(x.var()) / v / truth - 1) < 4 * math.sqrt(2 / x.numel())


@pytest.mark.parametrize(
    "solver",
    [Multistep("x0", "log_snr", 3), UniPC(3), Heun("eps"), Singlestep("x0", 3), RungeKutta("flow", 4)],
    ids=repr,
)
def test_solvers_take_standing_moves_at_order_one_and_start_anew(solver: Solver) -> None:
    level, below = Level.of(1.0, 0.7), Level.of(1.0, 0.5)
    fresh = Langevin(0.2)
    stand = [Move(level, level)]
    assert torch.equal(last(START, stand, fresh, solver), last(START, stand, fresh))
    whole = last(START, [*stand, Move(level, below)], fresh, solver)
    again = last(last(START, stand, fresh), [Move(level, below)], fresh, solver)
    assert torch.allclose(whole, again, atol=1e-12)


def test_a_neighbour_changes_nothing() -> None:
    plan, fresh = plans.corrected(plans.log_snr(VE(), 8), 2), Langevin(0.16, Ancestral())
    together = last(80 * START, plan, fresh)
    alone = last(80 * START[5:6], plan, fresh, noise=NOISE.take([5]))
    assert torch.allclose(alone, together[5:6], atol=1e-12)


@pytest.mark.parametrize("make", [lambda: Langevin(0.0), lambda: Langevin(0.9)])
def test_steps_that_do_not_settle_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(SettingsError, match="choose above 0"):
        make()
