"""Masks: some pixels are known, the others are to be filled in."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.operators.operator import Operator


@dataclass(frozen=True)
class Pixelwise:
    """Some pixels as they are. known: (C, H, W) bool. The measurement is the picture with 0 elsewhere."""

    known: Tensor

    @property
    def values(self) -> Tensor:
        return self.known.double()

    def turn(self, x: Tensor) -> Tensor:
        return x

    def back(self, s: Tensor) -> Tensor:
        return s

    def write(self, s: Tensor) -> Tensor:
        return s * self.known.to(s)

    def read(self, y: Tensor) -> Tensor:
        return y * self.known.to(y)


def mask(known: Tensor, channels: int | None = None) -> Operator:
    """Pictures of which some pixels are known: (H, W) or (C, H, W) bool. The singular values are 0 and 1.

    A mask without channels is for pictures of so many `channels`, all of a pixel known or none. Raises
    SettingsError where nothing is known.
    """
    known = known.bool()
    if known.ndim == 2:
        known = known.expand(channels or 1, *known.shape)
    if known.ndim != 3 or not bool(known.any()):
        raise SettingsError(
            f"a mask of shape {tuple(known.shape)} with {int(known.sum())} known numbers: give (H, W) or "
            "(C, H, W), and something known"
        )
    return Operator(Pixelwise(known))
