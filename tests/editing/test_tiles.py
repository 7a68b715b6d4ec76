"""Tiles: what is known pixel by pixel does not change by being cut, and no seam shows."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from mathematics.oracles import exact, f64
from sfumato.data.toy import Mixture
from sfumato.denoiser import Exact
from sfumato.editing.tiles import Tiled, Tiling
from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.noise import Noise

TILING = Tiling((11, 9), (4, 5), 2)
LEVEL = Level.of(0.8, 0.6)


def test_tiles_cover_and_share() -> None:
    for tiling in (
        TILING,
        Tiling((4, 5), (4, 5), 3),
        Tiling((64, 64), (16, 16), 0),
        Tiling((5, 9), (4, 5), 3),
    ):
        h, w = tiling.tile
        ones = tiling.put(tiling.share, 1)
        torch.testing.assert_close(ones, torch.ones(1, 1, *tiling.size, dtype=torch.float64))
        assert all(top + h <= tiling.size[0] and left + w <= tiling.size[1] for top, left in tiling.corners)
        for axis in (0, 1):
            starts = sorted({corner[axis] for corner in tiling.corners})
            shared = [a + tiling.tile[axis] - b for a, b in pairwise(starts)]
            assert all(part >= tiling.overlap for part in shared)


def test_independent_pixels_are_denoised_as_if_whole() -> None:
    """A mixture in every pixel for itself, which knows no neighbours: cut or whole, the same belief."""
    pixel = Mixture(f64(0.4, 0.6), f64(-0.7, 0.5)[:, None], f64(0.2, 0.3)[:, None])
    each = Exact(
        lambda x, level: pixel.posterior_mean(x.reshape(-1, 1), level.alpha, level.sigma).reshape(x.shape)
    )
    x = Noise((1, 2, 3)).normal((2, 11, 9), "x").double()
    tiled = Tiled(each, TILING, 3)
    torch.testing.assert_close(tiled(x, LEVEL).x0, each(x, LEVEL).x0, rtol=0, atol=1e-12)
    torch.testing.assert_close(tiled.take([2, 0])(x[[2, 0]], LEVEL).x0, each(x, LEVEL).x0[[2, 0]])


def test_every_tile_keeps_its_own_condition_and_picture() -> None:
    """Rows of the inner denoiser are tile by tile; taking pictures takes all of their tiles."""

    class Numbered(Exact):
        rows: tuple[int, ...]

        def __call__(self, x, level, seen=None):  # type: ignore[no-untyped-def]
            numbers = torch.tensor(self.rows, dtype=x.dtype).reshape(-1, 1, 1, 1)
            return super().__call__(x, level).but(x0=numbers.expand_as(x))

        def take(self, rows):  # type: ignore[no-untyped-def]
            return numbered([self.rows[row] for row in rows])

    def numbered(rows):  # type: ignore[no-untyped-def]
        out = Numbered(lambda x, level: x)
        object.__setattr__(out, "rows", tuple(rows))
        return out

    tiling = Tiling((4, 8), (4, 4), 0)  # two tiles, side by side
    tiled = Tiled(numbered(range(6)), tiling, 3)
    x = torch.zeros(3, 1, 4, 8)
    left, right = tiled(x, LEVEL).x0[:, 0, 0, 0], tiled(x, LEVEL).x0[:, 0, 0, 7]
    assert (left.tolist(), right.tolist()) == ([0, 1, 2], [3, 4, 5])
    some = tiled.take([2, 1])(x[:2], LEVEL).x0[:, 0, 0]
    assert some[:, [0, 7]].tolist() == [[2, 5], [1, 4]]


def test_one_tile_is_the_model_itself() -> None:
    data = Mixture.gaussian([0.1] * 20, [0.5] * 20)
    x = Noise((5, 6)).normal((1, 4, 5), "x").double()
    one = Tiled(exact(data), Tiling((4, 5), (4, 5), 2), 2)
    torch.testing.assert_close(one(x, LEVEL).x0, exact(data)(x, LEVEL).x0, rtol=0, atol=1e-14)


def test_what_cannot_be_is_refused() -> None:
    for size, tile, overlap in (((3, 9), (4, 5), 1), ((8, 9), (4, 5), 4), ((8, 9), (4, 5), -1)):
        with pytest.raises(SettingsError, match="tiles"):
            Tiling(size, tile, overlap)
