"""Level: a point (alpha, sigma) on the way from data to noise, x = alpha x0 + sigma eps.

(1, 0) is clean data and (0, 1) pure noise; both are exact, because a level is a pair and never a logarithm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Level:
    """How much signal and how much noise: float64 on the CPU.

    Shapes broadcast against x from the left: () for the whole batch, (B,) per sample, (B, 1, H, W) per
    region, (B, 1, F, 1, 1) per frame. Only the ratio sigma : alpha says how noisy x is; the common factor is
    the curve's scale.
    """

    alpha: Tensor
    sigma: Tensor

    @staticmethod
    def of(alpha: Tensor | float | int, sigma: Tensor | float | int) -> Level:
        a, s = (torch.as_tensor(v, dtype=torch.float64, device="cpu") for v in (alpha, sigma))
        return Level(*torch.broadcast_tensors(a, s))

    @property
    def log_snr(self) -> Tensor:
        """log(alpha^2 / sigma^2): +inf for clean data, -inf for pure noise. A clock for solvers, nothing
        else."""
        return 2 * (self.alpha.log() - self.sigma.log())

    @property
    def angle(self) -> Tensor:
        """atan2(sigma, alpha): 0 for clean data, pi/2 for pure noise."""
        return torch.atan2(self.sigma, self.alpha)

    @property
    def norm(self) -> Tensor:
        """sqrt(alpha^2 + sigma^2): the scale of x for unit data; 1 on variance-preserving curves."""
        return torch.hypot(self.alpha, self.sigma)

    def scaled(self, factor: Tensor | float) -> Level:
        """The same noisiness on another curve."""
        return Level(self.alpha * factor, self.sigma * factor)

    def on(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) in x's dtype, broadcasting against x: the only place where a level is cast."""
        return spread_on(self.alpha, x), spread_on(self.sigma, x)


def spread_on(value: Tensor, x: Tensor) -> Tensor:
    """A float64 coefficient in x's dtype, padded with axes on the right. Scalars stay on the CPU: torch mixes
    them freely."""
    if value.ndim == 0:
        return value.to(x.dtype)
    return value.to(device=x.device, dtype=x.dtype).reshape(value.shape + (1,) * (x.ndim - value.ndim))


CLEAN = Level.of(1.0, 0.0)
PURE_NOISE = Level.of(0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Levels:
    """A grid: N + 1 scalar levels, from the noisiest to the cleanest. What grids return and plans take."""

    alpha: Tensor
    sigma: Tensor

    def __post_init__(self) -> None:
        if self.alpha.ndim != 1 or self.alpha.shape != self.sigma.shape:
            raise ValueError(
                f"a grid needs two vectors of one length, not {self.alpha.shape}, {self.sigma.shape}"
            )

    @staticmethod
    def of(level: Level, *more: Level) -> Levels:
        """Joins vectors of levels and single levels into one grid."""
        parts = (level, *more)
        return Levels(
            torch.cat([p.alpha.reshape(-1) for p in parts]), torch.cat([p.sigma.reshape(-1) for p in parts])
        )

    def __len__(self) -> int:
        return len(self.alpha)

    def __getitem__(self, index: int) -> Level:
        return Level(self.alpha[index], self.sigma[index])

    def __iter__(self) -> Iterator[Level]:
        return (self[i] for i in range(len(self)))

    def cut(self, start: int, stop: int) -> Levels:
        """The grid from its node `start` up to and without its node `stop`."""
        return Levels(self.alpha[start:stop], self.sigma[start:stop])
