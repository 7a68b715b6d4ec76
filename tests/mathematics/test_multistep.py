"""Multistep solvers in every frame by every clock: their orders, their moments, published weights."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from diffusers import DEISMultistepScheduler, DPMSolverMultistepScheduler
from oracles import MIXTURE, exact
from slopes import LEAST, MOST, error, even_in_log_snr, even_in_time, slope

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.errors import SettingsError
from sfumato.level import Levels
from sfumato.noise import Noise
from sfumato.predictions import V
from sfumato.sampling import walk
from sfumato.schedules import VE, Cosine, Linear, RectifiedFlow, Schedule
from sfumato.solvers.clocks import Clock, tick
from sfumato.solvers.frames import Frame, at_place, frame_move, place
from sfumato.solvers.fresh import Anew, Ode, Sde
from sfumato.solvers.moves import Leg, Point
from sfumato.solvers.multistep import Multistep
from sfumato.solvers.spans import gauss_legendre, span

FRAMES: list[Frame] = ["x0", "eps", "flow", "v", V(0.5)]
CLOCKS: list[Clock] = ["log_snr", "ratio", "linear", "angle", "bounded", "time"]


def measured(solver: Multistep, grid: Callable[..., Levels], schedule: Schedule, steps: int) -> float:
    extra = solver.order - 1
    return slope(*(error(solver, grid(schedule, n, extra), extra) for n in (steps, 2 * steps)))


@pytest.mark.slow
@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_every_frame_has_its_order_by_every_clock(frame: Frame, clock: Clock) -> None:
    assert measured(Multistep(frame, clock, 3), even_in_log_snr, Linear(), 80) > 2.8


@pytest.mark.slow
@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_the_fourth_order(frame: Frame) -> None:
    for clock in ("log_snr", "angle"):
        assert measured(Multistep(frame, clock, 4), even_in_log_snr, Linear(), 160) > 3.8


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [Linear(), Cosine(), RectifiedFlow()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(("frame", "clock", "order"), [("eps", "log_snr", 2), ("v", "linear", 3)])
def test_the_order_holds_on_grids_even_in_the_schedules_time(
    schedule: Schedule, frame: Frame, clock: Clock, order: int
) -> None:
    assert measured(Multistep(frame, clock, order), even_in_time, schedule, 160) > order - 0.2


@pytest.mark.slow
def test_plms_is_of_fourth_order_where_its_equal_spacing_is_the_frames() -> None:
    """And of second order on other grids: the transfer is weighted by index, not by sigma / alpha."""
    ratio = lambda schedule, n, extra: Levels(
        torch.ones(n + extra + 1, dtype=torch.float64),
        MOST + (LEAST - MOST) / n * torch.arange(-extra, n + 1, dtype=torch.float64),
    )
    plms = Multistep("eps", "index", 4)
    assert measured(plms, ratio, Linear(), 80) > 3.8
    assert 1.8 < measured(plms, even_in_log_snr, Linear(), 80) < 2.2


def test_a_frame_move_is_the_integral_of_its_place() -> None:
    here, there = Point(0.3, 0.9), Point(0.8, 0.5)
    for frame in FRAMES:
        of_x, of_y = frame_move(frame, here, there)
        assert of_y == pytest.approx(of_x * _gain(frame, here) * (place(frame, there) - place(frame, here)))
        turned = at_place(frame, place(frame, there))
        assert math.atan2(turned.sigma, turned.alpha) == pytest.approx(math.atan2(0.5, 0.8), rel=1e-14)


def _gain(frame: Frame, point: Point) -> float:
    a, s = point
    s_data = frame.data if isinstance(frame, V) else 1.0
    return {"x0": s, "eps": a, "flow": a + s}.get(str(frame), math.hypot(a * s_data, s))


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_moments_against_a_plain_sum_over_the_place(frame: Frame, clock: Clock) -> None:
    for here, there in ((Point(0.1, 0.99), Point(0.4, 0.9)), (Point(1.0, 0.3), Point(1.0, 4.0))):
        over = span(frame, clock, here, there, there, 4)
        assert over is not None
        k0, k1 = place(frame, here), place(frame, there)
        at = [at_place(frame, k0 + (k1 - k0) * (i + 0.5) / 4000) for i in range(4000)]
        s = [(tick(point, clock) - over.start) / over.unit for point in at]
        for k in range(4):
            assert over.moments[k] == pytest.approx(math.fsum(v**k for v in s) / 4000, abs=3e-7)


def test_a_move_that_is_infinite_on_the_clock_is_of_order_one() -> None:
    """To clean data in log-SNR; on a clock that gets there x0 is extrapolated to sigma = 0."""
    here, clean = Point(0.3, 0.9), Point(1.0, 0.0)
    for frame in FRAMES:
        assert span(frame, "log_snr", here, clean, clean, 4) is None
    end = span("x0", "linear", here, clean, clean, 4)
    assert end is not None
    assert end.moments == [1.0] * 4


def test_the_quadrature_is_exact_for_polynomials() -> None:
    for k in range(28):
        assert math.fsum(w * x**k for x, w in gauss_legendre(14)) == pytest.approx(1 / (k + 1), rel=1e-13)


def test_v_holds_x0_and_eps_as_its_limits() -> None:
    for levels in (even_in_log_snr(Linear(), 8), even_in_log_snr(RectifiedFlow(), 8)):
        x = torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(5, 2) * levels[0].norm
        mixture = Mixture.gaussian([0.3, -0.2], [0.5, 0.3])
        for frame, data in (("x0", 1e-6), ("eps", 1e6)):
            ends = []
            for of in (frame, V(data), V(data, sign=-1.0)):
                for step in walk(exact(mixture), x, plans.descend(levels), Multistep(of, "log_snr", 3)):
                    end = step.x
                ends.append(end)
            assert torch.allclose(ends[0], ends[1], atol=1e-4)
            assert torch.allclose(ends[1], ends[2], atol=1e-12)


@pytest.mark.parametrize("schedule", [Linear(), RectifiedFlow()], ids=lambda s: type(s).__name__)
def test_v_of_the_datas_deviation_is_exact_on_a_gaussian(schedule: Schedule) -> None:
    """Its v is 0 everywhere, so after the first move (DDIM's) nothing is lost, however long the steps."""
    levels = even_in_log_snr(schedule, 4)
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None] * levels[0].norm
    steps = list(
        walk(exact(Mixture.gaussian([0.0], [0.4])), x, plans.descend(levels), Multistep(V(0.4), order=2))
    )
    spread = [torch.hypot(0.4 * step.level.alpha, step.level.sigma) for step in steps]
    assert torch.allclose(steps[-1].x / spread[-1], steps[0].x / spread[0], atol=1e-13)


def legs_of(points: list[Point]) -> list[Leg]:
    return [Leg(a, b, b, i == 0) for i, (a, b) in enumerate(itertools.pairwise(points))]


def test_plms_weights_come_out_and_the_move_is_ddims() -> None:  # Liu et al. 2022, eq. 9 and 11
    points = [Point(math.cos(a), math.sin(a)) for a in (1.5, 1.3, 1.2, 0.9, 0.4, 0.3)]
    rows = Multistep("eps", "index", 4).prepare(legs_of(points))
    known = [
        [1.0],
        [3 / 2, -1 / 2],
        [23 / 12, -16 / 12, 5 / 12],
        *[[55 / 24, -59 / 24, 37 / 24, -9 / 24]] * 2,
    ]
    assert rows[0].order_one == points[1]
    for (here, there), row, weights in zip(itertools.pairwise(points[1:]), rows[1:], known[1:], strict=True):
        ratio = there.alpha / here.alpha
        assert row.of_x == pytest.approx(ratio, rel=1e-14)
        assert row.past == pytest.approx([(there.sigma - ratio * here.sigma) * w for w in weights], rel=1e-12)


def test_lms_weights_against_its_own_quadrature() -> (
    None
):  # k-diffusion integrates Lagrange polynomials in sigma
    sigmas = [9.0, 7.0, 4.0, 3.0, 1.0]
    row = Multistep("eps", "ratio", 4).prepare(legs_of([Point(1.0, s) for s in sigmas]))[-1]
    seen_at = sigmas[3::-1]
    for j, ours in enumerate(row.past):
        others = [s for k, s in enumerate(seen_at) if k != j]
        basis = lambda tau: math.prod((tau - s) / (seen_at[j] - s) for s in others)  # noqa: B023
        theirs = -2.0 * math.fsum(w * basis(3.0 - 2.0 * x) for x, w in gauss_legendre(8))
        assert ours == pytest.approx(theirs, rel=1e-12)


def test_midpoint_and_b1_differ_from_exact_where_two_are_averaged_only() -> None:
    legs = legs_of([Point(1.0, s) for s in (5.0, 3.0, 2.0, 1.0)])
    exact_rows, half, b1 = (Multistep(order=3, kind=k).prepare(legs) for k in ("exact", "midpoint", "bh1"))
    assert exact_rows[2] == half[2] == b1[2]
    h, r = math.log(1.5), math.log(5 / 3) / math.log(1.5)
    total = 1 - math.exp(-h)
    for rows, mean in ((half, 0.5), (b1, 0.5 * h / total), (exact_rows, 1 / total - 1 / h)):
        assert rows[1].past == pytest.approx([total * (1 + mean / r), -total * mean / r], rel=1e-12)


Peer = DPMSolverMultistepScheduler | DEISMultistepScheduler
BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "lower_order_final": False}


@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # diffusers on numpy 2
@pytest.mark.parametrize(
    ("solver", "scheduler"),
    [
        (Multistep(kind="midpoint"), DPMSolverMultistepScheduler(solver_type="midpoint", **BETAS)),
        (Multistep(), DPMSolverMultistepScheduler(solver_type="heun", **BETAS)),
        (Multistep(order=3, kind="published"), DPMSolverMultistepScheduler(solver_order=3, **BETAS)),
        (Multistep("eps", order=2), DEISMultistepScheduler(solver_order=2, **BETAS)),
        (Multistep("eps", order=3), DEISMultistepScheduler(solver_order=3, **BETAS)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_parity_with_diffusers(solver: Multistep, scheduler: Peer) -> None:
    """Of every step but the last, whose infinite span diffusers takes at order one. Its sigmas are float."""
    scheduler.set_timesteps(12)
    ratio = scheduler.sigmas.double()
    norm = torch.hypot(torch.ones_like(ratio), ratio)
    levels = Levels(1 / norm, ratio / norm)
    x = theirs = Noise(tuple(range(16))).normal((2,), "start").double()
    ours = walk(exact(MIXTURE), x, plans.descend(levels), solver)
    for i, t in enumerate(scheduler.timesteps[:-1]):
        theirs = scheduler.step(exact(MIXTURE)(theirs, levels[i]).eps, t, theirs).prev_sample
        assert torch.allclose(next(ours).x, theirs, atol=5e-5)


def test_tapered_takes_the_last_moves_at_falling_order() -> None:
    legs = legs_of([Point(1.0, s) for s in (5.0, 3.0, 2.0, 1.0, 0.5, 0.3)])
    full, tapered = (Multistep(order=3, tapered=t).prepare(legs) for t in (False, True))
    assert tapered[:3] == full[:3]
    assert tapered[3] == Multistep(order=2).prepare(legs)[3]
    assert tapered[4] == Multistep(order=1).prepare(legs)[4]


@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")
def test_diffusers_lower_order_final() -> None:
    """DEIS of order 2 in fewer than 15 steps, down to the least noise of the table."""
    scheduler = DEISMultistepScheduler(solver_order=2, beta_start=1e-4, beta_end=0.02)
    scheduler.set_timesteps(10)
    ratio = scheduler.sigmas.double()
    norm = torch.hypot(torch.ones_like(ratio), ratio)
    levels = Levels(1 / norm, ratio / norm)
    x = theirs = Noise(tuple(range(16))).normal((2,), "start").double()
    for i, t in enumerate(scheduler.timesteps):
        theirs = scheduler.step(exact(MIXTURE)(theirs, levels[i]).eps, t, theirs).prev_sample
    for tapered, bound in ((True, 5e-5), (False, math.inf)):
        *_, last = walk(exact(MIXTURE), x, plans.descend(levels), Multistep("eps", order=2, tapered=tapered))
        apart = float((last.x - theirs).abs().max())
        assert apart < bound if tapered else apart > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [RectifiedFlow(), Cosine(), VE()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_coefficients_are_finite_and_keep_a_still_estimate(frame: Frame, schedule: Schedule) -> None:
    """On the whole way, both ends included, with fresh noise or none: the weights add up to the move."""
    for clock, steps, fresh in itertools.product(CLOCKS, (1, 2, 3, 7), (Ode(), Sde(), Anew())):
        levels = [*plans.trailing(schedule, steps)]
        legs = [
            Leg(Point.of(a), Point.of(b), Point(float(b.alpha), fresh(a, b).kept), i == 0)
            for i, (a, b) in enumerate(itertools.pairwise(levels))
        ]
        for leg, row in zip(legs, Multistep(frame, clock, 4).prepare(legs), strict=True):
            if row.order_one is None:
                of_x, of_y = frame_move(frame, leg.here, leg.kept)
                assert row.of_x == of_x
                scale = max(1.0, *map(abs, row.past))
                assert math.fsum(row.past) == pytest.approx(of_y, abs=1e-9 * scale)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SettingsError, match="order 9"):
        Multistep(order=9)
    with pytest.raises(SettingsError, match="bh1"):
        Multistep("flow", "linear", 2, "bh1")
