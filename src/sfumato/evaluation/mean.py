"""A mean and how sure it is."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from sfumato.errors import SettingsError


class Mean(NamedTuple):
    """A mean over independent pictures and its standard error, in the same unit."""

    value: float
    error: float

    @staticmethod
    def of(values: Tensor) -> Mean:
        """Of one number a picture, (n,). Raises SettingsError for fewer than two: one has no error."""
        if values.ndim != 1 or len(values) < 2:
            raise SettingsError(f"{len(values)} picture: a standard error needs at least 2")
        values = values.double()
        return Mean(float(values.mean()), float(values.std()) / math.sqrt(len(values)))

    def root(self) -> Mean:
        """Of the root of what this is the mean of; its error to first order."""
        value = math.sqrt(max(0.0, self.value))
        return Mean(value, self.error / (2 * value) if value else 0.0)

    def times(self, factor: float | int) -> Mean:
        """In another unit."""
        return Mean(self.value * factor, self.error * abs(factor))

    def __str__(self) -> str:
        return f"{self.value:.4f} +- {self.error:.4f}"
