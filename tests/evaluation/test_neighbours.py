"""Nearest neighbours against all distances, one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation import neighbours
from sfumato.evaluation.neighbours import nearest
from sfumato.noise import Noise


def points(n: int, width: int, use: str) -> Tensor:
    return Noise((n,)).normal((n, width), use)[0]


def by_hand(queries: Tensor, among: Tensor, k: int, own: bool = False) -> tuple[Tensor, Tensor]:
    every = torch.stack([(among.double() - one).square().sum(1).sqrt() for one in queries.double()])
    if own:
        every.fill_diagonal_(torch.inf)
    distances, order = every.sort(stable=True, dim=1)
    return distances[:, :k], order[:, :k]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_ROWS", 37)


@pytest.mark.parametrize("k", [1, 4, 90])
def test_it_is_the_search_by_hand(k: int) -> None:
    queries, among = points(80, 12, "queries"), points(90, 12, "among")
    distances, indices = nearest(queries, among, k)
    expected, order = by_hand(queries, among, k)
    torch.testing.assert_close(distances, expected, rtol=1e-12, atol=0)
    assert torch.equal(indices, order)


@pytest.mark.parametrize("k", [1, 3, 79])
def test_points_are_not_their_own_neighbours(k: int) -> None:
    among = points(80, 5, "among")
    distances, indices = nearest(among, among, k, exclude_self=True)
    expected, order = by_hand(among, among, k, own=True)
    torch.testing.assert_close(distances, expected, rtol=1e-12, atol=0)
    assert torch.equal(indices, order)
    assert float(distances.min()) > 0


def test_near_copies_far_from_the_origin_keep_their_digits() -> None:
    """|a|^2 + |b|^2 - 2 a.b would leave nothing of these distances, a 1e-10th of |a|."""
    queries = points(30, 40, "queries").double() * 1e-2 + 1e4
    step = points(30, 40, "step").double() * 1e-7
    among = torch.cat([points(100, 40, "among").double() * 1e-2 + 1e4, queries + step, queries - 3 * step])
    distances, indices = nearest(queries, among, 2)
    assert indices.tolist() == [[100 + i, 130 + i] for i in range(30)]
    expected, _ = by_hand(queries, among, 2)
    torch.testing.assert_close(distances, expected, rtol=1e-9, atol=0)


def test_many_copies_do_not_hide_the_nearest() -> None:
    """More points within rounding of each other than are computed anew: the row is looked at once more."""
    query = torch.full((1, 8), 1e6, dtype=torch.float64)
    away = torch.arange(60, 0, -1, dtype=torch.float64)[:, None] * 1e-4
    distances, indices = nearest(query, query + away, 1)
    assert indices.item() == 59
    assert distances.item() == pytest.approx(1e-4 * 8**0.5, rel=1e-5)
    twins = torch.cat([query + 1, query.repeat(40, 1)])
    assert nearest(query, twins, 20).distances.abs().max() == 0


def test_memory_maps_are_read_in_parts(tmp_path: Path) -> None:
    among = points(200, 6, "among")
    among.numpy().tofile(tmp_path / "rows")
    mapped = torch.from_numpy(np.memmap(tmp_path / "rows", np.float32, "c", shape=(200, 6)))
    queries = points(50, 6, "queries")
    for one, other in zip(nearest(queries, mapped, 3), nearest(queries, among, 3), strict=True):
        assert torch.equal(one, other)


def test_what_cannot_be_asked() -> None:
    a, b = torch.zeros(5, 3), torch.zeros(4, 3)
    assert nearest(a[:0], b, 2).distances.shape == (0, 2)
    for words, said in (
        ({"queries": a, "among": torch.zeros(4, 2)}, "neighbours are of points"),
        ({"queries": a, "among": b, "k": 5}, "from 1 to 4"),
        ({"queries": b, "among": b, "k": 4, "exclude_self": True}, "from 1 to 3"),
        ({"queries": a, "among": b, "exclude_self": True}, "among the same points"),
    ):
        with pytest.raises(SettingsError, match=said):
            nearest(**words)
