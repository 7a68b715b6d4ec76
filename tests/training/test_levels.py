from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.schedules import VE, Cosine, RectifiedFlow, Schedule
from sfumato.tables import Table
from sfumato.training.levels import LogitNormal, LogNormalSigma, Stratified, Uniform, Where

N = 20_000


def chi_square_p(counts: Tensor) -> float:
    """The probability of a chi-square at least this large, for equal shares (Wilson & Hilferty 1931)."""
    expected = counts.sum() / len(counts)
    chi, k = float(((counts - expected) ** 2 / expected).sum()), len(counts) - 1
    z = ((chi / k) ** (1 / 3) - (1 - 2 / (9 * k))) / math.sqrt(2 / (9 * k))
    return 0.5 * math.erfc(z / math.sqrt(2))


def times(where: Where, schedule: Schedule, seed: int = 7) -> Tensor:
    level = where(schedule, range(N), seed)
    return schedule.time(level)


@pytest.mark.parametrize("where", [Uniform(), Stratified()])
def test_uniform_choices_visit_the_nodes_of_a_table_alike(where: Where) -> None:
    node = (times(where, Table.linear(50)) * 50).round().long() - 1
    assert node.min() == 0
    assert node.max() == 49
    counts = torch.bincount(node, minlength=50).double()
    assert chi_square_p(counts) > 1e-4
    if isinstance(where, Stratified):
        assert (counts - N / 50).abs().max() <= 2  # a hundred times evener than chance


def test_levels_of_a_table_are_its_nodes_exactly() -> None:
    table = Table.cosine(100)
    nodes = table.nodes()
    for where in (Uniform(), Stratified(), LogitNormal(), LogNormalSigma()):
        level = where(table, range(500), 0)
        j = (table.time(level) * 100).round().long() - 1
        assert torch.equal(level.alpha, nodes.alpha[j]), where
        assert torch.equal(level.sigma, nodes.sigma[j]), where


@pytest.mark.parametrize("where", [Uniform(), Stratified(), LogitNormal(), LogNormalSigma()])
def test_a_level_depends_on_its_position_alone(where: Where) -> None:
    whole = where(Cosine(), range(30), 5)
    parts = [where(Cosine(), list(p), 5) for p in (range(7), range(7, 8), range(8, 30))]
    joined = torch.cat([p.sigma for p in parts])  # vector units round sin and exp by the place in the vector
    torch.testing.assert_close(whole.sigma, joined, rtol=1e-13, atol=0)
    assert not torch.equal(whole.sigma, where(Cosine(), range(30), 6).sigma)


def normal_cdf(z: Tensor) -> Tensor:
    return torch.special.ndtr(z)


def test_logit_normal_has_its_distribution() -> None:
    t = times(LogitNormal(0.3, 0.8), RectifiedFlow())
    u = normal_cdf((torch.logit(t) - 0.3) / 0.8)
    assert chi_square_p(torch.histc(u, 40, 0, 1)) > 1e-4


def test_log_normal_sigma_has_its_distribution_and_stays_inside_the_schedule() -> None:
    level = LogNormalSigma()(VE(), range(N), 1)
    u = normal_cdf(((level.sigma / level.alpha).log() + 1.2) / 1.2)
    assert chi_square_p(torch.histc(u, 40, 0, 1)) > 1e-4
    far = LogNormalSigma(mean=20.0)(VE(), range(10), 1)
    assert torch.allclose(far.sigma, torch.full_like(far.sigma, 80.0))


def test_the_distribution_is_refused_by_the_wrong_one() -> None:
    """The test itself bites: another spread is told apart."""
    level = LogNormalSigma(std=1.3)(VE(), range(N), 1)
    u = normal_cdf(((level.sigma / level.alpha).log() + 1.2) / 1.2)
    assert chi_square_p(torch.histc(u, 40, 0, 1)) < 1e-4


def test_golden_ratio_covers_any_window() -> None:
    t = Stratified()(RectifiedFlow(), range(1000, 1064), 3).sigma.sort().values
    gaps = torch.diff(t, append=t[:1] + 1)
    assert gaps.max() < 2.7 / 64


def test_no_spread_is_refused() -> None:
    with pytest.raises(SettingsError, match="above 0"):
        LogitNormal(std=0.0)
