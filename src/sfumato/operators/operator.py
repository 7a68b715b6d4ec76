"""Operator: a linear measurement of pictures, y = A x, kept by its singular values.

A = U S V^T: V^T turns a picture into coordinates, as many as it has numbers; S weighs each, 0 where nothing
is measured; U writes the measurement. The adjoint, the pseudo-inverse and all that solving inverse problems
needs follow from these, without any large matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.errors import SettingsError


@runtime_checkable
class Factors(Protocol):
    """U, S and V of A = U S V^T. Pictures and coordinates are (B, C, H, W), measurements (B, ...).

    V is orthogonal, and so is U on what is measured. Every map is linear and may be differentiated through.
    """

    @property
    def values(self) -> Tensor:
        """S, (C, H, W), float64, none below 0."""
        ...

    def turn(self, x: Tensor) -> Tensor:
        """V^T x: a picture's coordinates."""
        ...

    def back(self, s: Tensor) -> Tensor:
        """V s: the picture with these coordinates."""
        ...

    def write(self, s: Tensor) -> Tensor:
        """U s: the measurement with these coordinates; those that are not measured are left out."""
        ...

    def read(self, y: Tensor) -> Tensor:
        """U^T y: a measurement's coordinates."""
        ...


@dataclass(frozen=True)
class Operator:
    """A linear measurement: `operator(x)` is A x.

    What is measured by less than `least` times the largest singular value counts as not measured where
    something is solved for, because noise would be all that comes back.
    """

    factors: Factors
    least: float = 1e-6

    def __call__(self, x: Tensor) -> Tensor:
        """A x, for pictures (B, C, H, W). Raises SettingsError for pictures of another shape."""
        if x.shape[1:] != self.shape:
            raise SettingsError(
                f"this measurement is of pictures {tuple(self.shape)}, not {tuple(x.shape[1:])}: "
                "make it for their shape"
            )
        return self.factors.write(self.factors.values.to(x) * self.factors.turn(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y: <A x, y> = <x, A^T y> for all x and y."""
        return self.factors.back(self.factors.values.to(y) * self.factors.read(y))

    def inverse(self, y: Tensor) -> Tensor:
        """A^+ y, the pseudo-inverse (Moore-Penrose): of all pictures that fit best, the one nearest to 0."""
        return self.factors.back(self.known(y))

    def fulfilled(self, x: Tensor, y: Tensor) -> Tensor:
        """x + A^+ (y - A x): the nearest picture to x that gives y."""
        return x + self.inverse(y - self(x))

    def known(self, y: Tensor) -> Tensor:
        """S^+ U^T y: the picture's coordinates as far as they are measured, 0 elsewhere."""
        gain = torch.where(self.measured, 1 / self.factors.values.clamp(min=1e-300), 0.0)
        return gain.to(y) * self.factors.read(y)

    @property
    def shape(self) -> torch.Size:
        """(C, H, W) of the pictures."""
        return self.factors.values.shape

    @cached_property
    def measured(self) -> Tensor:
        """Which coordinates are measured, (C, H, W) bool."""
        values = self.factors.values
        return values > self.least * values.max()

    @property
    def values(self) -> Tensor:
        """The singular values of what is measured, 0 elsewhere, (C, H, W), float64."""
        return torch.where(self.measured, self.factors.values, 0.0)
