"""Three problems whose every answer is known: what the samplers' accuracy is measured on.

`gmm2d` (8 components in the plane), `gmm64d` (10 components in 64 dimensions, most of whose variance lies
in a few of them) and `gmm8d`, kept for confirmation, each with its exact denoiser, the starts that errors are
averaged over, and the exact end of the probability flow from each start. All in float64. The schedule is
DDPM's table, `SCHEDULE`.

    python benchmarks/oracles.py          says how far the references are from converged
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from sfumato.data.toy import Mixture
from sfumato.denoiser import Exact
from sfumato.level import Level
from sfumato.tables import Table

SCHEDULE = Table.linear(1000)


@dataclass(frozen=True)
class Problem:
    """A mixture, and how many starts errors are averaged over."""

    name: str
    mixture: Mixture
    starts: int

    @property
    def std(self) -> float:
        """The data's standard deviation, the unit that errors are given in."""
        return float(self.mixture.variance.mean().sqrt())

    def posterior_mean(self, x: Tensor, level: Level) -> Tensor:
        """E[x0 | x] by matrix products at scalar levels, faster than `Mixture.posterior_mean`."""
        if level.alpha.ndim:
            return self.mixture.posterior_mean(x, level.alpha, level.sigma)
        alpha, sigma = float(level.alpha), float(level.sigma)
        means, variances = self.mixture.means, self.mixture.stds**2
        spread = alpha**2 * variances + sigma**2
        rows = x.double()
        away = rows**2 @ (1 / spread).T - rows @ (2 * alpha * means / spread).T
        away = away + (alpha**2 * means**2 / spread + spread.log()).sum(1)
        share = torch.softmax(self.mixture.weights.log() - 0.5 * away, dim=1)
        gain = alpha * variances / spread
        return ((share @ gain) * rows + share @ ((1 - gain * alpha) * means)).to(x)

    @property
    def denoiser(self) -> Exact:
        """The exact denoiser."""
        return Exact(self.posterior_mean)

    def start(self, n: int | None = None, seed: int = 0) -> Tensor:
        """Standard normals, (n, D): x at the noisiest level of `SCHEDULE`."""
        shape = (self.starts if n is None else n, self.mixture.means.shape[1])
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def sample(self, n: int, seed: int) -> Tensor:
        """n draws of the data, (n, D)."""
        draw = torch.Generator().manual_seed(seed)
        which = torch.multinomial(self.mixture.weights, n, replacement=True, generator=draw)
        normal = torch.randn(n, self.mixture.means.shape[1], generator=draw, dtype=torch.float64)
        return self.mixture.means[which] + self.mixture.stds[which] * normal


def gmm2d() -> Problem:
    """Eight narrow ellipses on a wavy ring."""
    draw = torch.Generator().manual_seed(1)
    angle = torch.arange(8, dtype=torch.float64) * 2 * math.pi / 8 + 0.2
    radius = torch.tensor([0.9, 0.6, 0.9, 0.75, 0.5, 0.9, 0.8, 0.65], dtype=torch.float64)
    means = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    stds = 0.05 + 0.10 * torch.rand(8, 2, generator=draw, dtype=torch.float64)
    return Problem("gmm2d", Mixture(torch.tensor([1.0, 2, 1, 3, 1, 2, 1, 1]), means, stds), 2048)


def gmm64d() -> Problem:
    """Ten components whose variance falls as 1/k over 64 axes, scaled to a standard deviation of about one
    half."""
    draw = torch.Generator().manual_seed(2)
    rand = lambda *shape: torch.rand(*shape, generator=draw, dtype=torch.float64)
    axis = torch.arange(64, dtype=torch.float64)
    spectrum = 1 / (1 + axis)
    means = torch.randn(10, 64, generator=draw, dtype=torch.float64) * spectrum.sqrt() * 1.1
    variances = 0.6 * spectrum * (0.3 + 1.2 * rand(10, 64)) / (0.2 + axis / 64) * 0.2
    means = means - means.mean(0)
    scale = (means.var(0).mean() + variances.mean()).sqrt()
    mixture = Mixture(0.5 + rand(10), means * 0.5 / scale, variances.sqrt() * 0.5 / scale)
    return Problem("gmm64d", mixture, 1024)


def gmm8d() -> Problem:
    """Five round and long components in eight dimensions, of standard deviation 0.8: nothing was ever tuned
    on it."""
    draw = torch.Generator().manual_seed(3)
    rand = lambda *shape: torch.rand(*shape, generator=draw, dtype=torch.float64)
    means = torch.randn(5, 8, generator=draw, dtype=torch.float64)
    stds = 0.05 + 0.6 * rand(5, 8) ** 2
    mixture = Mixture(0.3 + rand(5), means, stds)
    scale = 0.8 / mixture.variance.mean().sqrt()
    return Problem("gmm8d", Mixture(mixture.weights, means * scale, stds * scale), 1024)


PROBLEMS = {"gmm2d": gmm2d(), "gmm64d": gmm64d(), "gmm8d": gmm8d()}


def reference(problem: Problem, n: int | None = None, steps: int = 4000) -> Tensor:
    """The exact end, at sigma = 0, of the probability flow from each of `problem.start(n)`, (n, D).

    Classic RK4 on dy/dlog sigma = y - D(y, sigma), y = x / alpha, from the noisiest level down to sigma =
    exp(-14), where y is replaced by what the denoiser says: converged to about 1e-9 of the data's spread.
    """
    return _reference(problem.name, problem.starts if n is None else n, steps).clone()


@cache
def _reference(name: str, n: int, steps: int) -> Tensor:
    problem = PROBLEMS[name]
    noisiest = SCHEDULE.level(torch.ones((), dtype=torch.float64))
    y = problem.start(n) / noisiest.alpha
    first, last = float((noisiest.sigma / noisiest.alpha).log()), -14.0
    h = (last - first) / steps
    best = lambda y, log_sigma: problem.posterior_mean(y, Level.of(1.0, math.exp(log_sigma)))
    slope = lambda y, log_sigma: y - best(y, log_sigma)
    for i in range(steps):
        at = first + i * h
        k1 = slope(y, at)
        k2 = slope(y + h / 2 * k1, at + h / 2)
        k3 = slope(y + h / 2 * k2, at + h / 2)
        k4 = slope(y + h * k3, at + h)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return best(y, last)


def main() -> None:
    for problem in PROBLEMS.values():
        fine, coarse = reference(problem), reference(problem, steps=2000)
        off = float((fine - coarse).pow(2).mean().sqrt())
        print(f"{problem.name}: std {problem.std:.4f}, RK4 with 4000 against 2000 steps: rms {off:.1e}")


if __name__ == "__main__":
    main()
