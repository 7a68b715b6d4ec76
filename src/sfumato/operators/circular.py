"""Convolution with any kernel, the picture's edges joined: motion blur, a lens out of focus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.operators.operator import Operator
from sfumato.operators.separable import BLURRED


@dataclass(frozen=True)
class Circular:
    """Convolution of every channel with one kernel, the picture's edges joined.

    With the kernel's transform k = |k| e^(i phi), A = U |k| V^T, where V is the discrete Hartley transform,
    which diagonalises every real and even spectrum, and U the same followed by the phases e^(i phi).
    """

    spectrum: Tensor
    """The kernel's Fourier transform, (H, W), complex128."""
    channels: int

    @property
    def values(self) -> Tensor:
        return self.spectrum.abs().expand(self.channels, *self.spectrum.shape)

    @cached_property
    def _phase(self) -> Tensor:
        size = self.spectrum.abs()
        return torch.where(size > 0, self.spectrum / size.clamp(min=1e-300), torch.ones_like(self.spectrum))

    def turn(self, x: Tensor) -> Tensor:
        return hartley(x)

    def back(self, s: Tensor) -> Tensor:
        return hartley(s)

    def write(self, s: Tensor) -> Tensor:
        return _filtered(hartley(s), self._phase)

    def read(self, y: Tensor) -> Tensor:
        return hartley(_filtered(y, self._phase.conj()))


def hartley(x: Tensor) -> Tensor:
    """The discrete Hartley transform of the last two axes: orthogonal, its own inverse (Bracewell 1983)."""
    transformed = torch.fft.fft2(x, norm="ortho")
    return transformed.real - transformed.imag


def _filtered(x: Tensor, spectrum: Tensor) -> Tensor:
    transformed = torch.fft.fft2(x)
    return torch.fft.ifft2(transformed * spectrum.to(transformed)).real


def convolution(shape: Sequence[int], kernel: Tensor) -> Operator:
    """Every channel of pictures of `shape` (C, H, W) convolved with the kernel (h, w), its middle in place.

    The singular values are the sizes of the kernel's Fourier transform. Raises SettingsError for a kernel
    that is larger than the picture, or empty.
    """
    channels, height, width = shape
    if kernel.ndim != 2 or kernel.shape[0] > height or kernel.shape[1] > width or not bool(kernel.any()):
        raise SettingsError(
            f"a kernel {tuple(kernel.shape)} for pictures of {width} x {height}: give (h, w), no larger than "
            "the picture, with something in it"
        )
    whole = torch.zeros(height, width, dtype=torch.float64)
    whole[: kernel.shape[0], : kernel.shape[1]] = kernel.double()
    middle = (-(kernel.shape[0] // 2), -(kernel.shape[1] // 2))
    return Operator(Circular(torch.fft.fft2(whole.roll(middle, (0, 1))), channels), BLURRED)
