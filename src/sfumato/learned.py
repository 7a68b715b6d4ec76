"""A schedule that was learned: VDM's monotone network gamma(t) = -log-SNR, as a plain value.

    gamma(t) = gamma_min + (gamma_max - gamma_min) (g(t) - g(0)) / (g(1) - g(0)),
    g(t) = t + sum_k h_k sigmoid(s_k (t - c_k)),   s_k, h_k > 0

(Kingma et al. 2021, appendix H: a line and a layer of sigmoids with positive weights). Increasing in t
whatever the numbers are; `training.learned_schedule` trains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.schedules import at_log_snr

_HALVINGS = 44
"""2^-44 is 6e-14 of the time axis."""


def curve(t: Tensor, ends: Tensor, slopes: Tensor, centres: Tensor, heights: Tensor) -> tuple[Tensor, Tensor]:
    """gamma and its derivative at times of any shape; ends (2,), the others (K,). Differentiable in all."""
    at = torch.cat([t.reshape(-1), t.new_tensor([0.0, 1.0])])
    gates = torch.sigmoid(slopes * (at[:, None] - centres))
    g = at + (heights * gates).sum(1)
    rise = 1 + (heights * slopes * gates * (1 - gates)).sum(1)
    scale = (ends[1] - ends[0]) / (g[-1] - g[-2])
    gamma = ends[0] + scale * (g[:-2] - g[-2])
    return gamma.reshape(t.shape), (scale * rise[:-2]).reshape(t.shape)


@dataclass(frozen=True)
class Learned:
    """gamma_min and gamma_max are -log-SNR at t = 0 and t = 1; slopes, centres and heights describe the shape
    between. All finite, slopes and heights above 0."""

    gamma_min: float
    gamma_max: float
    slopes: tuple[float, ...]
    centres: tuple[float, ...]
    heights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.gamma_min < self.gamma_max:
            raise SettingsError(f"gamma must rise, not go from {self.gamma_min} to {self.gamma_max}")
        if not len(self.slopes) == len(self.centres) == len(self.heights) > 0:
            raise SettingsError("a learned schedule has as many slopes as centres and heights")
        if min(*self.slopes, *self.heights) <= 0:
            raise SettingsError("the slopes and heights of a learned schedule must be above 0")

    @staticmethod
    def straight(gamma_min: float = -13.3, gamma_max: float = 5.0, units: int = 32) -> Learned:
        """Nearly a straight line: where training begins. The units stand evenly over the time."""
        centres = tuple((k + 0.5) / units for k in range(units))
        return Learned(gamma_min, gamma_max, (units / 2.0,) * units, centres, (0.1 / units,) * units)

    @cached_property
    def _numbers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        parts: tuple[Sequence[float], ...] = (
            (self.gamma_min, self.gamma_max), self.slopes, self.centres, self.heights,
        )  # fmt: skip
        ends, slopes, centres, heights = (torch.tensor(part, dtype=torch.float64) for part in parts)
        return ends, slopes, centres, heights

    def gamma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """-log-SNR and its derivative at t."""
        return curve(t, *self._numbers)

    def level(self, t: Tensor) -> Level:
        return at_log_snr(-self.gamma(t.double())[0])

    def time(self, level: Level) -> Tensor:
        """By bisection, to 1e-13; beyond the ends along the tangents."""
        wanted = -level.log_snr
        low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            above = self.gamma(middle)[0] > wanted
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        inside = (low + high) / 2
        (_, _), (first, last) = self.gamma(torch.tensor([0.0, 1.0], dtype=torch.float64))
        before = (wanted - self.gamma_min) / first
        after = 1 + (wanted - self.gamma_max) / last
        return torch.where(before < 0, before, torch.where(after > 1, after, inside))
