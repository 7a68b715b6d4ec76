"""Runge-Kutta in a frame's place, and multistep solvers started by it: the order with the real start-up."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import PNDMScheduler
from oracles import MIXTURE, exact
from slopes import error, even_in_log_snr, slope

from sfumato import plans
from sfumato.errors import SettingsError
from sfumato.level import Level, Levels
from sfumato.noise import Noise
from sfumato.predictions import V
from sfumato.sampling import sample, walk
from sfumato.schedules import Cosine, Linear, RectifiedFlow, Schedule
from sfumato.solvers.frames import Frame
from sfumato.solvers.moves import Leg, Point
from sfumato.solvers.multistep import Multistep
from sfumato.solvers.rungekutta import RungeKutta
from sfumato.solvers.singlestep import Singlestep
from sfumato.solvers.started import Started
from sfumato.solvers.unipc import UniPC
from sfumato.tables import Table

pytestmark = pytest.mark.slow

PNDM = Started(Multistep("eps", "index", 4), RungeKutta("eps", 4))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("frame", ["x0", "eps", "flow", "v", V(0.5)], ids=str)
def test_runge_kutta_has_its_order(frame: Frame, order: int) -> None:
    coarse, fine = (error(RungeKutta(frame, order), even_in_log_snr(Linear(), n)) for n in (30, 60))
    assert slope(coarse, fine) > order - 0.2


@pytest.mark.parametrize(
    "solver",
    [
        Started(Multistep("x0", "log_snr", 3), Singlestep("x0", 2)),
        Started(Multistep("x0", "log_snr", 4), Singlestep("x0", 3)),
        Started(Multistep("eps", "ratio", 3), RungeKutta("eps", 2)),
        Started(Multistep("eps", "log_snr", 4), RungeKutta("eps", 4)),
        Started(Multistep("v", "log_snr", 3), RungeKutta("v", 3)),
        Started(Multistep("flow", "linear", 4), RungeKutta("flow", 3)),
        Started(UniPC(3), Singlestep("x0", 3)),
        Started(UniPC(4), RungeKutta("x0", 4)),
    ],
    ids=repr,
)
def test_a_started_solver_keeps_its_order_with_its_real_start(solver: Started) -> None:
    fewest = 40 if isinstance(solver.solver, UniPC) else 80 if solver.order < 4 else 160
    coarse, fine = (error(solver, even_in_log_snr(Linear(), n)) for n in (fewest, 2 * fewest))
    assert slope(coarse, fine) > solver.order - 0.2


def test_without_it_the_order_is_two() -> None:
    solver = Multistep("eps", "log_snr", 4)
    coarse, fine = (error(solver, even_in_log_snr(Linear(), n)) for n in (160, 320))
    assert 1.8 < slope(coarse, fine) < 2.3


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers on numpy 2
def test_plms_against_diffusers() -> None:
    """From its second level on. Its own first move, made twice, is Heun's: eps averaged over both ends."""
    scheduler = PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=True, beta_start=1e-4, beta_end=0.02)
    scheduler.set_timesteps(10)
    times = [int(t) for t in scheduler.timesteps]
    assert times[1] == times[2]  # the second level is asked twice
    del times[1]
    level = Table.linear().level(torch.tensor([(t + 1) / 1000 for t in times], dtype=torch.float64))
    levels = Levels.of(level, plans.trailing(Table.linear(), 1)[1])
    denoise, theirs = exact(MIXTURE), []
    x = start = Noise(tuple(range(16))).normal((2,), "start").double()
    for t in scheduler.timesteps:
        x = scheduler.step(denoise(x, levels[times.index(int(t))]).eps, int(t), x).prev_sample
        theirs.append(x)
    plan = plans.descend(levels)
    heun = Singlestep("eps", 2, (1.0,), "ratio")
    (first,) = walk(denoise, start, plan[:1], heun)
    assert torch.allclose(first.x, theirs[1], atol=2e-5)
    solver = Started(Multistep("eps", "index", 2), heun)  # one step by the start, as theirs; then 3/2, -1/2
    two = list(walk(denoise, start, plan[:2], solver))[-1]
    assert torch.allclose(two.x, theirs[2], atol=2e-5)
    ours, state = theirs[1], (denoise(start, levels[0]).eps,)
    rows = Multistep("eps", "index", 4).prepare(legs_of(levels))
    for i in range(1, 10):
        ours, state = Multistep("eps", "index", 4).step(denoise, denoise(ours, levels[i]), rows[i], state)
        assert torch.allclose(ours, theirs[i + 1], atol=5e-5)


def legs_of(levels: Levels) -> list[Leg]:
    points = [Point.of(level) for level in levels]
    return [Leg(a, b, b, i == 0) for i, (a, b) in enumerate(itertools.pairwise(points))]


def test_the_start_is_classical_rk4_in_sigma_over_alpha() -> (
    None
):  # Liu et al. 2022, eq. 13, in the place of eps
    levels = even_in_log_snr(RectifiedFlow(), 6)
    here, there = (float(levels.sigma[i] / levels.alpha[i]) for i in (0, 1))
    h, denoise = there - here, exact(MIXTURE)
    z = Noise(tuple(range(8))).normal((2,), "start").double() * here
    slope_at = lambda z, k: denoise(z, Level.of(1.0, k)).eps
    e1 = slope_at(z, here)
    e2 = slope_at(z + h / 2 * e1, here + h / 2)
    e3 = slope_at(z + h / 2 * e2, here + h / 2)
    e4 = slope_at(z + h * e3, there)
    (step,) = walk(denoise, z * levels.alpha[0], plans.descend(levels)[:1], PNDM)
    expected = levels.alpha[1] * (z + h / 6 * (e1 + 2 * e2 + 2 * e3 + e4))
    assert torch.allclose(step.x, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "schedule", [RectifiedFlow(), Cosine(), Table.linear()], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_few_steps_from_the_noisiest_level_to_clean_data(schedule: Schedule, steps: int) -> None:
    plan = plans.descend(plans.trailing(schedule, steps))
    for solver in (PNDM, Started(UniPC(3), Singlestep("x0", 3)), RungeKutta("flow", 4)):
        x = sample(exact(MIXTURE), (2,), plan, solver, range(32))
        if steps == 1:
            assert torch.allclose(x.double(), MIXTURE.mean.expand(32, 2), atol=1e-2)
        assert float(x.abs().max()) < 4


def test_every_stretch_is_started_anew() -> None:
    noise = Noise(tuple(range(8)))
    plan = plans.repaint(plans.log_snr(Linear(), 8, high=80.0), jump=4, times=2)
    steps = list(walk(exact(MIXTURE), noise.normal((2,), "start").double(), plan, PNDM, noise))
    cut = next(i for i, step in enumerate(steps) if step.estimate is None)
    again = list(walk(exact(MIXTURE), steps[cut].x, plan[cut + 1 : cut + 5], PNDM))
    assert [torch.equal(a.x, b.x) for a, b in zip(steps[cut + 1 : cut + 5], again, strict=True)] == [True] * 4


def test_threads_that_share_a_solver_share_nothing_else() -> None:
    plan = plans.descend(plans.log_snr(Linear(), 10, high=80.0))
    for solver in (PNDM, UniPC(3), Multistep("v", "log_snr", 3)):
        run = lambda seed, solver=solver: sample(exact(MIXTURE), (2,), plan, solver, [seed])
        alone = [run(seed) for seed in range(8)]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(run, range(8)))
        assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SettingsError, match="order 5"):
        RungeKutta(order=5)
    with pytest.raises(SettingsError, match="start of order 2"):
        Started(Multistep("eps", "ratio", 4), Singlestep("eps", 2))
