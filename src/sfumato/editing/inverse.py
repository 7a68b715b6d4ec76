"""Inverse problems: pictures x with y = A x + noise, drawn with any model that was never trained for it.

Three methods, each around a denoiser, on the levels of one grid:

- Pi-GDM (Song et al. 2023, "Pseudoinverse-guided diffusion models"): the gradient of log p(y | x_t), where x0
  given x_t is taken for a Gaussian about its estimate. Exact for a Gaussian prior. Any sampler.
- DPS (Chung et al. 2023, "Diffusion posterior sampling"): the gradient of |y - A x0|, also for measurements
  that are not linear. Published as an addition to DDPM's steps.
- DDRM (Kawar et al. 2022, "Denoising diffusion restoration models"): no gradient; coordinates that are
  measured better than the level's noise are taken from the measurement. Needs its own step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.editing.job import Job
from sfumato.errors import SettingsError
from sfumato.forward import transition
from sfumato.guidance.steer import Steered
from sfumato.level import Level, Levels, spread_on
from sfumato.noise import Noise
from sfumato.operators import Operator
from sfumato.plans import descend
from sfumato.predictions import Estimate
from sfumato.samplers import Sampler
from sfumato.sampling import prior
from sfumato.solvers.fresh import Split
from sfumato.solvers.multistep import Multistep


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of each picture: y = A x + `noise` z, z standard normal; y has one row a picture."""

    operator: Operator
    y: Tensor
    noise: float | int = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise < math.inf:
            raise SettingsError(
                f"a measurement's noise is a standard deviation of 0 or more, not {self.noise}"
            )

    def take(self, rows: Sequence[int]) -> Measured:
        """The same, for some of the pictures."""
        return Measured(self.operator, self.y[list(rows)], self.noise)

    def misfit(self, x0: Tensor) -> Tensor:
        """U^T (y - A x0): (B, C, H, W), 0 where nothing is measured."""
        factors, measured = self.operator.factors, self.operator.measured.to(x0.device)
        apart = factors.read(self.y.to(x0)) - factors.values.to(x0) * factors.turn(x0)
        return torch.where(measured, apart, torch.zeros_like(apart))

    def begin(self, level: Level, noise: Noise) -> Tensor:
        """The noise that a walk starts from, (B, C, H, W), where the measurement is."""
        return prior(level, self.operator.shape, noise).to(self.y.device)

    def finish(self, x: Tensor) -> Tensor:
        """The nearest pictures that fit an exact measurement exactly; others stay as they are."""
        return x if self.noise else self.operator.fulfilled(x, self.y.to(x))


@dataclass(frozen=True, eq=False)
class Likelihood:
    """log p(y | x_t) with x0 ~ N(x0_hat, r^2 I), but for its constant (Song et al. 2023, eqs. 6 and 7):

    -1/2 (y - A x0_hat)^T (r^2 A A^T + noise^2 I)^-1 (y - A x0_hat)
    r^2 = d^2 sigma^2 / (alpha^2 d^2 + sigma^2)

    data: d, the standard deviation of the data: a number, or (C, H, W), one for each of the operator's
    coordinates. For a Gaussian prior of these deviations r^2 is the variance of x0 given x_t, and `Steered`
    by this with scale 1 is the posterior's denoiser.
    """

    measured: Measured
    data: float | int | Tensor = 1.0

    def __call__(self, estimate: Estimate) -> Tensor:
        alpha, sigma = (
            part.reshape(*part.shape, *(1,) * (4 - part.ndim))
            for part in (estimate.level.alpha, estimate.level.sigma)
        )
        spread = (self.data * sigma) ** 2 / ((alpha * self.data) ** 2 + sigma**2)
        variance = spread * self.measured.operator.values**2 + float(self.measured.noise) ** 2
        weight = torch.where(self.measured.operator.measured, 1 / variance.clamp(min=1e-300), 0.0)
        return -0.5 * (weight.to(estimate.x) * self.measured.misfit(estimate.x0) ** 2).flatten(1).sum(1)

    def take(self, rows: Sequence[int]) -> Likelihood:
        return Likelihood(self.measured.take(rows), self.data)


def pigdm(
    denoise: Denoiser, measured: Measured, levels: Levels, noise: Noise, data: float | int | Tensor = 1.0
) -> Job:
    """Pictures of the posterior given the measurement, by Pi-GDM, with any sampler. data: the standard
    deviation of the data; the paper's is 1. Too small a number believes the first estimates too much.

    An estimate that is clipped tells no gradient: clip around this, not inside it.
    """
    guided = Steered(denoise, Likelihood(measured, data))
    return Job(guided, measured.begin(levels[0], noise), descend(levels), finish=measured.finish)


@dataclass(frozen=True, eq=False)
class Distance:
    """-|y - A x0_hat|, the Euclidean length over each picture's measurement; A may be any function that can
    be differentiated."""

    measure: Callable[[Tensor], Tensor]
    y: Tensor

    def __call__(self, estimate: Estimate) -> Tensor:
        return -torch.linalg.vector_norm(
            (self.y.to(estimate.x) - self.measure(estimate.x0)).flatten(1), dim=1
        )

    def take(self, rows: Sequence[int]) -> Distance:
        return Distance(self.measure, self.y[list(rows)])


@dataclass(frozen=True)
class EveryStep:
    """The weight by which `Steered` moves x by scale times the gradient, at each of DDPM's steps down these
    levels (Chung et al. 2023, algorithm 1).

    x0 enters the next x with c = alpha_s v / sigma_t^2, v the variance of the step (`forward.posterior`), so
    the weight is scale alpha_t / (sigma_t^2 c).
    """

    levels: Levels
    scale: float | int

    def __call__(self, level: Level) -> Tensor:
        there = below(self.levels, level)
        share = there.alpha * transition(there, level).variance / level.sigma**2
        return self.scale * level.alpha / (level.sigma**2 * share)


def dps(
    denoise: Denoiser,
    measure: Callable[[Tensor], Tensor],
    y: Tensor,
    shape: Sequence[int],
    levels: Levels,
    noise: Noise,
    scale: float | int | None = None,
) -> Job:
    """Pictures (C, H, W) = shape that fit y = measure(x), by DPS: DDPM's steps, each followed by `scale`
    times the gradient of -|y - measure(x0)|.

    measure need not be linear. The method as published has one number for how far to trust y, the scale,
    which is 0.3 to 1 in the paper's 1000 steps. Where nothing is said it is 200 divided by the number of
    steps, so that they go as far in all. With the sampler "ddpm" it is the published algorithm.
    """
    each = 200 / (len(levels) - 1) if scale is None else scale
    guided = Steered(denoise, Distance(measure, y), EveryStep(levels, each))
    return Job(guided, prior(levels[0], shape, noise).to(y.device), descend(levels))


@dataclass(frozen=True, eq=False)
class Restored:
    """DDRM's denoiser and hook for a walk down these levels with `ddrm_steps`.

    On the scale of x / alpha, with s the singular value of a coordinate, y its measurement divided by s, and
    x0_hat its estimate, a step down to the noise sigma draws (Kawar et al. 2022, eqs. 7 and 8, eta_b = 1)

        not measured            x0_hat + sqrt(1 - eta^2) sigma eps_hat + eta sigma z
        sigma < noise / s       x0_hat + sqrt(1 - eta^2) sigma (y - x0_hat) / (noise / s) + eta sigma z
        otherwise               y + sqrt(sigma^2 - noise^2 / s^2) z

    The first is a plain move with a share eta of new noise; for the second the estimate is changed so that
    the plain move ends there; the third is put in place after the move.
    """

    denoise: Denoiser
    measured: Measured
    levels: Levels
    noise: Noise
    eta: float | int

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        estimate = self.denoise(x, level, seen)
        there = below(self.levels, level)
        inner = (self.measured.operator.measured & ~self._settled(there)).to(x.device)
        if not bool(inner.any()):
            return estimate
        factors = self.measured.operator.factors
        kept = math.sqrt(1 - self.eta**2) * float(there.sigma / there.alpha)
        share = kept * float(level.alpha / level.sigma)
        believed = factors.turn(estimate.x0)
        away = self.measured.misfit(estimate.x0) / float(self.measured.noise)  # s (y - x0_hat) / noise
        carried = kept / float(level.sigma) * factors.turn(x)
        wanted = (believed + kept * away - carried) / (1 - share)
        return estimate.but(x0=factors.back(torch.where(inner, wanted, believed)))

    def after(self, x: Tensor, level: Level, i: int) -> Tensor:
        """Puts what is measured better than the level's noise in its place."""
        settled = self._settled(level).to(x.device)
        if not bool(settled.any()):
            return x
        operator = self.measured.operator
        values = operator.values.clamp(min=1e-300)
        left = (level.sigma**2 - (level.alpha * float(self.measured.noise) / values) ** 2).clamp(min=0).sqrt()
        z = operator.factors.turn(self.noise.normal(x.shape[1:], "ddrm", i).to(x))
        placed = spread_on(level.alpha, x) * operator.known(self.measured.y.to(x)) + left.to(x) * z
        return operator.factors.back(torch.where(settled, placed, operator.factors.turn(x)))

    def take(self, rows: Sequence[int]) -> Restored:
        return replace(
            self,
            denoise=self.denoise.take(rows),
            measured=self.measured.take(rows),
            noise=self.noise.take(rows),
        )

    def check(self, level: Level) -> None:
        self.denoise.check(level)

    def _settled(self, level: Level) -> Tensor:
        """The coordinates that are measured at least as well as this level knows them, (C, H, W) bool."""
        operator = self.measured.operator
        told = operator.values * level.sigma >= float(self.measured.noise) * level.alpha
        return operator.measured & told


def ddrm(denoise: Denoiser, measured: Measured, levels: Levels, noise: Noise, eta: float | int = 0.85) -> Job:
    """Pictures that fit the measurement, by DDRM, to be walked with `ddrm_steps(how, eta)`. eta is the share
    of new noise where nothing is measured; 0.85 is the paper's."""
    restored = Restored(denoise, measured, levels, noise, eta)
    x = restored.after(measured.begin(levels[0], noise), levels[0], -1)
    return Job(restored, x, descend(levels), restored.after, measured.finish)


@dataclass(frozen=True)
class Share:
    """A share eta of the noise is new at every step, whatever its length (DDRM's eta)."""

    eta: float | int

    def __call__(self, here: Level, there: Level) -> Split:
        return Split(math.sqrt(1 - self.eta**2) * float(there.sigma), self.eta * float(there.sigma))


def ddrm_steps(how: Sampler, eta: float | int = 0.85) -> Sampler:
    """DDRM's step on the grid of a sampler. Raises SettingsError for an eta outside 0 .. 1."""
    if not 0 <= eta <= 1:
        raise SettingsError(f"eta is {eta}, but must lie in 0 .. 1")
    return replace(how, solver=Multistep(order=1), fresh=Share(eta))


def below(levels: Levels, level: Level) -> Level:
    """The next level of a falling grid that is less noisy than this one."""
    lower = (Level(levels.alpha, levels.sigma).angle < float(level.angle) - 1e-9).nonzero()
    return levels[int(lower[0]) if len(lower) else len(levels) - 1]
