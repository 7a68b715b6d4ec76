"""Single-step solvers: orders by slope, the published formulas and peers, the ends, fresh noise."""

import itertools
import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from oracles import MIXTURE, between, exact, flow_map
from torch import Tensor

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.denoiser import Exact
from sfumato.errors import SettingsError
from sfumato.level import CLEAN, Level, Levels
from sfumato.noise import Noise
from sfumato.predictions import Estimate
from sfumato.sampling import Counted, Solver, sample, walk
from sfumato.schedules import VE, Cosine, Linear, RectifiedFlow, Schedule
from sfumato.solvers.fresh import Ancestral, Fresh, Sde
from sfumato.solvers.moves import Move, Point
from sfumato.solvers.multistep import Clock, Multistep, tick
from sfumato.solvers.rungekutta import RungeKutta
from sfumato.solvers.singlestep import Heun, Singlestep, point_at
from sfumato.solvers.unipc import UniPC
from sfumato.tables import Table

SOLVERS = [
    Singlestep("x0", 1),
    Singlestep("x0", 2),
    Singlestep("x0", 2, (0.8,), rule="exact"),
    Singlestep("x0", 3),
    Singlestep("x0", 3, (0.7, 0.4), rule="exact"),
    Singlestep("eps", 2),
    Singlestep("eps", 2, (0.7,)),
    Singlestep("eps", 3),
    Singlestep("eps", 3, (0.5, 1.0), rule="exact"),
    Singlestep("eps", 2, clock="ratio"),
    Singlestep("flow", 2, clock="linear"),
    Singlestep("flow", 3, clock="linear"),
    Singlestep("flow", 3, (0.5, 0.75), clock="linear", rule="exact"),
]
Place = Callable[[Schedule, float, float, int], Levels]
START = Noise(tuple(range(64))).normal((2,), "start").double() * math.hypot(0.5, 5.0)


@cache
def truth() -> Tensor:
    return flow_map(MIXTURE, START, Level.of(1.0, 5.0), Level.of(1.0, 0.05), 400)


def even_in_time(schedule: Schedule, most: float, least: float, n: int) -> Levels:
    ends = schedule.time(Level.of(torch.ones(2), torch.tensor([most, least])))
    return Levels.of(schedule.level(ends[0] + (ends[1] - ends[0]) * torch.arange(n + 1) / n))


def last(x: Tensor, plan: list[Move], solver: Singlestep | Heun, **rest: object) -> Tensor:
    for step in walk(exact(MIXTURE), x, plan, solver, **rest):  # type: ignore[arg-type]
        x = step.x
    return x


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [Linear(), Cosine(), RectifiedFlow()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_the_measured_order_is_the_declared_one(solver: Singlestep, schedule: Schedule) -> None:
    errors: list[float] = []
    for n in (24, 48):
        levels = between(schedule, 5.0, 0.05, n)
        x = last(levels.alpha[0] * START, plans.descend(levels), solver)
        errors.append(float((x / levels.alpha[-1] - truth()).abs().max()))
    assert math.log2(errors[0] / errors[1]) > solver.order - 0.2


def test_a_clock_and_its_inverse() -> None:
    clocks: list[Clock] = ["log_snr", "ratio", "linear"]
    for clock, ratio in itertools.product(clocks, [1e-4, 0.3, 1.0, 157.0]):
        time = tick(Point(1.0, ratio), clock)
        point = point_at(time, clock)
        assert point.sigma / point.alpha == pytest.approx(ratio, rel=1e-12)


def official(of: str, order: int, r1: float, r2: float) -> Callable[[Tensor, Level, Level], Tensor]:
    """DPM-Solver-2/3 and DPM-Solver++ 2S/3S as published, solver_type "dpmsolver" (Lu et al. 2022, 2022b)."""
    data = of == "x0"
    f = lambda x, level: getattr(exact(MIXTURE)(x, level), of)

    def run(x: Tensor, here: Level, there: Level) -> Tensor:
        lam = lambda level: float(level.log_snr) / 2
        h = lam(there) - lam(here)

        def at(r: float) -> Level:
            p = 1 / (1 + math.exp(-2 * (lam(here) + r * h)))
            return Level.of(math.sqrt(p), math.sqrt(1 - p))

        def move(to: Level, r: float, y: Tensor, difference: Tensor, weight: float) -> Tensor:
            if data:
                phi = math.expm1(-r * h)
                return to.sigma / here.sigma * x - to.alpha * phi * y + to.alpha * weight * difference
            phi = math.expm1(r * h)
            return to.alpha / here.alpha * x - to.sigma * phi * y - to.sigma * weight * difference

        def second(r: float) -> float:  # phi_2, as they name it, times the length
            return math.expm1(-r * h) / h + r if data else math.expm1(r * h) / h - r

        y0 = f(x, here)
        s1 = at(r1)
        y1 = f(move(s1, r1, y0, y0, 0.0), s1)
        if order == 2:
            return move(there, 1.0, y0, y1 - y0, (-math.expm1(-h) if data else math.expm1(h)) / (2 * r1))
        s2 = at(r2)
        y2 = f(move(s2, r2, y0, y1 - y0, second(r2) / r1), s2)
        return move(there, 1.0, y0, y2 - y0, second(1.0) / r2)

    return run


@pytest.mark.parametrize(
    ("of", "order", "r1", "r2"),
    [
        ("eps", 2, 0.5, 0.0),
        ("eps", 2, 0.8, 0.0),
        ("eps", 3, 1 / 3, 2 / 3),
        ("eps", 3, 0.4, 2 / 3),
        ("x0", 2, 0.5, 0.0),
        ("x0", 2, 0.3, 0.0),
        ("x0", 3, 1 / 3, 2 / 3),
        ("x0", 3, 0.5, 2 / 3),
    ],
)
def test_the_rows_are_the_published_ones(of: str, order: int, r1: float, r2: float) -> None:
    levels = between(Linear(), 8.0, 0.02, 5)
    step = official(of, order, r1, r2)
    x = theirs = START
    solver = Singlestep(of, order, (r1, r2)[: order - 1])  # type: ignore[arg-type]
    ours = last(x, plans.descend(levels), solver)
    for i in range(5):
        theirs = step(theirs, levels[i], levels[i + 1])
    assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("kind", "rule"), [("midpoint", "published"), ("heun", "exact")])
@pytest.mark.parametrize("steps", [10, 11])
def test_diffusers_single_step_scheduler(kind: str, rule: str, steps: int) -> None:
    """Theirs looks again at the grid's own nodes."""
    from diffusers import DPMSolverSinglestepScheduler

    theirs = DPMSolverSinglestepScheduler(
        solver_order=2, solver_type=kind, prediction_type="sample", use_karras_sigmas=True
    )
    theirs.set_timesteps(steps)
    ratio = theirs.sigmas.double()
    alpha = 1 / (1 + ratio**2).sqrt()
    levels = Levels(alpha, alpha * ratio)
    x = peer = START / START.std()
    for i, t in enumerate(theirs.timesteps):
        peer = theirs.step(exact(MIXTURE)(peer, levels[i]).x0, t, peer).prev_sample
    ours = last(x, plans.Strides(2)(levels), Singlestep("x0", 2, rule=rule))  # type: ignore[arg-type]
    assert float((ours - peer).abs().max()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("place", [between, even_in_time], ids=["log-SNR", "time"])
@pytest.mark.parametrize(("of", "order"), [("x0", 2), ("x0", 3), ("eps", 2), ("eps", 3)])
def test_strides_keep_the_order_wherever_the_nodes_are(of: str, order: int, place: Place) -> None:
    errors: list[float] = []
    for n in (100, 200):
        levels = place(Linear(), 5.0, 0.05, order * n)
        plan = plans.Strides(order)(Levels.of(Level(levels.alpha, levels.sigma), CLEAN))
        assert [len(move.through or ()) for move in plan] == [order - 1] * n + [0]
        x = last(levels.alpha[0] * START, plan[:-1], Singlestep(of, order))  # type: ignore[arg-type]
        errors.append(float((x / levels.alpha[-1] - truth()).abs().max()))
    assert math.log2(errors[0] / errors[1]) > order - 0.2


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("n", range(1, 11))
def test_strides_ask_once_at_every_level(order: int, n: int) -> None:
    levels = plans.karras(VE(0.05, 10.0), n)
    plan = plans.Strides(order)(levels)
    asked = [level for move in plan for level in (move.here, *(move.through or ()))]
    assert [(float(a.alpha), float(a.sigma)) for a in asked] == [
        (float(a.alpha), float(a.sigma)) for a in list(levels)[:-1]
    ]
    counted = Counted.of(exact(MIXTURE), 64)
    for _ in walk(counted, START, plan, Singlestep("x0", order)):
        pass
    assert counted.counts == [n] * 64
    assert float(plan[-1].there.sigma) == 0
    assert not plan[-1].through


@pytest.mark.parametrize(
    "solver", [Multistep(), UniPC(), RungeKutta("x0", 2), Heun(), Singlestep("x0", 2)], ids=repr
)
def test_strides_of_three_are_refused_by_solvers_that_would_not_look_there(solver: Solver) -> None:
    plan = plans.Strides(3)(plans.karras(VE(0.05, 10.0), 7))
    with pytest.raises(SettingsError, match="look"):
        next(walk(exact(MIXTURE), START, plan, solver))
    next(walk(exact(MIXTURE), START, plan, Singlestep("x0", 3)))


def test_a_look_that_is_not_on_the_way_is_refused() -> None:
    here, there, beyond = Level.of(1.0, 2.0), Level.of(1.0, 1.0), Level.of(1.0, 0.5)
    for through in ((beyond,), (there, here), (here,)):
        with pytest.raises(SettingsError, match="one after the other"):
            next(walk(exact(MIXTURE), START, [Move(here, there, through=through)], Singlestep("x0", 3)))


def test_strides_of_no_length_are_refused() -> None:
    with pytest.raises(SettingsError, match="strides of 4"):
        plans.Strides(4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_diffusers_dpm2() -> None:
    from diffusers import KDPM2DiscreteScheduler

    theirs = KDPM2DiscreteScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
    theirs.set_timesteps(12)
    ratio = torch.cat(
        [theirs.sigmas[:1], theirs.sigmas[1::2]]
    ).double()  # their list holds each of them twice
    levels = Levels(torch.ones_like(ratio), ratio)
    x = peer = START / START.std() * ratio[0]
    for t in theirs.timesteps:
        i = theirs.index_for_timestep(t) if theirs.step_index is None else theirs.step_index
        sigma = theirs.sigmas[i] if theirs.state_in_first_order else theirs.sigmas_interpol[i]
        peer = theirs.step(exact(MIXTURE)(peer, Level.of(1.0, sigma)).eps, t, peer).prev_sample
    ours = last(x, plans.descend(levels), Singlestep("eps", 2))
    assert float((ours - peer).abs().max()) < 1e-4
    assert float((ours - x).abs().max()) > 1


@pytest.mark.slow
@pytest.mark.parametrize("solver", [*SOLVERS, Heun("eps"), Heun("flow")], ids=repr)
@pytest.mark.parametrize("schedule", [RectifiedFlow(), Table.linear(), VE()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("steps", [1, 2, 3, 30])
def test_few_steps_to_clean_data(solver: Singlestep, schedule: Schedule, steps: int) -> None:
    for grid in (plans.trailing, plans.karras):
        plan = plans.descend(grid(schedule, steps))
        x = sample(exact(MIXTURE), (2,), plan, solver, range(64))
        assert bool(torch.isfinite(x).all())
        assert float(x.abs().max()) < (3 if solver.of != "eps" or steps == 30 else 400)
        if steps == 1 and solver.of != "flow":
            # one step to sigma = 0 can only say what is seen at its start
            start = Noise(tuple(range(64))).normal((2,), "start") * float(plan[0].here.norm)
            assert torch.allclose(x, exact(MIXTURE)(start, plan[0].here).x0, atol=1e-4)


def test_the_last_look_is_one_fewer_and_seen_is_the_first() -> None:
    asked: list[tuple[float, float | None]] = []

    class Watch(Exact):
        def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
            of = lambda l: float(l.sigma / l.alpha)
            asked.append((of(level), None if seen is None else of(seen.level)))
            return Exact.__call__(self, x, level)

    denoise = Watch(exact(MIXTURE).posterior_mean)
    levels = plans.log_snr(VE(), 3, low=0.1)
    for _ in walk(denoise, START[:2], plans.descend(levels), Singlestep("x0", 3)):
        pass
    first, second, third = levels.sigma[:3].tolist()
    at = lambda a, b, r: a ** (1 - r) * b**r
    truth = [
        (first, None),
        (at(first, second, 1 / 3), first),
        (at(first, second, 2 / 3), first),
        (second, first),
        (at(second, third, 1 / 3), second),
        (at(second, third, 2 / 3), second),
        (third, second),
    ]
    for (here, before), (level, seen) in zip(asked, truth, strict=True):
        assert here == pytest.approx(level)
        assert before == pytest.approx(seen)


def k_diffusion(
    name: str, denoise: Exact, x: Tensor, sigmas: list[float], noise: Noise, eta: float
) -> Tensor:
    """k-diffusion's sample_dpm_2_ancestral and sample_dpmpp_2s_ancestral, VE coordinates."""
    for i, (sigma, target) in enumerate(itertools.pairwise(sigmas)):
        denoised = denoise(x, Level.of(1.0, sigma)).x0
        up = min(target, eta * math.sqrt(target**2 * (sigma**2 - target**2) / sigma**2))
        down = math.sqrt(target**2 - up**2)
        d = (x - denoised) / sigma
        if down == 0:
            x = x + d * (down - sigma)
        elif name == "dpm2":
            mid = math.exp((math.log(sigma) + math.log(down)) / 2)
            x_2 = x + d * (mid - sigma)
            x = x + (x_2 - denoise(x_2, Level.of(1.0, mid)).x0) / mid * (down - sigma)
        else:
            t, t_next = -math.log(sigma), -math.log(down)
            h = t_next - t
            s = t + h / 2
            x_2 = math.exp(t - s) * x - math.expm1(-h / 2) * denoised
            x = down / sigma * x - math.expm1(-h) * denoise(x_2, Level.of(1.0, math.exp(-s))).x0
        if target > 0:
            x = x + up * noise.normal(x.shape[1:], "step", i).double()
    return x


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize(("name", "of"), [("dpm2", "eps"), ("2s", "x0")])
def test_k_diffusions_ancestral_samplers(name: str, of: str, eta: float) -> None:
    levels = plans.karras(VE(0.02, 10.0), 12)
    noise = Noise(tuple(range(64)))
    x = START / START.std() * 10
    theirs = k_diffusion(name, exact(MIXTURE), x, levels.sigma.tolist(), noise, eta)
    solver = Singlestep(of, 2)  # type: ignore[arg-type]
    ours = last(x, plans.descend(levels), solver, noise=noise, fresh=Ancestral(eta))
    assert torch.allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize("fresh", [Ancestral(1.0), Sde(0.7)], ids=repr)
@pytest.mark.parametrize("solver", [Singlestep("x0", 2), Singlestep("eps", 3)], ids=repr)
def test_fresh_noise_keeps_the_order_in_distribution(solver: Singlestep, fresh: Fresh) -> None:
    """On Gaussian data the sampler is affine, x -> a x + b + noise: its variance nears the data's at the
    solver's order."""
    data, off = exact(Mixture.gaussian([0.0], [0.5])), []
    for n in (10, 20, 40):
        levels = between(Linear(), 5.0, 0.05, n)
        variance = float(levels.alpha[0] ** 2 * 0.25 + levels.sigma[0] ** 2)
        for here, there in itertools.pairwise(levels):
            kept, added = fresh(here, there)
            (step,) = walk(
                data,
                torch.ones(1, 1, dtype=torch.float64),
                [Move(here, Level.of(there.alpha, kept))],
                solver,
            )
            assert not callable(added)
            variance = float(step.x) ** 2 * variance + added**2
        end = levels[n]
        off.append(abs(variance / float(end.alpha**2 * 0.25 + end.sigma**2) - 1))
    assert math.log2(off[1] / off[2]) > solver.order - 0.2


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Singlestep("x0", 4), "choose 1, 2 or 3"),
        (lambda: Singlestep("x0", 2, (0.5, 0.7)), "1 different parts"),
        (lambda: Singlestep("x0", 3, (0.5, 0.5), rule="exact"), "2 different parts"),
        (lambda: Singlestep("x0", 2, (1.2,)), "at most 1"),
        (lambda: Singlestep("x0", 3, (0.5, 0.9)), 'choose rule="exact"'),
        (lambda: Singlestep("x0", 3, (2 / 3, 0.9), rule="exact"), "cannot look at 2/3 first"),
        (lambda: Singlestep("flow", 2), "clock"),
    ],
)
def test_rules_that_make_no_sense_are_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        make()
