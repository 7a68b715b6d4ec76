"""Inception-v3 (Szegedy et al. 2016) as FID has it: the graph of 2015-12-05 that Heusel et al. (2017) used.

Beside the classifier that others publish under this name: averages over 3 x 3 places leave out the padding,
the last block takes the maximum instead, and there are 1008 classes. Parameter names are torchvision's, as in
the weights that pytorch-fid publishes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, CLASSES, SIDE = 2048, 1008, 299
SPATIAL = 7
"""Channels of the spatial features of sFID (Nash et al. 2021, appendix)."""


class Unit(NamedTuple):
    """A convolution of a block by its name; stride 1 keeps the size, stride 2 leaves out the border."""

    name: str
    outs: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


Branch = tuple[tuple[Unit, ...], ...]
"""Steps one after the other; the units of one step look at the same and lie side by side."""


def _chain(*units: Unit) -> Branch:
    return tuple((unit,) for unit in units)


def _square(name: str, outs: int, kernel: int = 1, stride: int = 1) -> Unit:
    return Unit(name, outs, (kernel, kernel), stride)


class Convolution(nn.Module):
    """A convolution without bias, its batch norm, and ReLU."""

    def __init__(
        self, ins: int, outs: int, kernel: tuple[int, int], stride: int, padding: tuple[int, int]
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, outs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, and one that pools: "mean" or "max" of 3 x 3 and a 1 x 1, or "halve" by the
    maximum."""

    def __init__(self, ins: int, branches: tuple[Branch, ...], pool: str, pooled: int = 0) -> None:
        super().__init__()
        self.pool = pool
        self.branches = [[[unit.name for unit in step] for step in branch] for branch in branches]
        self.outs = pooled or ins
        for branch in branches:
            width = ins
            for step in branch:
                for unit in step:
                    high, wide = unit.kernel if unit.stride == 1 else (1, 1)
                    padding = (high // 2, wide // 2)
                    self.add_module(
                        unit.name, Convolution(width, unit.outs, unit.kernel, unit.stride, padding)
                    )
                width = sum(unit.outs for unit in step)
            self.outs += width
        if pooled:
            self.branch_pool = Convolution(ins, pooled, (1, 1), 1, (0, 0))

    def forward(self, x: Tensor) -> Tensor:
        found: list[Tensor] = []
        for branch in self.branches:
            h = x
            for step in branch:
                h = torch.cat([self.get_submodule(name)(h) for name in step], dim=1)
            found.append(h)
        if self.pool == "halve":
            return torch.cat([*found, F.max_pool2d(x, 3, 2)], dim=1)
        if self.pool == "max":
            pooled = F.max_pool2d(x, 3, 1, 1)
        else:
            pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.cat([*found, self.branch_pool(pooled)], dim=1)


def _a(ins: int, pooled: int) -> Mixed:
    one = _chain(_square("branch1x1", 64))
    two = _chain(_square("branch5x5_1", 48), _square("branch5x5_2", 64, 5))
    return Mixed(ins, (one, two, _double(1)), "mean", pooled)


def _double(stride: int) -> Branch:
    first, second = _square("branch3x3dbl_1", 64), _square("branch3x3dbl_2", 96, 3)
    return _chain(first, second, _square("branch3x3dbl_3", 96, 3, stride))


def _b(ins: int) -> Mixed:
    return Mixed(ins, (_chain(_square("branch3x3", 384, 3, 2)), _double(2)), "halve")


def _c(ins: int, inner: int) -> Mixed:
    wide, high = (1, 7), (7, 1)
    two = (
        Unit("branch7x7_1", inner),
        Unit("branch7x7_2", inner, wide),
        Unit("branch7x7_3", 192, high),
    )
    three = (
        Unit("branch7x7dbl_1", inner),
        Unit("branch7x7dbl_2", inner, high),
        Unit("branch7x7dbl_3", inner, wide),
        Unit("branch7x7dbl_4", inner, high),
        Unit("branch7x7dbl_5", 192, wide),
    )
    return Mixed(ins, (_chain(Unit("branch1x1", 192)), _chain(*two), _chain(*three)), "mean", 192)


def _d(ins: int) -> Mixed:
    one = _chain(Unit("branch3x3_1", 192), _square("branch3x3_2", 320, 3, 2))
    two = (
        Unit("branch7x7x3_1", 192),
        Unit("branch7x7x3_2", 192, (1, 7)),
        Unit("branch7x7x3_3", 192, (7, 1)),
        _square("branch7x7x3_4", 192, 3, 2),
    )
    return Mixed(ins, (one, _chain(*two)), "halve")


def _e(ins: int, pool: str) -> Mixed:
    def apart(name: str) -> tuple[Unit, Unit]:
        return Unit(f"{name}a", 384, (1, 3)), Unit(f"{name}b", 384, (3, 1))

    two: Branch = ((Unit("branch3x3_1", 384),), apart("branch3x3_2"))
    three: Branch = (
        (Unit("branch3x3dbl_1", 448),),
        (_square("branch3x3dbl_2", 384, 3),),
        apart("branch3x3dbl_3"),
    )
    return Mixed(ins, (_chain(Unit("branch1x1", 320)), two, three), pool, 192)


class Inception(nn.Module):
    """Pictures (B, 3, 299, 299) -> pool_3 (B, 2048), spatial features (B, 7 x 17 x 17) and logits (B, 1008).

    Spatial: the first 7 channels of the graph's `mixed_6/conv`. Logits are without their bias, as the
    Inception score takes them (Salimans et al. 2016, the published code), and None for weights without `fc`.
    """

    def __init__(self, classifies: bool = True) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, (3, 3), 2, (0, 0))
        self.Conv2d_2a_3x3 = Convolution(32, 32, (3, 3), 1, (0, 0))
        self.Conv2d_2b_3x3 = Convolution(32, 64, (3, 3), 1, (1, 1))
        self.Conv2d_3b_1x1 = Convolution(64, 80, (1, 1), 1, (0, 0))
        self.Conv2d_4a_3x3 = Convolution(80, 192, (3, 3), 1, (0, 0))
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32), _a(256, 64), _a(288, 64)
        self.Mixed_6a = _b(288)
        self.Mixed_6b, self.Mixed_6c = _c(768, 128), _c(768, 160)
        self.Mixed_6d, self.Mixed_6e = _c(768, 160), _c(768, 192)
        self.Mixed_7a = _d(768)
        self.Mixed_7b, self.Mixed_7c = _e(1280, "mean"), _e(2048, "max")
        self.fc = nn.Linear(WIDTH, CLASSES) if classifies else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        h = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        h = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(h, 3, 2)))
        h = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(h, 3, 2))))
        h = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(h)))
        spatial = self.Mixed_6d.branch1x1(h)[:, :SPATIAL].flatten(1)
        h = self.Mixed_7a(self.Mixed_6e(self.Mixed_6d(h)))
        pooled = self.Mixed_7c(self.Mixed_7b(h)).mean((2, 3))
        return pooled, spatial, None if self.fc is None else pooled @ self.fc.weight.T
