"""Pictures larger than the model: tiles that overlap, put together at every look.

At each level every tile is asked what it believes, and where tiles overlap their beliefs are averaged
(MultiDiffusion, Bar-Tal et al. 2023, eq. 5). So all tiles are parts of one picture from the first step on,
and there is no seam to hide at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.predictions import Estimate


@dataclass(frozen=True)
class Tiling:
    """Tiles of `tile` (h, w) that cover a picture of `size` (H, W), neighbours sharing `overlap` pixels or a
    few more. Raises SettingsError where the tile is larger than the picture or all overlap."""

    size: tuple[int, int]
    tile: tuple[int, int]
    overlap: int

    def __post_init__(self) -> None:
        small = self.size[0] < self.tile[0] or self.size[1] < self.tile[1]
        if small or not 0 <= self.overlap < min(self.tile):
            raise SettingsError(
                f"a picture of {self.size[1]} x {self.size[0]} in tiles of {self.tile[1]} x {self.tile[0]} "
                f"that share {self.overlap} pixels: give a picture at least as large as a tile, and an "
                "overlap smaller than it"
            )

    @cached_property
    def corners(self) -> tuple[tuple[int, int], ...]:
        """(top, left) of each tile, row by row."""
        rows, columns = (self._starts(n, m) for n, m in zip(self.size, self.tile, strict=True))
        return tuple((top, left) for top in rows for left in columns)

    @cached_property
    def share(self) -> Tensor:
        """How much each tile says of each of its pixels, (tiles, 1, h, w) float64: the weights fall linearly
        towards a tile's edge over the overlap, and those of one pixel add up to 1."""
        window = self._ramp(self.tile[0])[:, None] * self._ramp(self.tile[1])
        windows = window.expand(len(self.corners), 1, *self.tile)
        return windows / self.cut(self.put(windows, 1))[:, 0]

    def cut(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (tiles, B, C, h, w)."""
        h, w = self.tile
        return torch.stack([x[..., top : top + h, left : left + w] for top, left in self.corners])

    def put(self, tiles: Tensor, rows: int) -> Tensor:
        """The sum of the tiles in their places: (tiles * rows, C, h, w), tile by tile -> (rows, C, H, W)."""
        h, w = self.tile
        whole = tiles.new_zeros(rows, tiles.shape[1], *self.size)
        for part, (top, left) in zip(tiles.split(rows), self.corners, strict=True):
            whole[..., top : top + h, left : left + w] += part
        return whole

    def _starts(self, n: int, m: int) -> list[int]:
        count = max(1, math.ceil((n - self.overlap) / (m - self.overlap)))
        return [round(i * (n - m) / max(1, count - 1)) for i in range(count)]

    def _ramp(self, m: int) -> Tensor:
        at = torch.arange(m, dtype=torch.float64) + 0.5
        return (torch.minimum(at, m - at) / max(1, self.overlap)).clamp(max=1)


@dataclass(frozen=True)
class Tiled:
    """A denoiser of large pictures from one of tiles.

    denoise: its rows are all tiles of all pictures, tile by tile (tile 0 of each picture, then tile 1, ...),
    so each may have its own condition. rows: how many pictures.
    """

    denoise: Denoiser
    tiling: Tiling
    rows: int

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        cut = lambda whole: self.tiling.cut(whole).flatten(0, 1)
        before = None if seen is None else Estimate.of(cut(seen.x), seen.level, x0=cut(seen.x0))
        believed = self.denoise(cut(x), level, before).x0
        share = self.tiling.share.repeat_interleave(self.rows, dim=0)
        return Estimate.of(x, level, x0=self.tiling.put(believed * share.to(believed), self.rows))

    def take(self, rows: Sequence[int]) -> Tiled:
        tiles = range(len(self.tiling.corners))
        inner = [tile * self.rows + row for tile in tiles for row in rows]
        return Tiled(self.denoise.take(inner), self.tiling, len(rows))

    def check(self, level: Level) -> None:
        self.denoise.check(level)
