"""Distributions whose every answer is known: what the solvers, losses and metrics are tested against.

For x = alpha x0 + sigma eps with x0 from a mixture of diagonal Gaussians, the best possible denoiser
E[x0 | x], the density of x and the moments of x0 are closed forms (Bayes' rule; see Karras et al. 2022,
appendix B.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import DataError
from sfumato.noise import Noise

_TINY = 1e-200
"""Stands for a variance of 0: among points seen without noise, the nearest is then taken."""


@dataclass(frozen=True)
class Mixture:
    """sum_k weights[k] N(means[k], diag stds[k]^2), in float64.

    weights: (K,), not negative, scaled to add up to 1; means, stds: (K, D), stds >= 0 (0 is a point).
    Raises DataError when the shapes or signs are wrong.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor

    def __post_init__(self) -> None:
        weights, means, stds = (
            part.to("cpu", torch.float64) for part in (self.weights, self.means, self.stds)
        )
        if (
            means.ndim != 2
            or means.shape != stds.shape
            or weights.shape != means.shape[:1]
            or not len(weights)
        ):
            raise DataError(
                "a mixture needs weights (K,), means (K, D) and stds (K, D), not "
                f"{tuple(weights.shape)}, {tuple(means.shape)} and {tuple(stds.shape)}"
            )
        finite = all(bool(torch.isfinite(part).all()) for part in (weights, means, stds))
        if not finite or bool((weights < 0).any()) or float(weights.sum()) <= 0 or bool((stds < 0).any()):
            raise DataError(
                "a mixture's weights and stds must be finite and not negative, and some weight above 0"
            )
        object.__setattr__(self, "weights", weights / weights.sum())
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "stds", stds)

    @staticmethod
    def gaussian(mean: Sequence[float | int], std: Sequence[float | int]) -> Mixture:
        """One Gaussian N(mean, diag std^2)."""
        to = lambda values: torch.tensor([list(values)], dtype=torch.float64)
        return Mixture(torch.ones(1, dtype=torch.float64), to(mean), to(std))

    @property
    def mean(self) -> Tensor:
        """E[x0], (D,)."""
        return self.weights @ self.means

    @property
    def variance(self) -> Tensor:
        """Var[x0], (D,)."""
        return self.weights @ (self.stds**2 + (self.means - self.mean) ** 2)

    @property
    def covariance(self) -> Tensor:
        """Cov[x0], (D, D)."""
        away = self.means - self.mean
        return torch.diag(self.weights @ self.stds**2) + away.T @ (self.weights[:, None] * away)

    def posterior_mean(self, x: Tensor, alpha: float | int | Tensor, sigma: float | int | Tensor) -> Tensor:
        """E[x0 | alpha x0 + sigma eps = x], in float64 and exact at both ends; in x's shape, dtype, device.

        x: (B, ...) with D numbers a row; alpha and sigma: (), (B,) or more axes, matched to x from the left.
        """
        rows, a, s = self._rows(x, alpha, sigma)
        spread = self._spread(a, s)
        away = rows[:, None] - a[:, None] * self.means
        gain = a[:, None] * self.stds**2 / spread
        share = torch.softmax(self._log_shares(away, spread), dim=1)
        best = (share[..., None] * (self.means + gain * away)).sum(1)
        return best.reshape(x.shape).to(x)

    def posterior_variance(
        self, x: Tensor, alpha: float | int | Tensor, sigma: float | int | Tensor
    ) -> Tensor:
        """Var[x0 | alpha x0 + sigma eps = x] of each number, in x's shape, dtype and device."""
        rows, a, s = self._rows(x, alpha, sigma)
        spread = self._spread(a, s)
        away = rows[:, None] - a[:, None] * self.means
        centre = self.means + a[:, None] * self.stds**2 / spread * away
        inner = self.stds**2 * s[:, None] ** 2 / spread
        inner = torch.where(spread > _TINY, inner, self.stds.expand_as(spread) ** 2)
        share = torch.softmax(self._log_shares(away, spread), dim=1)[..., None]
        mean = (share * centre).sum(1, keepdim=True)
        return (share * (inner + (centre - mean) ** 2)).sum(1).reshape(x.shape).to(x)

    def log_prob(
        self, x: Tensor, alpha: float | int | Tensor = 1.0, sigma: float | int | Tensor = 0.0
    ) -> Tensor:
        """The log density of alpha x0 + sigma eps at x, natural logarithm, (B,), float64."""
        rows, a, s = self._rows(x, alpha, sigma)
        away = rows[:, None] - a[:, None] * self.means
        shares = self._log_shares(away, self._spread(a, s))
        return torch.logsumexp(shares, dim=1) - 0.5 * rows.shape[1] * math.log(2 * math.pi)

    def sample(self, noise: Noise) -> Tensor:
        """One x0 per stream of the noise: (len(noise), D), float64."""
        upto = torch.cumsum(self.weights, 0)
        pick = noise.uniform((1,), "toy component").double()
        which = torch.searchsorted(upto, pick[:, 0] * upto[-1], right=True).clamp(max=len(upto) - 1)
        normal = noise.normal(self.means.shape[1:], "toy place").double()
        return self.means[which] + self.stds[which] * normal

    def _rows(
        self, x: Tensor, alpha: float | int | Tensor, sigma: float | int | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x, alpha and sigma, each as (B, D) in float64 on the CPU."""
        size = self.means.shape[1]
        if x.ndim < 2 or math.prod(x.shape[1:]) != size or not x.is_floating_point():
            raise DataError(
                f"this mixture lives in {size} dimensions: x must be floats (B, {size}), in any axes, "
                f"not {x.dtype} {tuple(x.shape)}"
            )

        def spread_out(part: float | int | Tensor) -> Tensor:
            part = torch.as_tensor(part, dtype=torch.float64, device="cpu")
            part = part.reshape(*part.shape, *(1,) * (x.ndim - part.ndim))
            return part.expand(x.shape).reshape(len(x), size)

        return x.to("cpu", torch.float64).reshape(len(x), size), spread_out(alpha), spread_out(sigma)

    def _spread(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Var[x | component], (B, K, D)."""
        return (alpha[:, None] ** 2 * self.stds**2 + sigma[:, None] ** 2).clamp(min=_TINY)

    def _log_shares(self, away: Tensor, spread: Tensor) -> Tensor:
        """log(weight_k N(x; ...)) without the constant, (B, K)."""
        return self.weights.log() - 0.5 * (spread.log() + away**2 / spread).sum(-1)
