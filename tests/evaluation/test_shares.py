"""Shares and what chance makes of them, against enumeration and closed forms."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch

from sfumato.evaluation.draws import again, drawn, plausible
from sfumato.evaluation.shares import Z95, Share, below, chance, most


@pytest.mark.parametrize(("count", "of"), [(0, 7), (3, 10), (37, 1000), (7, 7)])
def test_the_interval_ends_where_the_share_is_just_believable(count: int, of: int) -> None:
    share = Share(count, of)
    low, high = share.interval
    assert 0 <= low <= share.value <= high <= 1
    for p in (low, high):
        if 0 < p < 1:
            assert abs(share.value - p) == pytest.approx(Z95 * math.sqrt(p * (1 - p) / of), rel=1e-9)


def test_the_interval_covers_as_it_says() -> None:
    """Summed over all outcomes, of 200 with p = 0.03: Wilson's interval covers it in about 95 %."""
    covered = sum(
        math.comb(200, k) * 0.03**k * 0.97 ** (200 - k)
        for k in range(60)
        if Share(k, 200).interval[0] <= 0.03 <= Share(k, 200).interval[1]
    )
    assert 0.93 < covered < 0.975


@pytest.mark.parametrize(("n", "known", "rank"), [(4, 5, 1), (5, 4, 2), (3, 6, 6)])
def test_below_is_what_all_orders_give(n: int, known: int, rank: int) -> None:
    """Which of the n + known places the known ones take: all equally likely."""
    counts = [0] * (n + 1)
    for places in combinations(range(n + known), known):
        counts[places[rank - 1] - (rank - 1)] += 1
    expected = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    torch.testing.assert_close(below(n, known, rank), expected, rtol=1e-10, atol=1e-12)


def test_below_has_its_mean_and_adds_up() -> None:
    p = below(1000, 525, 5)
    assert float(p.sum()) == pytest.approx(1, abs=1e-9)
    mean = float((p * torch.arange(1001)).sum())
    assert mean == pytest.approx(1000 * 5 / 526, rel=1e-9)


def test_the_most_is_the_last_that_is_believable() -> None:
    edge = most(500, 200, 2, 0.01)
    assert chance(edge, 500, 200, 2) > 0.01 >= chance(edge + 1, 500, 200, 2)
    assert chance(0, 500, 200, 2) == pytest.approx(1)


def test_draws_have_the_moments_of_their_laws() -> None:
    """Dirichlet(c + 1/2): mean m = (c + 1/2) / s, variance m (1 - m) / (s + 1) with s = n + K / 2."""
    counts = torch.tensor([0, 3, 17])
    found = plausible(counts, 4000, "test")
    s = 20 + 1.5
    mean = (counts.double() + 0.5) / s
    spread = (mean * (1 - mean) / (s + 1)).sqrt()
    assert bool(((found.mean(0) - mean).abs() < 4 * spread / 4000**0.5).all())
    torch.testing.assert_close(found.std(0), spread, rtol=0.06, atol=0)
    shares = torch.tensor([0.2, 0.0, 0.8])
    many = drawn(shares, 50, 2000, "test").double()
    assert bool((many.sum(1) == 50).all())
    assert float(many[:, 1].max()) == 0
    assert float(many[:, 0].mean()) == pytest.approx(10, abs=4 * (50 * 0.16 / 2000) ** 0.5)
    assert len({*again(1000, 3, "test")[2].tolist()}) == pytest.approx(1000 * (1 - math.exp(-1)), abs=40)
