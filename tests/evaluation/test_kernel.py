"""The kernel distance: closed form, all pairs by hand, and how often its interval covers."""

from __future__ import annotations

import math

import pytest
import torch
from gaussians import chance, covered, gaussian, kernel_distance, mean_kernel, repeated, standard_error
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation.figure import Z95
from sfumato.evaluation.kernel import kid, row_sums

TIMES = 400


def by_hand(x: Tensor, y: Tensor) -> float:
    """The U-statistic as it is written."""
    n, m, width = len(x), len(y), x.shape[1]
    xx, yy, xy = ((a.double() @ b.double().T / width + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def sets(n: int, m: int, width: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    x, y = torch.randn(n, width, generator=generator), torch.randn(m, width, generator=generator)
    return x, 1.2 * y + 0.3


def test_it_is_the_statistic_of_all_pairs_and_its_error_the_jackknife() -> None:
    x, y = sets(23, 17)
    found = kid(x, y)
    assert found.value == pytest.approx(by_hand(x, y), rel=1e-12)
    square = 0.0
    for a, b, swap in ((x, y, False), (y, x, True)):
        left = [torch.cat([a[:i], a[i + 1 :]]) for i in range(len(a))]
        without = torch.tensor([by_hand(b, one) if swap else by_hand(one, b) for one in left])
        square += (len(a) - 1) / len(a) * float((without - without.mean()).square().sum())
    assert (found.high - found.value) / Z95 == pytest.approx(math.sqrt(square), rel=1e-6)


@pytest.mark.parametrize("block", [3, 64, 1000])
def test_blocks_and_order_change_nothing(block: int) -> None:
    x, y = sets(100, 70)
    turn = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    whole, parts = row_sums(x, y), row_sums(x[turn], y.flip(0), block)
    for sums, other, order in zip(whole, parts, (turn, torch.arange(69, -1, -1)), strict=True):
        for one, again in zip(sums, other, strict=True):
            torch.testing.assert_close(again, one[order], rtol=1e-12, atol=0)
    assert kid(x[turn], y.flip(0)).value == pytest.approx(kid(x, y).value, rel=1e-11, abs=1e-12)
    assert kid(y, x).value == pytest.approx(kid(x, y).value, rel=1e-11, abs=1e-12)


def test_the_closed_form_of_the_kernel() -> None:
    a, b = gaussian(4, 0, 1.0, 0.3), gaussian(4, 1, 1.4, -0.2)
    generator = torch.Generator().manual_seed(0)
    k = ((a.draw(400_000, generator) * b.draw(400_000, generator)).sum(1) / 4 + 1) ** 3
    assert float(k.mean()) == pytest.approx(mean_kernel(a, b), abs=4 * float(k.std()) / 400_000**0.5)
    assert kernel_distance(a, a) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "m", "scale", "shift"), [(100, 100, 1.0, 0.3), (60, 200, 1.4, 0.0), (200, 120, 0.6, 0.2)]
)
def test_it_is_unbiased_and_its_interval_covers_the_distance(
    n: int, m: int, scale: float, shift: float
) -> None:
    a, b = gaussian(16, 0), gaussian(16, 1, scale, shift)
    truth = kernel_distance(a, b)
    found = repeated(kid, a, b, (n, m), TIMES)
    assert float(found[:, 0].mean()) == pytest.approx(truth, abs=3.5 * standard_error(found))
    assert covered(found, truth) == pytest.approx(0.95, abs=chance(TIMES))


def test_of_one_law_it_is_zero_on_average_and_covered() -> None:
    a = gaussian(16, 0)
    found = repeated(kid, a, a, (100, 100), TIMES)
    assert abs(float(found[:, 0].mean())) < 3.5 * standard_error(found)
    assert covered(found, 0.0) > 0.95 - chance(TIMES)
    assert 0.3 < float((found[:, 0] < 0).double().mean()) < 0.7


def test_bad_input_is_told() -> None:
    with pytest.raises(SettingsError, match="same extractor"):
        kid(torch.zeros(9, 3), torch.zeros(9, 4))
    with pytest.raises(SettingsError, match="2 and 9 pictures"):
        kid(torch.zeros(2, 3), torch.zeros(9, 3))
