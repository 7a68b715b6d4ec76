"""Stochastic samplers: on Gaussian data each is an affine recursion whose every moment is known."""

import itertools
import math

import pytest
import torch
from oracles import exact
from torch import Tensor

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.errors import SettingsError
from sfumato.forward import posterior
from sfumato.level import CLEAN, PURE_NOISE, Level
from sfumato.noise import Noise
from sfumato.samplers import SAMPLERS, sampler
from sfumato.sampling import prior, walk
from sfumato.schedules import Cosine, Linear, RectifiedFlow, Schedule
from sfumato.solvers.fresh import Ancestral, Anew, LargeVariance, Ode, Sde
from sfumato.solvers.moves import Move, renoise
from sfumato.solvers.multistep import Multistep
from sfumato.tables import Table

MEAN, STD = 0.3, 0.5
SEEDS, WIDTH = 500, 200  # 1e5 samples


def draw(name: str, schedule: Schedule, steps: int) -> Tensor:
    chosen = SAMPLERS[name]
    plan = chosen.plan(schedule, steps)
    noise = Noise(tuple(range(SEEDS)))
    x = prior(plan[0].here, (WIDTH,), noise).double()
    gaussian = Mixture.gaussian([MEAN] * WIDTH, [STD] * WIDTH)
    for step in walk(exact(gaussian), x, plan, chosen.solver, noise, chosen.fresh):
        x = step.x
    return x


def recursion(schedule: Schedule, steps: int, large: bool) -> tuple[float, float]:
    """Mean and variance at the end of DDPM on N(MEAN, STD^2), from the published formulas and nothing of ours
    but levels."""
    levels = plans.trailing(schedule, steps)
    bars = (levels.alpha**2).tolist()
    mean, variance = 0.0, 1.0
    for bar, below in itertools.pairwise(bars):
        beta = 1 - bar / below
        a, var = math.sqrt(bar), 1 - bar
        gain = a * STD**2 / (bar * STD**2 + var)  # E[x0 | x] = MEAN + gain (x - a MEAN)
        of_x0, of_x = math.sqrt(below) * beta / var, math.sqrt(1 - beta) * (1 - below) / var
        tilde = (1 - below) / var * beta
        added = 0.0 if below == 1 else beta if large else tilde
        slope = of_x0 * gain + of_x
        mean = of_x0 * (MEAN - gain * a * MEAN) + slope * mean
        variance = slope**2 * variance + added
    return mean, variance


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("schedule", [Table.linear(), Cosine()], ids=["linear", "cosine"])
@pytest.mark.parametrize("name", ["ddpm", "ddpm-large"])
def test_ddpm_has_the_moments_of_its_affine_recursion(name: str, schedule: Schedule, steps: int) -> None:
    x = draw(name, schedule, steps)
    mean, variance = recursion(schedule, steps, large=name == "ddpm-large")
    n = x.numel()
    assert abs(float(x.mean()) - mean) < 4 * math.sqrt(variance / n)
    assert abs(float(x.var()) / variance - 1) < 4 * math.sqrt(2 / n)
    # the two variances are told apart by this test
    other = recursion(schedule, steps, large=name == "ddpm")[1]
    assert abs(other / variance - 1) > 4 * math.sqrt(2 / n)


def test_the_large_variance_is_exact_for_unit_data_and_the_small_one_for_a_point() -> None:
    noise = Noise(tuple(range(SEEDS)))
    plan = plans.descend(plans.trailing(Cosine(), 7))[:-1]
    for std, fresh in [(1.0, LargeVariance()), (0.0, Ancestral())]:
        data = Mixture.gaussian([0.0] * WIDTH, [std] * WIDTH)
        x = noise.normal((WIDTH,), "start").double()
        for step in walk(exact(data), x, plan, Multistep(order=1), noise, fresh):
            x = step.x
        end = plan[-1].there
        truth = float(end.alpha**2 * std**2 + end.sigma**2)
        assert abs(float(x.var()) / truth - 1) < 4 * math.sqrt(2 / x.numel())


@pytest.mark.parametrize(
    "fresh", [Ancestral(1.0), Ancestral(0.3), Sde(1.0), Sde(0.5), Anew(), Ode()], ids=repr
)
@pytest.mark.parametrize("schedule", [Linear(), Cosine(), RectifiedFlow()], ids=lambda s: type(s).__name__)
def test_kept_and_added_make_the_target(fresh: object, schedule: Schedule) -> None:
    for a, b in [(1.0, 0.9), (0.9, 0.5), (0.5, 0.01), (0.3, 0.0)]:
        here, there = (schedule.level(torch.tensor(t, dtype=torch.float64)) for t in (a, b))
        kept, added = fresh(here, there)  # type: ignore[operator]
        assert kept**2 + added**2 == pytest.approx(float(there.sigma**2), abs=1e-15)
        if float(there.sigma) == 0:
            assert added == 0


@pytest.mark.parametrize("eta", [-0.5, math.inf, math.nan])
def test_an_sde_that_runs_backwards_or_for_ever_is_refused(eta: float) -> None:
    with pytest.raises(SettingsError, match="eta"):
        Sde(eta)


def test_the_ancestral_step_is_ddims_eta_and_the_posterior() -> None:
    schedule = Linear()
    here, there = (schedule.level(torch.tensor(t, dtype=torch.float64)) for t in (0.6, 0.4))
    bar, below = float(here.alpha**2), float(there.alpha**2)
    published = math.sqrt((1 - below) / (1 - bar)) * math.sqrt(1 - bar / below)  # Song et al. 2021, eq. 16
    for eta in (0.25, 1.0):
        assert Ancestral(eta)(here, there).added == pytest.approx(eta * published, rel=1e-12)
    x, x0 = torch.tensor([0.4], dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64)
    assert Ancestral(1.0)(here, there).added ** 2 == pytest.approx(
        float(posterior(x, x0, here, there).variance)
    )
    # the exact solution of the reverse SDE for a frozen estimate is the same split
    assert Sde(1.0)(here, there).added == pytest.approx(Ancestral(1.0)(here, there).added, rel=1e-12)
    lam = lambda level: float(level.log_snr) / 2
    h = lam(there) - lam(here)
    assert Sde(0.5)(here, there).added == pytest.approx(
        float(there.sigma) * math.sqrt(-math.expm1(-h)), rel=1e-12
    )


def test_renoising_is_a_draw_of_the_forward_process() -> None:
    schedule = Cosine()
    low, high = (schedule.level(torch.tensor(t, dtype=torch.float64)) for t in (0.2, 0.7))
    noise = Noise(tuple(range(SEEDS)))
    x_low = low.alpha * 0.5 + low.sigma * noise.normal((WIDTH,), "a").double()
    x = renoise(x_low, low, high, noise.normal((WIDTH,), "b"))
    n = x.numel()
    assert abs(float(x.mean()) - float(high.alpha) * 0.5) < 4 * float(high.sigma) / math.sqrt(n)
    assert abs(float(x.var() / high.sigma**2) - 1) < 4 * math.sqrt(2 / n)
    z = noise.normal((WIDTH,), "c")
    assert torch.equal(renoise(x_low, low, PURE_NOISE, z), z.double())  # all the way up


@pytest.mark.slow
def test_repainting_draws_the_conditional() -> None:
    """Two correlated numbers, one known: more times around brings the other closer to its conditional law."""
    cov = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    eye = torch.eye(2, dtype=torch.float64)

    def truth(x: Tensor, level: Level) -> Tensor:
        return x @ (level.alpha * cov @ torch.linalg.inv(level.alpha**2 * cov + level.sigma**2 * eye)).T

    from sfumato.denoiser import Exact

    noise = Noise(tuple(range(1000)))
    off = []
    for times in (1, 6):

        def keep(x: Tensor, level: Level, i: int) -> Tensor:
            known = level.alpha * 1.5 + level.sigma * noise.normal((), "known", i).double()
            return torch.stack([known, x[:, 1]], 1)

        plan = plans.repaint(plans.trailing(Cosine(), 40), times=times)
        x = prior(plan[0].here, (2,), noise).double()
        for step in walk(Exact(truth), x, plan, Multistep(order=1), noise, Ancestral(), keep):
            x = step.x
        off.append(abs(float(x[:, 1].mean()) - 1.35))
    assert off[1] < off[0] / 2
    assert off[1] < 0.1


def test_an_image_noised_and_denoised_stays_in_its_mode() -> None:
    two = Mixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), torch.full((2, 1), 0.1))
    noise = Noise(tuple(range(400)))
    levels = plans.trailing(Cosine(), 40)
    for start, low, high in [(30, 0.99, 1.0), (1, 0.3, 0.7)]:
        x = torch.full((400, 1), 1.0, dtype=torch.float64)
        for step in walk(exact(two), x, plans.from_image(levels, start), noise=noise):
            x = step.x
        assert low <= float((x > 0).double().mean()) <= high


def test_inversion_is_the_same_grid_backwards() -> None:
    data = Mixture.gaussian([0.2], [0.4])
    levels = plans.log_snr(Linear(), 100)
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    assert float(plans.invert(levels)[0].here.sigma) > 0
    z = x * levels[99].alpha
    for step in walk(exact(data), z, plans.invert(levels), Multistep("flow", "linear", 2)):
        z = step.x
    back = z
    for step in walk(exact(data), back, plans.descend(levels)[:-1], Multistep("flow", "linear", 2)):
        back = step.x
    assert float((back - x * levels[99].alpha).abs().max()) < 5e-3


def test_noise_is_asked_for_and_only_upwards() -> None:
    x = torch.zeros(2, 1)
    data = exact(Mixture.gaussian([0.0], [1.0]))
    plan = plans.descend(plans.trailing(Cosine(), 4))
    with pytest.raises(SettingsError, match="draws noise"):
        next(walk(data, x, plan, fresh=Ancestral()))
    with pytest.raises(SettingsError, match="one seed per picture"):
        next(walk(data, x, plan, noise=Noise((1,))))
    with pytest.raises(SettingsError, match="towards more noise"):
        next(walk(data, x, [Move(PURE_NOISE, CLEAN, renoise=True)], noise=Noise((1, 2))))
    with pytest.raises(SettingsError, match=r"0 \.\. 1"):
        Ancestral(1.5)
    with pytest.raises(SettingsError, match="dpmpp-2m"):
        sampler("dpmpp-2n")
    assert sampler("DDIM", eta=0.5).fresh == Ancestral(0.5)
