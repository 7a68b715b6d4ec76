"""Compressed sensing: a few numbers, each of which says a little about the whole picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sfumato import noise
from sfumato.errors import SettingsError
from sfumato.operators.operator import Operator
from sfumato.operators.separable import along


@dataclass(frozen=True)
class Sensed:
    """Some coordinates of a cosine transform after random signs: y is (B, number of those kept).

    Every number so says a little about the whole picture (Candes & Romberg 2007).
    """

    signs: Tensor
    """(C, H, W), each 1 or -1."""
    kept: Tensor
    """(C, H, W) bool."""

    @cached_property
    def _matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        channels, height, width = self.signs.shape
        return torch.eye(channels, dtype=torch.float64), cosine(height), cosine(width)

    @property
    def values(self) -> Tensor:
        return self.kept.double()

    def turn(self, x: Tensor) -> Tensor:
        return along(x * self.signs.to(x), self._matrices)

    def back(self, s: Tensor) -> Tensor:
        return along(s, [matrix.T for matrix in self._matrices]) * self.signs.to(s)

    def write(self, s: Tensor) -> Tensor:
        return s[:, self.kept.to(s.device)]

    def read(self, y: Tensor) -> Tensor:
        s = y.new_zeros(len(y), *self.kept.shape)
        s[:, self.kept.to(y.device)] = y
        return s


def cosine(n: int) -> Tensor:
    """The orthonormal cosine transform of n numbers (DCT-II, Ahmed et al. 1974), (n, n), float64."""
    at = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * (at + 0.5) * at[:, None]) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def sensing(shape: Sequence[int], share: float, seed: int = 0) -> Operator:
    """A random `share` of the numbers of a cosine transform of the picture, its signs turned at random.

    The rows are orthonormal: every singular value is 0 or 1. Signs and choice follow from the seed. Raises
    SettingsError for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise SettingsError(f"a share of {share:g} of the numbers: give one above 0, at most 1")
    total = math.prod(shape)
    signs = torch.where(noise.uniform(total, seed, "sensing signs") < 0.5, -1.0, 1.0).double()
    kept = torch.zeros(total, dtype=torch.bool)
    kept[noise.permutation(total, seed, "sensing rows")[: max(1, round(share * total))]] = True
    return Operator(Sensed(signs.reshape(*shape), kept.reshape(*shape)))
