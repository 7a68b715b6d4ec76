"""Any linear measurement of small pictures, by its matrix; and one measurement after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.operators.operator import Operator
from sfumato.operators.separable import Axis, Separable

MOST = 4096
"""The most numbers of a picture whose matrix is written out: its singular values take minutes."""


@dataclass(frozen=True)
class Written:
    """Any matrix, (M, C H W), for small pictures; y is (B, M)."""

    axis: Axis
    shape: tuple[int, int, int]

    @property
    def values(self) -> Tensor:
        return self.axis.values.reshape(self.shape)

    def turn(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.axis.right.T.to(x)).reshape(x.shape)

    def back(self, s: Tensor) -> Tensor:
        return (s.flatten(1) @ self.axis.right.to(s)).reshape(s.shape)

    def write(self, s: Tensor) -> Tensor:
        return s.flatten(1) @ self.axis.left.T.to(s)

    def read(self, y: Tensor) -> Tensor:
        return (y.flatten(1) @ self.axis.left.to(y)).reshape(-1, *self.shape)


def dense(linear: Callable[[Tensor], Tensor], shape: Sequence[int], least: float = 1e-6) -> Operator:
    """Any linear function of pictures (B, C, H, W), for small ones: found out by asking it for every pixel.

    y is (B, M), what the function gives in one row. Raises SettingsError for pictures of more than 4,096
    numbers.
    """
    total = math.prod(shape)
    if total > MOST:
        raise SettingsError(
            f"pictures of {total:,} numbers: without known singular values at most "
            f"{MOST:,} can be solved for, so take smaller pictures"
        )
    columns = linear(torch.eye(total, dtype=torch.float64).reshape(total, *shape)).flatten(1)
    channels, height, width = shape
    return Operator(Written(Axis(columns.T), (channels, height, width)), least)


def compose(second: Operator, first: Operator) -> Operator:
    """`second` after `first`: say a small picture (second) of a blurred one (first).

    Two that are a matrix along each axis stay one: blur, smaller, grey. Others are written out, which small
    pictures allow (`dense`). Raises SettingsError otherwise.
    """
    least = max(second.least, first.least)
    a, b = second.factors, first.factors
    if isinstance(a, Separable) and isinstance(b, Separable):
        products = [Axis(x.matrix.double() @ y.matrix.double()) for x, y in zip(a.axes, b.axes, strict=True)]
        return Operator(Separable((products[0], products[1], products[2])), least)
    return dense(lambda x: second(first(x)), first.shape, least)
