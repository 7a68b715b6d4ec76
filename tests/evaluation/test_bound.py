"""The bound against entropies that are known, and its estimates against its expectation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from evaluation.known import GAUSSIAN, STD, UNIFORM, entropy, expected, lattice, normals, quantised, smooth
from sfumato.bound import BYTES, Bins, Variance
from sfumato.errors import SettingsError
from sfumato.evaluation.mean import Mean
from sfumato.evaluation.rate_distortion import rate_distortion, reconstructions, stages
from sfumato.evaluation.variational import Bound, Continuous, Steps, bound, least_level, most_level
from sfumato.learned import Learned
from sfumato.level import Level, Levels
from sfumato.noise import Noise
from sfumato.schedules import VE, Cosine, RectifiedFlow
from sfumato.tables import Table

FINE = (-12.0, -2 * math.log(BYTES.width / 20))
"""From where nothing is known to where each byte is: the exact denoiser's bound is then the entropy."""


def test_the_entropies_are_the_ones_that_everybody_knows() -> None:
    assert entropy(UNIFORM) == 8
    assert float(GAUSSIAN.sum()) == pytest.approx(1, abs=1e-14)
    assert entropy(GAUSSIAN) == pytest.approx(7.041218, abs=5e-7)


@pytest.mark.slow
@pytest.mark.parametrize("shares", [UNIFORM, GAUSSIAN], ids=["uniform", "gaussian"])
def test_in_continuous_time_the_exact_denoiser_gives_the_entropy(shares: Tensor) -> None:
    """Information and estimation: half the integral of the error over the SNR is what was told."""
    process = Continuous(RectifiedFlow(), FINE, terms=12)
    assert expected(lattice(shares), shares, process, nodes=10) == pytest.approx(entropy(shares), abs=1e-9)


def test_the_gap_to_the_entropy_closes_as_the_steps_grow() -> None:
    gaps = [
        expected(smooth(), GAUSSIAN, Steps.of(table, steps, "large"), lean=True) - entropy(GAUSSIAN)
        for steps in (10, 100, 1000)
        for table in [Table.sampled(Cosine(), steps)]
    ]
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 0.02


@pytest.mark.parametrize("variance", ["small", "large"])
def test_between_two_levels_the_gap_falls_with_the_steps(variance: Variance) -> None:
    """In 4 bits, with the exact denoiser: of first order in 1 / steps."""
    shares, bins = quantised(16), Bins(16)
    gaps: list[float] = []
    for steps in (10, 100, 1000):
        levels = Continuous(Cosine(), (-10.0, -2 * math.log(bins.width / 16)), terms=steps - 1).edges
        process = Steps(levels, variance, bins=bins)
        gaps.append(expected(lattice(shares), shares, process) - entropy(shares))
    assert gaps[0] > 5 * gaps[1] > 0
    assert gaps[1] / gaps[2] == pytest.approx(10, rel=0.15)


def test_fewer_steps_of_one_table_are_a_looser_bound() -> None:
    table = Table.cosine()
    found = [expected(smooth(), GAUSSIAN, Steps.of(table, n), lean=True) for n in (5, 25, 100, 1000)]
    assert found == sorted(found, reverse=True)
    assert found[-1] > entropy(GAUSSIAN)


def drawn(n: int, size: int) -> Tensor:
    """n rows of bytes of N(0, STD^2), rounded."""
    x = Noise(tuple(range(n))).normal((size,), "data").double() * STD
    return BYTES.low + ((x.clamp(-1, 1) - BYTES.low) / BYTES.width).round() * BYTES.width


def test_every_term_adds_up_to_its_expectation() -> None:
    x0, table = drawn(100, 64), Table.sampled(Cosine(), 40)
    process = Steps.of(table, 40)
    found = bound(smooth(size=64), x0, process, Noise(tuple(range(100))))
    wanted = expected(smooth(), GAUSSIAN, process, lean=True)
    assert abs(found.total.value - wanted) < 4 * found.total.error
    assert found.sizes == (1,) * 39
    assert [part.value for part in found.per_part] == pytest.approx(found.parts.mean(0).tolist())
    assert found.total.error == pytest.approx(float(found.bits.std()) / 10)


@pytest.mark.parametrize("terms", [1, 4, 13])
def test_drawn_terms_are_unbiased(terms: int) -> None:
    x0, table = drawn(400, 64), Table.cosine(100)
    process = Steps.of(table, 100, "large", terms=terms)
    found = bound(smooth(size=64), x0, process, Noise(tuple(range(400))))
    wanted = expected(smooth(), GAUSSIAN, Steps.of(table, 100, "large"), lean=True)
    assert len(found.sizes) == terms
    assert sum(size for size in found.sizes if size) == 99
    assert abs(found.total.value - wanted) < 4 * found.total.error


def test_the_widest_steps_are_parts_of_their_own() -> None:
    """The steps next to clean data are the widest in log-SNR, and most bits are told there."""
    process = Steps.of(Table.cosine(), 1000, terms=50)
    assert process.sizes[-4:] == (1, 1, 1, 1)
    log_snr = Level(process.edges.alpha, process.edges.sigma).log_snr.clamp(min=-10)
    widths = [float(w) for w, size in zip(log_snr.diff(), process.sizes, strict=True) if size != 1]
    assert max(widths) < 2 * float(log_snr[-1] - log_snr[0]) / 50


def test_continuous_time_has_the_expectation_of_a_fine_table() -> None:
    x0 = drawn(200, 64)
    process = Continuous.of(Cosine(), terms=12)
    found = bound(smooth(size=64), x0, process, Noise(tuple(range(200))))
    assert abs(found.total.value - expected(smooth(), GAUSSIAN, process, nodes=6, lean=True)) < (
        4 * found.total.error
    )
    assert found.total.value > entropy(GAUSSIAN) - 4 * found.total.error


def test_what_the_decoder_costs_at_the_end_of_a_curve() -> None:
    """E of -log2(Phi(3 - e) - Phi(-3 - e)), half a bin being three deviations."""
    e, chance = normals(0.05)
    mass = torch.special.ndtr(3 - e) - torch.special.ndtr(-3 - e)
    wanted = float(-(chance * mass.log2()).sum())
    process = Continuous.of(RectifiedFlow(), terms=1)
    found = bound(smooth(size=4096), drawn(20, 4096), process, Noise(tuple(range(20)))).decoder
    assert abs(Mean.of(found).value - wanted) < 4 * Mean.of(found).error
    assert wanted == pytest.approx(0.054, abs=5e-4)


def test_where_a_process_begins_and_ends() -> None:
    assert float(most_level(RectifiedFlow()).alpha) == 0
    least = least_level(RectifiedFlow())
    assert float(least.sigma / least.alpha) == pytest.approx(BYTES.width / 6)
    assert float(least_level(VE()).sigma) == pytest.approx(0.002)
    table = Table.linear()
    assert float(least_level(table).sigma) == table.sigma[0]
    assert Continuous.of(RectifiedFlow()).log_snr[0] == pytest.approx(-2 * math.log(150))
    assert Continuous.of(Learned.straight()).log_snr == pytest.approx((-5.0, 13.3))
    steps = Steps.of(table, 25)
    assert len(steps.levels) == 25
    assert (float(steps.levels.sigma[0]), float(steps.levels.sigma[-1])) == (table.sigma[-1], table.sigma[0])
    times = table.time(Level(steps.levels.alpha, steps.levels.sigma)) * 1000
    assert torch.allclose(times, times.round(), atol=1e-9)


def test_a_process_that_ends_in_pure_noise_has_no_prior_to_tell() -> None:
    x0 = drawn(50, 64)
    table = Table.cosine(100).zero_terminal_snr()
    for terms in (None, 9):
        found = bound(smooth(size=64), x0, Steps.of(table, 100, "large", terms), Noise(tuple(range(50))))
        assert float(found.prior.abs().max()) == 0
        assert found.edges_log_snr[0] == -math.inf
        wanted = expected(smooth(), GAUSSIAN, Steps.of(table, 100, "large"), lean=True)
        assert abs(found.total.value - wanted) < 4 * found.total.error


def test_a_row_does_not_depend_on_its_batch() -> None:
    x0, noise, process = drawn(6, 8), Noise(tuple(range(6))), Steps.of(Table.cosine(50), 50, terms=7)
    whole = bound(smooth(size=8), x0, process, noise)
    some = [bound(smooth(size=8), x0[r], process, noise.take(r)) for r in ([0, 1], [2, 3, 4, 5])]
    assert torch.allclose(Bound.joined(some).bits, whole.bits, rtol=0, atol=1e-12)


def test_the_progressive_code_of_a_gaussian_lies_on_shannons_curve() -> None:
    """D(R) = std^2 2^-2R, the least distortion that any code can have at R bits a number (Shannon 1959)."""
    x0 = Noise(tuple(range(64))).normal((256,), "data").double() * STD
    bins = Bins(2**16, -2.0, 2.0)
    process = Continuous(Cosine(), (-12.0, 12.0), terms=120, bins=bins)
    found = bound(smooth(size=256), x0, process, Noise(tuple(range(64))))
    points = rate_distortion(found, bins)[:-2]
    assert points[0].rate.value < 1e-3
    for point in points[10:]:
        shannon = STD * 2.0**-point.rate.value * 255 / 4
        slack = 4 * math.hypot(point.distortion.error, math.log(2) * shannon * point.rate.error)
        assert abs(point.distortion.value - shannon) < slack + 2e-3 * shannon
    rates = [point.rate.value for point in points]
    assert rates == sorted(rates)
    last = rate_distortion(found, bins)[-1]
    assert (last.rate, last.distortion.value) == (found.total, 0.0)


def test_reconstructions_are_as_far_off_as_the_curve_says() -> None:
    x0 = drawn(64, 64)
    found = bound(smooth(size=64), x0, Steps.of(Table.cosine(200), 200), Noise(tuple(range(64))))
    shown = stages(found, 6)
    rates = [stage.rate for stage in shown]
    errors = found.squares.mean(0).sqrt()[[stage.edge for stage in shown]]
    assert rates == sorted(rates)
    assert torch.allclose(errors, torch.linspace(float(errors[0]), float(errors[-1]), 6).double(), atol=0.01)
    at = [stage.edge for stage in shown]
    levels = Levels(found.edges.alpha[at], found.edges.sigma[at])
    guesses = reconstructions(smooth(size=64), x0, levels, Noise(tuple(range(64))))
    for level, guess in zip(levels, guesses, strict=True):
        error = Mean.of(((guess - x0) ** 2).mean(1))
        left = STD**2 * float(level.sigma) ** 2 / float(level.alpha**2 * STD**2 + level.sigma**2)
        assert abs(error.value - left) < 4 * error.error + 1e-5


def test_mistakes() -> None:
    table = Table.cosine(10)
    for steps in (0, 11):
        with pytest.raises(SettingsError, match=f"{steps} steps"):
            Steps.of(table, steps)
    with pytest.raises(SettingsError, match="terms"):
        Steps.of(table, 10, terms=0)
    with pytest.raises(SettingsError, match="at least 2"):
        Mean.of(torch.ones(1))
    with pytest.raises(SettingsError, match="no learned variance"):
        bound(smooth(size=2), drawn(2, 2), Steps.of(table, 10, "learned"), Noise((0, 1)))


def test_quadrature_is_exact() -> None:
    eps, chance = normals(0.25)
    assert float((chance * eps**4).sum()) == pytest.approx(3, abs=1e-12)
