"""Precision, recall, density and coverage: the published definitions by all distances; their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from gaussians import Gaussian, chance, covered, gaussian, repeated, standard_error
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation import manifold
from sfumato.evaluation.figure import SPLITS, T95, Figure
from sfumato.evaluation.manifold import coverage_by_chance, density_coverage, precision_recall
from sfumato.noise import permutation

TIMES = 120


def by_hand(x: Tensor, y: Tensor, k: int) -> tuple[float, float, float, float]:
    """Kynkäänniemi et al.'s and Naeem et al.'s four, from all distances."""
    x, y = x.double(), y.double()
    reach_x = torch.cdist(x, x).kthvalue(k + 1, 1).values[:, None]  # its own distance, 0, is the first
    reach_y = torch.cdist(y, y).kthvalue(k + 1, 1).values[None]
    d = torch.cdist(x, y)
    inside = d < reach_x
    return (
        float(inside.any(0).double().mean()),
        float((d < reach_y).any(1).double().mean()),
        float(inside.double().sum(0).mean()) / k,
        float((d.min(1, keepdim=True).values < reach_x).double().mean()),
    )


def ours(x: Tensor, y: Tensor, k: int) -> tuple[Figure, Figure, Figure, Figure]:
    return (*precision_recall(x, y, k), *density_coverage(x, y, k))


def sets(n: int, m: int, scale: float = 0.8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + m)
    a, b = gaussian(6, 0), gaussian(6, 0, scale, 0.1)
    return a.draw(n, generator).float(), b.draw(m, generator).float()


@pytest.mark.parametrize(("n", "m", "k"), [(90, 60, 3), (60, 90, 5), (41, 40, 1)])
@pytest.mark.parametrize("block", [16, 512])
def test_the_four_by_hand(n: int, m: int, k: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifold, "BLOCK", block)
    x, y = sets(n, m)
    found = [figure.value for figure in ours(x, y, k)]
    assert found == pytest.approx(by_hand(x, y, k), abs=1e-12)
    again = [figure.value for figure in ours(x.flip(0), y[torch.randperm(m)], k)]
    assert again == pytest.approx(found, abs=1e-12)


def test_their_errors_are_those_of_the_halves() -> None:
    """Each half measured alone, cut as the module cuts it."""
    x, y = sets(80, 60)
    k, squares = 3, torch.zeros(4, dtype=torch.float64)
    for i in range(SPLITS):
        one, other = (
            permutation(len(z), 0, "halves", name, i) % 2 for z, name in ((x, "real"), (y, "generated"))
        )
        halves = [torch.tensor(by_hand(x[one == h], y[other == h], k), dtype=torch.float64) for h in (0, 1)]
        squares += (halves[0] - halves[1]).square() / 4
    errors = (squares / SPLITS).sqrt().tolist()
    whole = by_hand(x, y, k)
    found = ours(x, y, k)
    for figure, value, error, n in zip(found, whole, errors, (60, 80, 60, 80), strict=True):
        if figure is found[2]:
            assert tuple(figure) == pytest.approx(tuple(Figure.of(value, error, T95, 0.0)), abs=1e-9)
        else:
            assert tuple(figure) == pytest.approx(tuple(Figure.of_share(value, error, n)), abs=1e-9)


def test_a_set_against_itself_and_against_elsewhere() -> None:
    x, _ = sets(60, 60)
    turned = x[torch.randperm(60, generator=torch.Generator().manual_seed(3))]
    assert [figure.value for figure in ours(x, turned, 3)] == pytest.approx([1, 1, 1, 1], abs=1e-12)
    far = ours(x, x + 100, 3)
    assert [figure.value for figure in far] == [0, 0, 0, 0]
    assert all(figure.low == 0 for figure in far)
    assert 0 < far[0].high < 0.2  # none of 60: the interval keeps a width


def test_a_share_of_independent_ones_has_wilson_s_interval() -> None:
    p, n, z2 = 0.2, 50, T95**2
    found = Figure.of_share(p, math.sqrt(p * (1 - p) / n) / 2, n)  # a smaller error is not believed
    for end in found[1:]:
        assert (p - end) ** 2 == pytest.approx(z2 * end * (1 - end) / n, rel=1e-9)


def repeated_pairs(
    measure: Callable[[Tensor, Tensor], tuple[Figure, Figure]],
    a: Gaussian,
    b: Gaussian,
    sizes: tuple[int, int],
    times: int,
) -> tuple[Tensor, Tensor]:
    """Both figures of each pair of sets, two of (times, 3)."""
    second: list[Figure] = []

    def first(x: Tensor, y: Tensor) -> Figure:
        one, other = measure(x, y)
        second.append(other)
        return one

    return repeated(first, a, b, sizes, times), torch.tensor(second, dtype=torch.float64)


@pytest.mark.parametrize(("n", "m", "k"), [(60, 60, 5), (80, 40, 3)])
def test_of_one_law_density_and_coverage_are_known(n: int, m: int, k: int) -> None:
    a = gaussian(8, 0)
    dense, share = repeated_pairs(lambda x, y: density_coverage(x, y, k), a, a, (n, m), 100)
    assert float(dense[:, 0].mean()) == pytest.approx(1, abs=3.5 * standard_error(dense))
    expected = coverage_by_chance(n, m, k)
    assert float(share[:, 0].mean()) == pytest.approx(expected, abs=3.5 * standard_error(share))


def test_coverage_by_chance_is_the_published_product() -> None:
    """Naeem et al. 2020, eq. 9, for as many of each."""
    m, k = 100, 5
    product = math.prod((m - i) / (2 * m - i) for i in range(1, k + 1))
    assert coverage_by_chance(m, m, k) == pytest.approx(1 - product, rel=1e-12)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.2, 0.2)])
@pytest.mark.parametrize("measure", [precision_recall, density_coverage])
def test_the_intervals_cover_the_mean_at_n(
    measure: Callable[[Tensor, Tensor], tuple[Figure, Figure]], scale: float, shift: float
) -> None:
    """Halves have somewhat other values than the whole, for which 2 % are allowed beside chance."""
    a, b = gaussian(6, 0), gaussian(6, 1, scale, shift)
    for found in repeated_pairs(measure, a, b, (100, 100), TIMES):
        share = covered(found, float(found[:, 0].mean()))
        assert share == pytest.approx(0.95, abs=0.02 + chance(TIMES))


def test_bad_input_is_told() -> None:
    with pytest.raises(SettingsError, match="39 pictures, k = 3"):
        precision_recall(torch.zeros(39, 3), torch.zeros(50, 3))
    with pytest.raises(SettingsError, match="k from 1 to 19"):
        density_coverage(torch.zeros(50, 3), torch.zeros(50, 3), k=20)
