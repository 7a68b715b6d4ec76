"""The Fréchet distance and its moments: closed forms, derivatives by hand, and how often intervals cover."""

from __future__ import annotations

import math

import pytest
import torch
from gaussians import apart, chance, covered, gaussian, repeated, standard_error
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation.figure import Z95
from sfumato.evaluation.frechet import fid, fid_infinity, frechet_distance
from sfumato.evaluation.moments import Moments, in_blocks, moments

TIMES = 300


def rows(n: int, width: int, seed: int) -> Tensor:
    """float32, far from the origin, as features are."""
    generator = torch.Generator().manual_seed(seed)
    return 5 + torch.randn(n, width, generator=generator) * torch.linspace(0.01, 3, width)


@given(cuts=st.lists(st.integers(1, 299), max_size=6), seed=st.integers(0, 99), merged=st.booleans())
@settings(max_examples=15, deadline=None)
def test_moments_do_not_know_order_or_batches(cuts: list[int], seed: int, merged: bool) -> None:
    x = rows(300, 7, 1)
    shuffled = x[torch.randperm(300, generator=torch.Generator().manual_seed(seed))]
    parts = shuffled.tensor_split(sorted(set(cuts)))
    if merged and len(parts) > 1:
        found = moments(parts[1:]).merge(Moments.of(parts[0]))
    else:
        found = moments(parts)
    exact = x.double()
    torch.testing.assert_close(found.mean, exact.mean(0), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found.covariance, torch.cov(exact.T), rtol=1e-12, atol=1e-12)
    assert found.count == 300


def test_moments_keep_their_digits_far_from_the_origin() -> None:
    x = rows(400, 5, 2).double()
    far = moments(in_blocks(x + 1e6, 64)).covariance
    torch.testing.assert_close(far, torch.cov((x + 1e6).T), rtol=1e-9, atol=1e-9)


def test_no_pictures_have_no_moments() -> None:
    with pytest.raises(SettingsError, match="no pictures"):
        moments([torch.zeros(0, 3)])
    with pytest.raises(SettingsError, match="1 picture has no covariance"):
        _ = moments([torch.zeros(1, 3)]).covariance


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.5, 0.3), (3.0, -1.0)])
def test_the_distance_of_gaussians(scale: float, shift: float) -> None:
    a, b, c = gaussian(6, 0), gaussian(6, 0, scale, shift), gaussian(6, 1, scale, shift)
    along = sum((1 / i) * (1 - scale) ** 2 for i in range(1, 7)) + 6 * shift**2  # the same axes
    assert frechet_distance(a.moments(), b.moments()) == pytest.approx(along, abs=1e-12)
    assert frechet_distance(a.moments(), c.moments()) == pytest.approx(apart(a, c), rel=1e-9)
    assert frechet_distance(c.moments(), a.moments()) == pytest.approx(apart(a, c), rel=1e-9)


@pytest.mark.parametrize(("n", "width"), [(200, 12), (13, 12), (12, 12), (5, 40), (2, 3)])
def test_nothing_is_apart_from_itself(n: int, width: int) -> None:
    x = rows(n, width, 3) * 100
    scale = float(x.double().var(0).sum())
    again = x[torch.randperm(n, generator=torch.Generator().manual_seed(1))]
    for y in (x, again):
        found = fid(x, y)
        assert 0 <= found.value < 1e-10 * scale
        assert found.high < 1e-9 * scale
    assert fid(x, x.mean(0).expand(n, -1)).value == pytest.approx(scale, rel=1e-6)  # all alike: no covariance


@given(seed=st.integers(0, 10_000), n=st.integers(2, 12), m=st.integers(2, 12), width=st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_it_is_never_negative_and_knows_no_order(seed: int, n: int, m: int, width: int) -> None:
    x, y = rows(n, width, seed), rows(m, width, seed + 1)
    found, other = fid(x, y), fid(y.flip(0), x.flip(0))
    assert 0 <= found.low <= found.value <= found.high
    assert found.value == pytest.approx(other.value, rel=1e-9, abs=1e-9)
    if min(n, m) > width + 1:  # else a derivative may not exist
        assert found.high == pytest.approx(other.high, rel=1e-6, abs=1e-6)


def weighted(x: Tensor, picture: int, weight: float) -> Moments:
    """With one picture's weight changed, and n - 1 below as ever."""
    weights = torch.ones(len(x), dtype=torch.float64)
    weights[picture] += weight
    weights *= len(x) / weights.sum()
    mean = (weights[:, None] * x).sum(0) / len(x)
    return Moments(len(x), mean, ((x - mean).T * weights) @ (x - mean))


@pytest.mark.parametrize(("n", "m", "width"), [(9, 12, 3), (30, 8, 5)])
def test_the_error_is_that_of_the_derivatives_by_hand(n: int, m: int, width: int) -> None:
    x, y = rows(n, width, 5).double(), 1.3 * rows(m, width, 6).double()
    step, a, b = 1e-5, Moments.of(x), Moments.of(y)

    def slope(first: tuple[Moments, Moments], second: tuple[Moments, Moments]) -> float:
        return (frechet_distance(*first) - frechet_distance(*second)) / (2 * step)

    of_x = [slope((weighted(x, i, step), b), (weighted(x, i, -step), b)) for i in range(n)]
    of_y = [slope((a, weighted(y, i, step)), (a, weighted(y, i, -step))) for i in range(m)]
    # the derivatives sum to 0, and each is phi / n
    square = sum(v * v for v in of_x) * n / (n - 1) + sum(v * v for v in of_y) * m / (m - 1)
    found = fid(x, y)
    assert (found.high - found.value) / Z95 == pytest.approx(math.sqrt(square), rel=1e-5)


@pytest.mark.parametrize(
    ("n", "m", "scale", "shift"),
    [(100, 100, 1.3, 0.2), (60, 150, 0.6, 0.1), (24, 30, 1.5, 0.4)],  # the last with fewer than D pictures
)
def test_its_interval_covers_the_distance_at_n(n: int, m: int, scale: float, shift: float) -> None:
    width = 32 if n < 32 else 8
    found = repeated(fid, gaussian(width, 0), gaussian(width, 1, scale, shift), (n, m), TIMES)
    assert covered(found, float(found[:, 0].mean())) == pytest.approx(0.95, abs=chance(TIMES))


def test_between_sets_of_one_law_it_is_too_wide_by_the_root_of_two() -> None:
    a = gaussian(12, 0)
    found = repeated(fid, a, a, (80, 80), TIMES)
    half = float((found[:, 2] - found[:, 0]).mean() / found[:, 0].std())
    assert Z95 < half < Z95 * math.sqrt(2) * 1.1
    assert covered(found, float(found[:, 0].mean())) > 0.95 - chance(TIMES)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.3, 0.2)])
def test_infinitely_many_pictures_have_no_bias(scale: float, shift: float) -> None:
    a, b = gaussian(10, 0), gaussian(10, 1, scale, shift)
    truth = apart(a, b)
    found, biased = (repeated(f, a, b, (60, 60), 200) for f in (fid_infinity, fid))
    assert biased[:, 0].mean() - truth > 10 * standard_error(biased)
    left = abs(float(found[:, 0].mean()) - truth)
    assert left < 3.5 * standard_error(found) + 0.05 * float(biased[:, 0].mean() - truth)
    assert covered(found, truth) > 0.95 - chance(200)
    assert covered(found, truth) < 0.95 + chance(200) or (scale, shift) == (1.0, 0.0)


def test_bad_input_is_told() -> None:
    with pytest.raises(SettingsError, match="features of 3 and of 4 numbers"):
        fid(torch.zeros(9, 3), torch.zeros(9, 4))
    with pytest.raises(SettingsError, match="at least 40 of each set"):
        fid_infinity(torch.zeros(50, 20), torch.zeros(39, 20))
