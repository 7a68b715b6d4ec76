"""Schedules: exact ends, exact inverses, the published tables (rows N1, N2, N4 of the reliability plan)."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sfumato import plans
from sfumato.errors import SettingsError
from sfumato.level import CLEAN, PURE_NOISE, Level
from sfumato.schedules import (
    VE,
    ConstantBeta,
    Cosine,
    Linear,
    LinearAlphaBar,
    RectifiedFlow,
    ScaledLinear,
    Schedule,
    Shifted,
    Sigmoid,
)
from sfumato.tables import Table

CURVES: list[Schedule] = [
    Linear(),
    ScaledLinear(),
    Cosine(),
    Cosine(0.0),
    Sigmoid(),
    Sigmoid(-2.0, 3.0, 0.7),
    ConstantBeta(),
    LinearAlphaBar(),
    RectifiedFlow(),
    VE(),
    Shifted(Cosine(), 0.3),
    Shifted(RectifiedFlow(), 3.0),
    Table.linear(),
    Table.cosine(),
    Table.scaled_linear(),
    Table.constant(),
    Table.linear().zero_terminal_snr(),
    Table.sampled(Sigmoid(), 100),
]
PRESERVING = [s for s in CURVES if not isinstance(s, RectifiedFlow | VE) and "RectifiedFlow" not in repr(s)]


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("schedule", CURVES, ids=lambda s: repr(s)[:30])
class TestEveryCurve:
    def test_time_is_the_exact_inverse_of_level(self, schedule: Schedule) -> None:
        t = torch.linspace(0, 1, 4001, dtype=torch.float64)
        assert float((schedule.time(schedule.level(t)) - t).abs().max()) < 1e-12

    def test_time_looks_at_the_ratio_only(self, schedule: Schedule) -> None:
        level = schedule.level(torch.linspace(0.01, 0.99, 50, dtype=torch.float64))
        assert torch.allclose(schedule.time(level.scaled(7.3)), schedule.time(level), atol=1e-12, rtol=0)

    def test_noise_grows_with_time(self, schedule: Schedule) -> None:
        angle = schedule.level(torch.linspace(0, 1, 4001, dtype=torch.float64)).angle
        assert bool((angle.diff() > 0).all())

    def test_starts_at_clean_data_or_at_the_least_noise_it_names(self, schedule: Schedule) -> None:
        level = schedule.level(f64(0.0))
        assert float(level.alpha) == 1
        assert float(level.sigma) == (0.002 if isinstance(schedule, VE) else 0)

    def test_pure_noise_and_clean_data_have_a_time_on_every_curve(self, schedule: Schedule) -> None:
        noisy, clean = float(schedule.time(PURE_NOISE)), float(schedule.time(CLEAN))
        assert noisy > 1 - 1e-12  # or beyond, infinitely far perhaps: never NaN
        assert clean < 1e-12


@pytest.mark.parametrize(
    "made",
    [
        lambda: VE(80.0, 0.002),
        lambda: VE(0.0, 80.0),
        lambda: Sigmoid(3.0, 3.0),
        lambda: Sigmoid(tau=0.0),
        lambda: Shifted(Cosine(), 0.0),
        lambda: Shifted(Cosine(), -2.0),
    ],
)
def test_a_curve_that_does_not_grow_noisier_is_refused(made: Callable[[], Schedule]) -> None:
    with pytest.raises(SettingsError, match=r"rise|above"):
        made()


@pytest.mark.parametrize("schedule", PRESERVING, ids=lambda s: repr(s)[:30])
def test_variance_preserving_curves_stay_on_the_circle_near_clean_data_too(schedule: Schedule) -> None:
    t = torch.cat([torch.logspace(-9, 0, 200, dtype=torch.float64)])
    level = schedule.level(t)
    assert torch.allclose(level.norm, torch.ones_like(t), atol=1e-14, rtol=0)
    # sqrt(1 - alpha^2) would be 0 or wrong in its first digit at t = 1e-9
    assert bool((level.sigma > 0).all())
    assert bool((level.sigma.diff() > 0).all())


def test_sigma_keeps_its_digits_where_one_minus_alpha_squared_has_none() -> None:
    t = 1e-12
    # -2 log alpha = lo t + O(t^2), so sigma^2 = lo t to 12 digits.
    assert float(Linear().level(f64(t)).sigma) == pytest.approx(math.sqrt(0.1 * t), rel=1e-9)
    naive = math.sqrt(1 - float(Linear().level(f64(t)).alpha) ** 2)
    assert abs(naive / math.sqrt(0.1 * t) - 1) > 1e-4


@pytest.mark.parametrize("schedule", [Cosine(), Cosine(0.0), Sigmoid(), LinearAlphaBar(), RectifiedFlow()])
def test_pure_noise_is_exact(schedule: Schedule) -> None:
    level = schedule.level(f64(1.0))
    assert float(level.alpha) == 0
    assert float(level.sigma) == 1


def test_published_closed_forms() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    s = 0.008
    published = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2 / math.cos(s / (1 + s) * math.pi / 2) ** 2
    assert torch.allclose(Cosine(s).level(t).alpha ** 2, published, atol=1e-15)
    # "alpha_t = cos^2(pi t / 2T)" of popular texts is alpha-bar, not alpha.
    assert torch.allclose(Cosine(0.0).level(t).alpha ** 2, torch.cos(math.pi * t / 2) ** 2, atol=1e-15)
    assert torch.allclose(ConstantBeta(3.0).level(t).alpha ** 2, torch.exp(-3 * t), atol=1e-15)
    assert torch.allclose(LinearAlphaBar(0.9).level(t).alpha ** 2, 1 - 0.9 * t, atol=1e-15)
    g = lambda z: torch.sigmoid(z.double())
    v, lo, hi = g(-3 + 6 * t), g(f64(-3.0)), g(f64(3.0))
    assert torch.allclose(Sigmoid().level(t).alpha ** 2, (hi - v) / (hi - lo), atol=1e-14)


def test_constant_beta_is_one_minus_beta_t_to_first_order() -> None:
    t = 1e-3
    assert float(ConstantBeta(0.5).level(f64(t)).alpha ** 2) == pytest.approx(1 - 0.5 * t, abs=0.25 * t**2)


@pytest.mark.parametrize("b", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("base", [Cosine(), Linear(), RectifiedFlow()])
def test_shifting_moves_the_log_snr_by_two_log_b(base: Schedule, b: float) -> None:
    t = torch.linspace(0.01, 0.9, 50, dtype=torch.float64)
    moved = Shifted(base, b).level(t).log_snr - base.level(t).log_snr
    assert torch.allclose(moved, torch.full_like(moved, 2 * math.log(b)), atol=1e-10)


def test_shifting_rectified_flow_is_the_resolution_shift_of_sd3() -> None:
    t, shift = torch.linspace(0, 1, 50, dtype=torch.float64), 3.0
    published = shift * t / (1 + (shift - 1) * t)  # Esser et al. 2024, eq. 23
    assert torch.allclose(Shifted(RectifiedFlow(), 1 / shift).level(t).sigma, published, atol=1e-14)


@pytest.mark.parametrize("steps", [1, 2, 10, 50, 1000, 4000])
@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "cosine", "constant", "sigmoid", "zero"])
def test_tables_are_float64_falling_and_in_range(kind: str, steps: int) -> None:  # N1
    table = {
        "linear": lambda: Table.linear(steps),
        "scaled_linear": lambda: Table.scaled_linear(steps),
        "cosine": lambda: Table.cosine(steps),
        "constant": lambda: Table.constant(0.01, steps),
        "sigmoid": lambda: Table.sampled(Sigmoid(), steps),
        "zero": lambda: Table.linear(steps).zero_terminal_snr(),
    }[kind]()
    alpha_bar = table.alpha_bar
    assert alpha_bar.dtype == torch.float64
    assert bool((alpha_bar.diff() < 0).all())
    assert torch.allclose(alpha_bar.float().double(), alpha_bar, rtol=1e-6, atol=0)  # a float32 product: 4e-7
    assert bool(((alpha_bar >= 0) & (alpha_bar < 1)).all())
    assert bool(((table.betas > 0) & (table.betas <= 1)).all())
    assert bool((table.nodes().log_snr.diff() < 0).all())
    nodes = table.level(torch.arange(1, steps + 1, dtype=torch.float64) / steps)
    assert torch.equal(nodes.alpha**2, alpha_bar)  # nodes are met exactly
    assert torch.equal(table.time(nodes), torch.arange(1, steps + 1, dtype=torch.float64) / steps)


def test_tables_agree_with_diffusers() -> None:
    for ours, name, more in [
        (Table.linear(), "linear", {}),
        (Table.scaled_linear(), "scaled_linear", {"beta_start": 0.00085, "beta_end": 0.012}),
        (Table.cosine(), "squaredcos_cap_v2", {}),
    ]:
        theirs = DDPMScheduler(beta_schedule=name, **more).alphas_cumprod.double()
        assert float(((ours.alpha_bar - theirs) / theirs).abs().max()) < 2e-5  # theirs is a float32 product
        betas = DDPMScheduler(beta_schedule=name, **more).betas.double()
        exact = torch.cumprod(1 - betas, 0)
        assert float(((Table.from_betas(betas).alpha_bar - exact) / exact).abs().max()) < 1e-12


def test_ends() -> None:  # N2
    for table in (Table.linear(), Table.scaled_linear(), Table.cosine()):
        assert float(table.alpha_bar[0]) >= 0.999
    assert float(Table.linear().alpha_bar[-1].sqrt()) == pytest.approx(6.35e-3, rel=1e-2)
    assert float(Table.scaled_linear().alpha_bar[-1].sqrt()) == pytest.approx(0.068, rel=1e-2)
    assert float(Table.cosine().alpha_bar[-1].sqrt()) == pytest.approx(4.9e-5, rel=1e-2)


def test_zero_terminal_snr_is_exact_and_keeps_the_first_node() -> None:
    for table in (Table.linear(), Table.scaled_linear(), Table.cosine()):
        zero = table.zero_terminal_snr()
        assert float(zero.alpha_bar[-1]) == 0
        assert float(zero.alpha[0]) == pytest.approx(table.alpha[0], rel=1e-14)
        theirs = DDPMScheduler(trained_betas=table.betas.tolist(), rescale_betas_zero_snr=True).alphas_cumprod
        assert torch.allclose(zero.alpha_bar.float(), theirs, atol=2e-5)


@given(st.lists(st.floats(1e-6, 0.5), min_size=1, max_size=40))
def test_any_table_of_betas(betas: list[float]) -> None:
    table = Table.from_betas(betas)
    assert torch.allclose(table.betas, torch.tensor(betas, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    again = Table.from_alpha_bars(table.alpha_bar)
    assert torch.allclose(again.alpha_bar, table.alpha_bar, rtol=1e-12, atol=0)
    t = torch.linspace(0, 1, 33, dtype=torch.float64)
    assert torch.allclose(table.time(table.level(t)), t, atol=1e-6)


@pytest.mark.parametrize("betas", [[], [0.1, -0.1], [0.0], [1.5], [float("nan")]])
def test_a_table_that_is_none_is_refused_in_a_sentence(betas: list[float]) -> None:
    with pytest.raises(SettingsError, match=r"betas|noisier|at least one"):
        Table.from_betas(betas)
    with pytest.raises(SettingsError, match=r"alpha-bars|noisier"):
        Table.from_alpha_bars([0.5, 0.7])


def test_a_time_outside_the_table_is_told() -> None:
    table = Table.linear()
    assert float(table.time(Level.of(1.0, 1000.0))) > 1
    assert float(VE().time(Level.of(1.0, 0.001))) < 0


GRIDS = [plans.uniform, plans.trailing, plans.leading, plans.log_snr, plans.karras]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: g.__name__)
@pytest.mark.parametrize("schedule", CURVES, ids=lambda s: repr(s)[:30])
def test_a_grid_has_exactly_n_moves_falls_and_ends_clean(grid: plans.Grid, schedule: Schedule) -> None:  # N4
    numbers = [1, 2, 3, 7, 50, 100] + ([99, 999, 1000] if isinstance(schedule, Table) else [])
    for n in numbers:
        if grid is plans.leading and isinstance(schedule, Table) and n > schedule.steps:
            continue
        levels = grid(schedule, n)
        moves = plans.descend(levels)
        assert len(moves) == n
        assert all(float(a.angle) > float(b.angle) for a, b in zip(levels, list(levels)[1:], strict=False))
        assert (float(levels[n].alpha), float(levels[n].sigma)) == (1.0, 0.0)
        assert all(float(a.there.sigma) == float(b.here.sigma) for a, b in itertools.pairwise(moves))


@pytest.mark.parametrize("grid", [plans.trailing, plans.interior, plans.late], ids=lambda g: g.__name__)
@pytest.mark.parametrize("n", [10, 11, 25, 100])
def test_more_steps_than_a_table_has_stay_above_its_least_trained_noise(grid: plans.Grid, n: int) -> None:
    table = Table.linear(10, 0.01, 0.9)
    levels = grid(table, n)
    times = table.time(Level(levels.alpha[:n], levels.sigma[:n]))
    assert len(levels) == n + 1
    assert bool((times.diff() < 0).all())
    assert float(times[-1]) > 0.1 - 1e-12


@pytest.mark.parametrize("n", range(1, 101))
def test_trailing_and_uniform_start_at_the_noisiest_level_for_every_number_of_steps(n: int) -> None:  # N4
    table = Table.linear(100)
    assert all(len(plans.descend(grid(table, n))) == n for grid in GRIDS)
    for grid in (plans.trailing, plans.uniform, plans.log_snr, plans.karras):
        assert float(grid(table, n).sigma[0]) == pytest.approx(table.sigma[-1], rel=1e-12)
    # leading starts lower by definition: node (n - 1) floor(T / n), as published
    assert float(plans.leading(table, n).sigma[0]) == pytest.approx(
        table.sigma[(n - 1) * (100 // n)], rel=1e-12
    )


def test_grids_stand_where_diffusers_stands() -> None:
    from diffusers import DDIMScheduler

    table = Table.linear()
    for n in (1, 7, 10, 50, 1000):
        for grid, spacing in [
            (plans.leading, "leading"),
            (plans.trailing, "trailing"),
            (plans.uniform, "linspace"),
        ]:
            theirs = DDIMScheduler(timestep_spacing=spacing)
            theirs.set_timesteps(n)
            levels = grid(table, n)
            times = table.time(Level(levels.alpha[:n], levels.sigma[:n])) * 1000 - 1
            if spacing == "linspace" and n == 1:
                continue  # one step of "linspace" stands at t = 0 in diffusers: from no noise at all
            assert float((times - theirs.timesteps.double()).abs().max()) <= 0.5 + 1e-6  # theirs are rounded


def test_karras_is_the_published_spacing() -> None:
    n, rho, lo, hi = 18, 7.0, 0.002, 80.0
    i = torch.arange(n, dtype=torch.float64)
    published = (hi ** (1 / rho) + i / (n - 1) * (lo ** (1 / rho) - hi ** (1 / rho))) ** rho
    levels = plans.karras(VE(lo, hi), n)
    assert torch.allclose(levels.sigma[:n], published, rtol=1e-10)


def test_rounding_a_plan_to_nodes_moves_the_plan_itself() -> None:
    table = Table.linear()
    levels = plans.at_nodes(table, plans.karras(table, 20))
    steps = table.time(Level(levels.alpha, levels.sigma)) * 1000
    assert torch.equal(steps, steps.round())
    assert len(plans.at_nodes(table, plans.karras(table, 900))) < 901  # nodes that coincide are taken once


@pytest.mark.parametrize("n", [0, -3])
def test_no_steps_at_all_is_refused(n: int) -> None:
    for grid in GRIDS:
        for schedule in (Cosine(), Table.linear(), VE()):
            with pytest.raises(SettingsError, match="at least 1"):
                grid(schedule, n)
    with pytest.raises(SettingsError, match="at most"):
        plans.leading(Table.linear(10), 11)
