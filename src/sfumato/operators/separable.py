"""Measurements that are a matrix along each axis: smaller pictures, blur, grey, and one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sfumato.errors import SettingsError
from sfumato.operators.operator import Operator

LUMA = (0.299, 0.587, 0.114)
"""Red's, green's and blue's share of grey (ITU-R BT.601), as `data.fit` makes grey from colour."""

Kernel = Literal["mean", "bicubic"]
"""How pictures are made smaller: by the mean of each block, or by a bicubic that spans the block."""

BLURRED = 0.03
"""What a blur leaves less of than this share counts as lost: the rounding to bytes would come back 30-fold
(Kawar et al. 2022 cut there too)."""


@dataclass(frozen=True)
class Axis:
    """The factors of one axis's matrix, (m, n): left (m, n), values (n,), right (n, n); float64."""

    matrix: Tensor

    @cached_property
    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        m, n = self.matrix.shape
        u, s, v = torch.linalg.svd(self.matrix.double(), full_matrices=True)
        left, values = u.new_zeros(m, n), s.new_zeros(n)
        least = min(m, n)
        left[:, :least], values[:least] = u[:, :least], s
        return left, values, v

    @property
    def left(self) -> Tensor:
        """U, with columns of 0 where there is nothing to write."""
        return self._factors[0]

    @property
    def values(self) -> Tensor:
        """S, with 0 for what is not measured."""
        return self._factors[1]

    @property
    def right(self) -> Tensor:
        """V^T."""
        return self._factors[2]


@dataclass(frozen=True)
class Separable:
    """A matrix along each axis: channels, rows and columns; y is (B, c, h, w)."""

    axes: tuple[Axis, Axis, Axis]

    @property
    def values(self) -> Tensor:
        channels, rows, columns = (axis.values for axis in self.axes)
        return channels[:, None, None] * rows[:, None] * columns

    def turn(self, x: Tensor) -> Tensor:
        return along(x, [axis.right for axis in self.axes])

    def back(self, s: Tensor) -> Tensor:
        return along(s, [axis.right.T for axis in self.axes])

    def write(self, s: Tensor) -> Tensor:
        return along(s, [axis.left for axis in self.axes])

    def read(self, y: Tensor) -> Tensor:
        return along(y, [axis.left.T for axis in self.axes])


def along(x: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """A matrix along each of the axes 1, 2, 3 of (B, C, H, W), float64, those that shrink most first."""
    for i in sorted(range(3), key=lambda i: matrices[i].shape[0] / matrices[i].shape[1]):
        x = (x.movedim(i + 1, -1) @ matrices[i].T.to(x)).movedim(-1, i + 1)
    return x


def downsample(shape: Sequence[int], size: tuple[int, int], kernel: Kernel = "mean") -> Operator:
    """Pictures of `shape` (C, H, W) made smaller, to size (h, w).

    "mean" of k x k blocks has all singular values 1 / k. "bicubic" (Keys 1981, a = -1/2, spanning the block,
    its weights scaled to 1 at the edges) is what Pillow and torch do. Raises SettingsError for sizes that
    are not smaller, or not a whole number of blocks for "mean".
    """
    channels, height, width = shape
    whole = height % size[0] == 0 and width % size[1] == 0
    if not (0 < size[0] <= height and 0 < size[1] <= width) or (kernel == "mean" and not whole):
        raise SettingsError(
            f"a picture of {width} x {height} cannot be made {size[1]} x {size[0]}: choose a smaller size"
            + (", of which it is a whole multiple" if kernel == "mean" else "")
        )
    rows, columns = (smaller(n, m, kernel) for n, m in zip((height, width), size, strict=True))
    return Operator(Separable((identity(channels), Axis(rows), Axis(columns))))


def smaller(n: int, m: int, kernel: Kernel) -> Tensor:
    """The matrix (m, n) that makes n numbers m, float64: torch's own resizing of the identity."""
    eye = torch.eye(n, dtype=torch.float64)[None, None]
    if kernel == "mean":
        return interpolate(eye, (m, n), mode="area")[0, 0]
    return interpolate(eye, (m, n), mode="bicubic", antialias=True, align_corners=False)[0, 0]


def blur(shape: Sequence[int], std: float | int) -> Operator:
    """A Gaussian blur of `std` pixels, cut at 4 std, the picture mirrored at its edges.

    Its singular vectors are cosines, its singular values those of the kernel's cosine transform.
    """
    channels, height, width = shape
    if not (math.isfinite(std) and std > 0):
        raise SettingsError(f"a blur of {std} pixels: give its standard deviation, above 0")
    rows, columns = (_blurred(n, float(std)) for n in (height, width))
    return Operator(Separable((identity(channels), Axis(rows), Axis(columns))), BLURRED)


def _blurred(n: int, std: float) -> Tensor:
    reach = math.ceil(4 * std)
    at = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (at.double() / std) ** 2)
    place = (torch.arange(n)[:, None] + at) % (2 * n)
    place = torch.where(place < n, place, 2 * n - 1 - place)  # ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ...
    matrix = torch.zeros(n, n, dtype=torch.float64)
    return matrix.scatter_add_(1, place, (weights / weights.sum()).expand(n, -1).contiguous())


def grey(shape: Sequence[int]) -> Operator:
    """The luma of colour pictures: one singular value a pixel, the length of the weights, 0.669.

    Raises SettingsError for pictures without colour.
    """
    channels, height, width = shape
    if channels != 3:
        raise SettingsError(f"grey is made of colour pictures (3 channels), not of {channels}")
    luma = torch.tensor([LUMA], dtype=torch.float64)
    return Operator(Separable((Axis(luma), identity(height), identity(width))))


def identity(n: int) -> Axis:
    """An axis that stays as it is."""
    return Axis(torch.eye(n, dtype=torch.float64))
