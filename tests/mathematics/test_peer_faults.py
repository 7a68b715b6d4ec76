"""Faults of samplers in the field, each against an exact answer, with ours beside it.

What diffusers does is asked of diffusers itself, of one version; azula's and k-diffusion's formulas are
written out, since neither is needed here otherwise.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import math
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from oracles import MIXTURE, between, exact, flow_map
from torch import Tensor

from sfumato.data.toy import Mixture
from sfumato.level import CLEAN, Level, Levels
from sfumato.noise import Noise
from sfumato.predictions import Estimate
from sfumato.samplers import Sampler, sampler
from sfumato.schedules import Linear, Schedule
from sfumato.solvers.fresh import Ode, Sde
from sfumato.solvers.moves import Leg, Point
from sfumato.solvers.multistep import Multistep
from sfumato.tables import Table

PINNED = "0.42.1"
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # the peer's own
    pytest.mark.skipif(
        importlib.metadata.version("diffusers") != PINNED, reason=f"faults of diffusers {PINNED}"
    ),
]
TABLE = Table.linear()
NODES = TABLE.nodes()
RATIOS = NODES.sigma / NODES.alpha
EXACT = exact(MIXTURE)
NOISE = Noise(tuple(range(64)))
START = NOISE.normal((2,), "start").double()
TRUTH = flow_map(MIXTURE, START, Level(NODES.alpha[-1], NODES.sigma[-1]), Level.of(1.0, 1e-5), 250)
"""Where the flow takes START from the noisiest node."""


def off(x: Tensor) -> float:
    """The root mean square error at clean data."""
    return float(((x - TRUTH) ** 2).mean().sqrt())


def ours(name: str | Sampler, steps: int) -> float:
    how = sampler(name) if isinstance(name, str) else name
    *_, last = how.walk(EXACT, START, TABLE, steps, NOISE)
    return off(last.x)


def circle(ratio: float) -> Level:
    """The level of this sigma/alpha on the unit circle."""
    return Level.of(1 / math.hypot(1.0, ratio), ratio / math.hypot(1.0, ratio))


def ratio_at(t: float) -> float:
    """sigma/alpha of a step of the table, by log sigma between whole ones."""
    low = min(int(t), 998)
    return float(torch.exp(torch.lerp(RATIOS[low].log(), RATIOS[low + 1].log(), t - low)))


def theirs(name: str, steps: int, *, where_told: bool = True, **settings: Any) -> list[Tensor]:
    """x after each step of the peer's scheduler from START. The network is asked at the time that it is told
    (`where_told`), or where the solver really stands."""
    scheduler = getattr(diffusers, name)(beta_start=1e-4, beta_end=0.02, **settings)
    scheduler.set_timesteps(steps)
    unit = torch.ones((), dtype=torch.float64)
    exploding = float(scheduler.scale_model_input(unit, scheduler.timesteps[0])) < 1
    x = START / NODES.alpha[-1] if exploding else START
    seen: list[Tensor] = []
    for i, t in enumerate(scheduler.timesteps):
        scale = float(scheduler.scale_model_input(unit, t))
        if exploding:
            level = circle(math.sqrt(1 / scale**2 - 1))
        else:
            level = circle(ratio_at(float(t)) if where_told else float(scheduler.sigmas[i]))
        x = scheduler.step(EXACT(x * scale, level).eps, t, x).prev_sample
        seen.append(x)
    return seen


# the published third-order multistep, and its stochastic form

WAVE: Callable[[float], float] = lambda lam: math.sin(1.3 * lam + 0.4)
"""What a model says along the way, by half log-SNR."""


def quadrature(f: Callable[[Tensor], Tensor], low: float, high: float) -> float:
    """Gauss's rule of 12 pieces of 3 points, far beyond what is compared."""
    edge = torch.linspace(low, high, 13, dtype=torch.float64)
    middle, half = (edge[1:] + edge[:-1]) / 2, (edge[1:] - edge[:-1]) / 2
    place = torch.tensor([-math.sqrt(0.6), 0.0, math.sqrt(0.6)], dtype=torch.float64)
    weight = torch.tensor([5.0, 8.0, 5.0], dtype=torch.float64) / 9
    return float((f(middle[:, None] + half[:, None] * place) * weight * half[:, None]).sum())


def local_errors(kind: str) -> tuple[list[float], list[float]]:
    """The errors of one third-order step, theirs and ours, for steps of 0.08, 0.04, 0.02 in half log-SNR."""
    wave = lambda lam: torch.sin(1.3 * lam + 0.4)
    of, fresh = ("eps", Ode()) if kind == "dpmsolver" else ("x0", Sde() if kind.startswith("sde") else Ode())
    theirs: list[float] = []
    mine: list[float] = []
    for h in (0.08, 0.04, 0.02):
        lams = [-2 * h, -h, 0.0, h]  # the past, here, there
        levels = [circle(math.exp(-lam)) for lam in lams]
        here, there = levels[2], levels[3]
        (a, s), (b, r) = Point.of(here), Point.of(there)
        x = 0.7
        if kind == "dpmsolver":
            truth = b / a * x - b * quadrature(lambda lam: torch.exp(-lam) * wave(lam), 0.0, h)
        elif kind == "dpmsolver++":
            truth = r / s * x + r * quadrature(lambda lam: torch.exp(lam) * wave(lam), 0.0, h)
        else:  # the mean of the reverse SDE (Lu et al. 2022b, eq. 18)
            truth = r / s * math.exp(-h) * x
            truth += 2 * b * math.exp(-2 * h) * quadrature(lambda lam: torch.exp(2 * lam) * wave(lam), 0.0, h)
        said = [torch.full((1, 1), WAVE(lam), dtype=torch.float64) for lam in lams[:3]]
        at = torch.full((1, 1), x, dtype=torch.float64)

        peer = diffusers.DPMSolverMultistepScheduler(
            solver_order=3, algorithm_type=kind, final_sigmas_type="sigma_min"
        )
        peer.sigmas = torch.tensor([math.exp(-lam) for lam in lams], dtype=torch.float64)
        peer._step_index = 2
        made = peer.multistep_dpm_solver_third_order_update(said, sample=at, noise=torch.zeros_like(at))
        theirs.append(abs(float(made) - truth))

        points = [Point.of(level) for level in levels]
        kept = [
            Point.of(levels[i + 1])._replace(sigma=fresh(levels[i], levels[i + 1]).kept) for i in range(3)
        ]
        legs = [Leg(points[i], points[i + 1], kept[i], i == 0) for i in range(3)]
        solver = Multistep(of, "log_snr", 3)
        first = Estimate.of(at, here, **{of: said[2]})
        out, _ = solver.step(EXACT, first, solver.prepare(legs)[2], (said[1], said[0]))
        mine.append(abs(float(out) - truth))
    return theirs, mine


def slope(errors: list[float]) -> float:
    """The order that a step's error shows when the step is halved: error ~ h^(order + 1)."""
    return math.log2(errors[-2] / errors[-1]) - 1


@pytest.mark.parametrize(
    ("kind", "order"), [("dpmsolver", 2), ("dpmsolver++", 2), ("sde-dpmsolver++", 1)], ids=lambda v: str(v)
)
def test_the_third_order_multistep_of_the_field_is_of_lower_order(kind: str, order: int) -> None:
    """Its D2 is half of what phi_3 needs; the stochastic one has the wrong sign of 1/2 besides."""
    theirs, mine = local_errors(kind)
    assert slope(theirs) == pytest.approx(order, abs=0.25)
    assert slope(mine) > 2.8
    assert mine[-1] < theirs[-1] / 4


# grids


def test_a_step_off_the_grid_where_the_steps_do_not_divide_a_thousand() -> None:
    """diffusers' DDIM with "trailing" spacing: it goes down by 1000 // steps whatever the next step is."""
    gaussian = Mixture.gaussian([0.0], [0.4])
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    peer = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    peer.set_timesteps(600)
    z = x
    for t in peer.timesteps:
        level = Level(NODES.alpha[t], NODES.sigma[t])
        z = peer.step(exact(gaussian)(z, level).eps, t, z).prev_sample
    assert float(z[0] / x[0]) == pytest.approx(1.44 * 0.4, rel=0.01)  # the truth is 0.4 but for 0.003
    *_, last = sampler("ddim").walk(exact(gaussian), x, TABLE, 600, Noise(tuple(range(7))))
    assert float(last.x[0] / x[0]) == pytest.approx(0.4, rel=0.01)


@pytest.mark.parametrize(("grid", "most"), [("use_karras_sigmas", 0.045), ("use_exponential_sigmas", 0.108)])
def test_a_network_asked_at_another_level_than_the_solver_stands_at(grid: str, most: float) -> None:
    """diffusers rounds the grid's times to whole steps, and goes on with the sigmas that were not rounded."""
    peer = diffusers.DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02, **{grid: True})
    peer.set_timesteps(20)
    away = [abs(ratio_at(float(t)) / float(s) - 1) for t, s in zip(peer.timesteps, peer.sigmas, strict=False)]
    assert max(away) == pytest.approx(most, rel=0.05)


def test_what_asking_elsewhere_costs() -> None:
    told, true = (
        off(theirs("DPMSolverMultistepScheduler", 100, where_told=told, use_exponential_sigmas=True)[-1])
        for told in (True, False)
    )
    assert told > 3 * true
    assert ours("dpmpp-2m", 100) < told / 2


@pytest.mark.parametrize("steps", [10, 20])
def test_the_leap_at_the_end_of_the_default_grid(steps: int) -> None:
    """DPM-Solver++ 2M on its default grid leaps from sigma 0.34 (10 steps) or 0.18 (20) to 0 in one step of
    first order, and most of the error is made there."""
    peer = diffusers.DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02)
    peer.set_timesteps(steps)
    assert float(peer.sigmas[-2]) == pytest.approx({10: 0.34, 20: 0.18}[steps], abs=0.01)
    seen = theirs("DPMSolverMultistepScheduler", steps)
    before = circle(float(peer.sigmas[-2]))
    truth = flow_map(MIXTURE, START, Level(NODES.alpha[-1], NODES.sigma[-1]), before, 100)
    assert off(seen[-1]) > 2 * float((seen[-2] - truth).square().mean().sqrt())
    assert ours("dpmpp-2m", steps) < off(seen[-1])


def test_the_leading_grid_never_visits_the_noisiest_level() -> None:
    """It starts from noise as of step 999 at a level that is not as noisy."""
    peer = diffusers.DDIMScheduler()
    peer.set_timesteps(10)
    assert int(peer.timesteps[0]) == 900
    plan = sampler("ddim").plan(TABLE, 10)
    assert float(plan[0].here.sigma) == float(NODES.sigma[999])


def beta_grid(schedule: Schedule, n: int) -> Levels:
    """sigma/alpha at the quantiles of Beta(0.6, 0.6), from most to least (diffusers' use_beta_sigmas and
    ComfyUI's "beta")."""
    angle = torch.linspace(0, math.pi / 2, 200_001, dtype=torch.float64)  # quantiles are its sine squared
    mass = (torch.sin(angle) * torch.cos(angle)) ** 0.2
    upto = (mass.cumsum(0) - mass[0]) / (mass.sum() - mass[0])
    part = torch.searchsorted(upto, 1 - torch.linspace(0, 1, n, dtype=torch.float64)).clamp(max=200_000)
    ratio = RATIOS[0] + torch.sin(angle[part]) ** 2 * (RATIOS[-1] - RATIOS[0])
    return Levels.of(
        Level(1 / torch.hypot(ratio, torch.ones(())), ratio / torch.hypot(ratio, torch.ones(()))), CLEAN
    )


def test_more_steps_on_a_beta_grid_are_worse() -> None:
    """Its quantiles are even in sigma, so the last leap, to the least sigma, is long whatever the count; a
    polynomial through ever closer points is stretched over it."""
    how = Sampler(Multistep("x0", "log_snr", 2), grid=beta_grid)
    assert ours(how, 50) > 3 * ours(how, 20)
    assert ours("dpmpp-2m", 50) < ours("dpmpp-2m", 20) / 3


# few steps, and numbers that are none


@pytest.mark.parametrize("name", ["UniPCMultistepScheduler"])
def test_unipcs_b1_at_a_last_sigma_of_zero(name: str) -> None:
    assert not theirs(name, 10, solver_type="bh1")[-1].isfinite().any()
    assert theirs(name, 10, solver_type="bh2")[-1].isfinite().all()


@pytest.mark.parametrize("kind", ["dpmsolver", "dpmsolver++"])
@pytest.mark.parametrize("grid", ["use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas"])
def test_a_last_sigma_that_is_there_twice(kind: str, grid: str) -> None:
    """Order 3 with final_sigmas_type="sigma_min": from 15 steps on it divides by the span between the two."""
    settings = {"solver_order": 3, "algorithm_type": kind, "final_sigmas_type": "sigma_min", grid: True}
    assert theirs("DPMSolverMultistepScheduler", 10, **settings)[-1].isfinite().all()
    assert not theirs("DPMSolverMultistepScheduler", 15, **settings)[-1].isfinite().any()
    for name in ("dpmpp-3m", "dpmpp-3m-karras"):
        assert ours(name, 15) < 0.1


def test_pndm_and_plms_in_few_steps() -> None:
    for steps in (1, 2, 3):
        with pytest.raises(ValueError, match="broadcast"):
            theirs("PNDMScheduler", steps)
    assert off(theirs("PNDMScheduler", 2, skip_prk_steps=True)[-1]) > 1.5 * ours("ddim", 2)


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler"])
def test_two_looks_a_step_in_few_steps(name: str) -> None:
    """A look at sigma 0.01 from sigma 157 multiplies the error of its guess by thousands."""
    assert off(theirs(name, 2)[-1]) > 30
    assert off(theirs(name, 3)[-1]) > 2
    for steps in (2, 3):
        assert ours("heun", steps) < 1.05 * ours("euler", steps)
        assert ours("heun-uniform", steps) < 1.05 * ours("euler-uniform", steps)


def test_multistep_sdes_in_one_step() -> None:
    """k-diffusion's loops of 2M SDE and 3M SDE set `h` inside the branch that a single step never enters."""

    def published(sigmas: list[float]) -> float:
        for sigma, then in itertools.pairwise(sigmas):
            if then > 0:
                h = math.log(sigma / then)
            last = h
        return last

    assert published([10.0, 1.0, 0.0]) == math.log(10.0)
    with pytest.raises(UnboundLocalError):
        published([10.0, 0.0])
    assert ours("dpmpp-2m-sde", 1) == pytest.approx(ours("ddim", 1), rel=1e-12)


def test_large_variance_leaves_noise_in_the_picture() -> None:
    """diffusers' DDPM adds noise unless t = 0, and a trailing grid's last step starts from higher up."""
    std: dict[str, float] = {}
    for spacing in ("leading", "trailing"):
        peer = diffusers.DDPMScheduler(
            variance_type="fixed_large", clip_sample=False, timestep_spacing=spacing
        )
        peer.set_timesteps(20)
        t = peer.timesteps[-1]
        x = torch.zeros(2000, 1)
        made = peer.step(torch.zeros_like(x), t, x, generator=torch.Generator().manual_seed(0)).prev_sample
        std[spacing] = float(made.std())
    assert std["leading"] == 0
    assert std["trailing"] == pytest.approx(math.sqrt(1 - float(NODES.alpha[49]) ** 2), rel=0.05)
    last = sampler("ddpm-large").plan(TABLE, 20)[-1]
    assert sampler("ddpm-large").fresh(last.here, last.there).added == 0


# azula 0.11's Rosenbrock-type exponential Adams-Bashforth


def reab(x: Tensor, levels: Levels, order: int, right: bool) -> Tensor:
    """Its step on estimates f, with sigma_s in the last factor (`right`) or sigma_t, as it has it."""
    u = (levels.sigma / levels.alpha).log()
    past: list[Tensor] = []
    for i in range(len(levels) - 1):
        (a, s), (b, r) = Point.of(levels[i]), Point.of(levels[i + 1])
        norm = math.hypot(a, s)
        past.append(a / s / norm * x - norm / s * EXACT(x, levels[i]).x0)
        n = min(order, i + 1)
        k = torch.arange(n)
        v = torch.linspace(float(u[i]), float(u[i + 1]), 257, dtype=torch.float64)
        means = torch.trapezoid(v.exp() / (1 + (2 * v).exp()) * v ** k[:, None], v)
        weights = torch.linalg.solve(u[i + 1 - n : i + 1] ** k[:, None], means)
        integral = sum((w * f for w, f in zip(weights, past[-n:], strict=True)), torch.zeros_like(x))
        x = math.hypot(b, r) / norm * x + math.hypot(b, r if right else s) * integral
    return x


def test_reab_is_of_first_order_by_one_letter() -> None:
    found: dict[bool, list[float]] = {True: [], False: []}
    start = START * math.hypot(1.0, 5.0)
    truth = flow_map(MIXTURE, start, Level.of(1.0, 5.0), Level.of(1.0, 0.05), 200)
    for n in (30, 60, 120):
        levels = between(Linear(), 5.0, 0.05, n)
        for right in found:
            x = reab(levels[0].alpha * start, levels, 2, right)
            found[right].append(float((x / levels.alpha[-1] - truth).abs().max()))
    assert math.log2(found[False][-2] / found[False][-1]) < 1.2
    assert math.log2(found[True][-2] / found[True][-1]) > 1.8
