"""Inverse problems with exact denoisers: Pi-GDM against the exact posterior, DPS and DDRM against the steps
of their papers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from mathematics.oracles import exact, f64
from sfumato.data.toy import Mixture
from sfumato.denoiser import Exact
from sfumato.editing.inverse import Likelihood, Measured, ddrm, ddrm_steps, dps, pigdm
from sfumato.editing.job import finished
from sfumato.errors import SettingsError
from sfumato.forward import posterior
from sfumato.guidance.steer import Steered
from sfumato.level import Level, Levels
from sfumato.noise import Noise
from sfumato.operators import Operator, blur, convolution, downsample, grey, mask, sensing
from sfumato.plans import trailing
from sfumato.samplers import sampler
from sfumato.schedules import Cosine
from sfumato.tables import Table

SHAPE = (3, 2, 4)
SIZE = math.prod(SHAPE)
MEAN = torch.linspace(-0.6, 0.6, SIZE, dtype=torch.float64)
OPERATORS = {
    "mask": mask(torch.tensor([[True, False, True, False], [False, True, True, True]]), 3),
    "smaller": downsample(SHAPE, (1, 2)),
    "blur": blur(SHAPE, 0.6),
    "convolution": convolution(SHAPE, torch.tensor([[0.2, 0.5, 0.3]])),
    "grey": grey(SHAPE),
    "sensing": sensing(SHAPE, 0.4),
}
EVERY = pytest.mark.parametrize("name", OPERATORS)
LEVELS = (Level.of(0.999, 0.03), Level.of(0.9, 0.4), Level.of(0.2, 0.98), Level.of(1.0, 20.0))


def gaussian(std: float = 0.7) -> Exact:
    """The exact denoiser of pictures N(MEAN, std^2 I)."""
    return exact(Mixture(f64(1.0), MEAN[None], torch.full((1, SIZE), std, dtype=torch.float64)))


def matrix(operator: Operator) -> Tensor:
    """A, (M, SIZE), of what counts as measured."""
    eye = torch.eye(SIZE, dtype=torch.float64).reshape(SIZE, *SHAPE)
    return operator.factors.write(operator.values * operator.factors.turn(eye)).flatten(1).T


def pictures(rows: int, key: int = 0) -> Tensor:
    return Noise(tuple(range(key, key + rows))).normal(SHAPE, "picture").double()


def posterior_of(
    operator: Operator, y: Tensor, noise: float, covariance: Tensor, mean: Tensor = MEAN
) -> tuple[Tensor, Tensor]:
    """Mean (B, SIZE) and covariance of x given y = A x + noise z for x ~ N(mean, covariance): Bayes' rule."""
    a = matrix(operator)
    gain = covariance @ a.T @ torch.linalg.pinv(a @ covariance @ a.T + noise**2 * torch.eye(len(a)).double())
    return mean + (y.flatten(1) - mean @ a.T) @ gain.T, covariance - gain @ a @ covariance


def given_level(
    operator: Operator, x: Tensor, level: Level, y: Tensor, noise: float, covariance: Tensor
) -> Tensor:
    """E[x0 | x_t = x, y] for x0 ~ N(MEAN, covariance), one row after the other."""
    ratio = float(level.sigma / level.alpha)
    eye = torch.eye(SIZE, dtype=torch.float64)
    gain = covariance @ torch.linalg.inv(covariance + ratio**2 * eye)
    rest = covariance - gain @ covariance
    means = MEAN + (x.flatten(1) / level.alpha - MEAN) @ gain.T
    out = [posterior_of(operator, y[i : i + 1], noise, rest, means[i])[0] for i in range(len(x))]
    return torch.cat(out).reshape(x.shape)


@EVERY
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_pigdm_is_the_posteriors_denoiser_for_an_isotropic_gaussian(name: str, noise: float) -> None:
    operator = OPERATORS[name]
    y = operator(pictures(2)) + noise * operator(pictures(2, 7))
    guided = Steered(gaussian(0.7), Likelihood(Measured(operator, y, noise), 0.7))
    for level in LEVELS:
        x = float(level.norm) * pictures(2, 3)
        right = given_level(operator, x, level, y, noise, 0.49 * torch.eye(SIZE, dtype=torch.float64))
        torch.testing.assert_close(guided(x, level).x0, right, rtol=1e-9, atol=1e-9)


@EVERY
def test_pigdm_is_exact_for_any_gaussian_that_the_operator_does_not_mix(name: str) -> None:
    """A covariance V diag(d^2) V^T: the prior's deviations are told coordinate by coordinate."""
    operator = OPERATORS[name]
    data = torch.linspace(0.2, 1.2, SIZE, dtype=torch.float64).reshape(SHAPE)
    eye = torch.eye(SIZE, dtype=torch.float64).reshape(SIZE, *SHAPE)
    root = operator.factors.back(data * operator.factors.turn(eye)).flatten(1)
    covariance = root @ root

    def belief(x: Tensor, level: Level) -> Tensor:
        ratio = float(level.sigma / level.alpha)
        gain = covariance @ torch.linalg.inv(covariance + ratio**2 * torch.eye(SIZE, dtype=torch.float64))
        return (MEAN + (x.flatten(1) / level.alpha - MEAN) @ gain.T).reshape(x.shape)

    y = operator(pictures(2))
    guided = Steered(Exact(belief), Likelihood(Measured(operator, y, 0.2), data))
    for level in LEVELS:
        x = float(level.norm) * pictures(2, 3)
        right = given_level(operator, x, level, y, 0.2, covariance)
        torch.testing.assert_close(guided(x, level).x0, right, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["smaller", "sensing"])
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_pigdm_draws_the_posterior_of_a_gaussian(name: str, noise: float) -> None:
    """Mean and variance of 1,500 pictures within five standard errors, in 40 steps; the measurement exactly
    where it has no noise."""
    operator, n = OPERATORS[name], 1500
    y = operator(pictures(1, 5))
    how, streams = sampler("ddim-bounded"), Noise(tuple(range(n)))
    levels = how.grid(Table.cosine(), 60)
    measured = Measured(operator, y.expand(n, *y.shape[1:]), noise)
    out = finished(pigdm(gaussian(0.7), measured, levels, streams, 0.7), how, streams).flatten(1).double()
    mean, covariance = posterior_of(operator, y, noise, 0.49 * torch.eye(SIZE, dtype=torch.float64))
    variance = covariance.diagonal()
    away = (out.mean(0) - mean[0]) / (variance / n).sqrt().clamp(min=1e-4)
    assert float(away.abs().max()) < 5
    errors = (out.var(0) - variance) / (variance * math.sqrt(2 / n)).clamp(min=1e-4)
    assert float(errors.abs().max()) < 6
    if not noise:
        fits = operator(out.reshape(n, *SHAPE))
        torch.testing.assert_close(fits, y.expand_as(fits), rtol=0, atol=1e-5)


def published_ddrm(
    operator: Operator, y: Tensor, noise: float, levels: Levels, streams: Noise, eta: float
) -> Tensor:
    """Kawar et al. 2022, equations 7 and 8 with eta_b = 1, by coordinates on the scale of x / alpha.
    The prior is the Gaussian, the normal numbers are those that the walk draws."""
    values = operator.values
    measured = operator.measured
    turn, known, denoise = operator.factors.turn, operator.known(y), gaussian(0.7)
    sigmas = (levels.sigma / levels.alpha).tolist()
    spoilt = torch.where(measured, noise / values.clamp(min=1e-9), 0.0)

    def better(sigma: float) -> Tensor:
        return measured & (values * sigma >= noise)

    draw = lambda *use: turn(streams.normal(SHAPE, *use).double())
    s = draw("start") * sigmas[0]
    first = known + (sigmas[0] ** 2 - spoilt**2).clamp(min=0).sqrt() * draw("ddrm", -1)
    s = torch.where(better(sigmas[0]), first, s)
    for i, (sigma, below) in enumerate(pairwise(sigmas)):
        x0 = turn(denoise(operator.factors.back(s), Level.of(1.0, sigma)).x0)
        z, kept = draw("step", i), math.sqrt(1 - eta**2)
        unknown = x0 + kept * below * (s - x0) / sigma + eta * below * z
        worse = x0 + kept * below * (known - x0) / spoilt.clamp(min=1e-9) + eta * below * z
        told = known + (below**2 - spoilt**2).clamp(min=0).sqrt() * draw("ddrm", i)
        s = torch.where(measured, torch.where(better(below), told, worse), unknown)
    return operator.factors.back(s)


@EVERY
@pytest.mark.parametrize(("noise", "eta"), [(0.0, 0.85), (0.3, 0.85), (0.3, 0.0), (0.1, 1.0)])
def test_ddrm_is_the_published_step(name: str, noise: float, eta: float) -> None:
    operator, streams = OPERATORS[name], Noise((1, 2, 3))
    y = operator(pictures(1)).expand(3, *operator(pictures(1)).shape[1:])
    table = Table.linear(1000)  # alpha > 0 at its end
    levels = trailing(table, 12)
    job = ddrm(gaussian(0.7), Measured(operator, y, noise), levels, streams, eta)
    how = ddrm_steps(sampler("ddim"), eta)
    out = finished(job, how, streams).double()
    right = published_ddrm(operator, y, noise, levels, streams, eta)
    torch.testing.assert_close(out, right, rtol=1e-4, atol=1e-4)
    if not noise:
        part = operator.factors.turn(out)[:, operator.measured]
        torch.testing.assert_close(part, operator.known(y)[:, operator.measured], rtol=0, atol=1e-5)


def test_ddrm_starts_from_pure_noise_too() -> None:
    operator = OPERATORS["smaller"]
    streams, y = Noise((1, 2)), operator(pictures(2))
    job = ddrm(gaussian(), Measured(operator, y, 0.1), trailing(Cosine(), 8), streams)
    assert float(job.plan[0].here.alpha) == 0
    out = finished(job, ddrm_steps(sampler("ddim")), streams)
    assert float((operator(out) - y).square().mean().sqrt()) < 2 * 0.1


def test_dps_is_the_published_step() -> None:
    """DDPM's step, then x minus scale times the gradient of |y - A x0| (Chung et al. 2023, algorithm 1)."""
    operator, streams, scale = OPERATORS["blur"], Noise((4, 5)), 0.3
    y, levels, denoise = operator(pictures(2)), trailing(Table.cosine(), 25), gaussian(0.5)
    out = finished(dps(denoise, operator, y, SHAPE, levels, streams, scale), sampler("ddpm"), streams)
    x = streams.normal(SHAPE, "start").double()
    for i in range(25):
        here, there = levels[i], levels[i + 1]
        leaf = x.clone().requires_grad_()
        x0 = denoise(leaf, here).x0
        length = torch.linalg.vector_norm((y - operator(x0)).flatten(1), dim=1).sum()
        (slope,) = torch.autograd.grad(length, leaf)
        step = posterior(x, x0.detach(), here, there)
        z = streams.normal(SHAPE, "step", i).double() if i < 24 else torch.zeros_like(x)
        x = step.mean + step.variance.sqrt() * z
        x = x - (scale * slope if float(here.alpha) > 0 else 0)
    torch.testing.assert_close(out.double(), x, rtol=1e-4, atol=1e-4)


def test_dps_takes_measurements_that_are_not_linear() -> None:
    """The square of each pixel: the sign must be found."""
    measure = lambda x: x.square()
    streams, y = Noise(tuple(range(16))), pictures(16, 3).square()
    levels, how = trailing(Table.cosine(), 100), sampler("ddpm")
    job = dps(gaussian(0.9), measure, y, SHAPE, levels, streams, 0.3)
    misses = lambda x: (measure(x) - y).square().mean()
    plain = finished(dps(gaussian(0.9), measure, y, SHAPE, levels, streams, 0.0), how, streams)
    assert float(misses(finished(job, how, streams))) < 0.2 * float(misses(plain))


MIXTURE = Mixture(
    f64(0.3, 0.7),
    torch.stack([MEAN - 0.5, MEAN + 0.4]),
    torch.stack(
        [torch.full((SIZE,), 0.25, dtype=torch.float64), torch.full((SIZE,), 0.35, dtype=torch.float64)]
    ),
)


def mixture_posterior_mean(operator: Operator, y: Tensor, noise: float) -> Tensor:
    """E[x | y] for the mixture, (SIZE,): Bayes' rule for every component."""
    a = matrix(operator)
    logs, means = list[Tensor](), list[Tensor]()
    for weight, mean, std in zip(MIXTURE.weights, MIXTURE.means, MIXTURE.stds, strict=True):
        covariance = torch.diag(std**2)
        means.append(posterior_of(operator, y, noise, covariance, mean)[0][0])
        around = a @ covariance @ a.T + noise**2 * torch.eye(len(a), dtype=torch.float64)
        apart = y.flatten() - a @ mean
        logs.append(weight.log() - 0.5 * (torch.logdet(around) + apart @ torch.linalg.solve(around, apart)))
    return torch.softmax(torch.stack(logs), 0) @ torch.stack(means)


@pytest.mark.parametrize("method", ["pigdm", "ddrm", "dps"])
def test_on_a_mixture_they_come_near_the_posterior(method: str) -> None:
    """None is exact there. The distance of the mean of 400 pictures to the posterior's, as a share of the
    prior's: what each is known to leave is in the manual."""
    operator, n, noise = OPERATORS["smaller"], 400, 0.1
    y = operator((MEAN + 0.7).reshape(1, *SHAPE))
    streams, rows = Noise(tuple(range(n))), y.expand(n, *y.shape[1:])
    levels = trailing(Table.cosine(), 50)
    how = sampler("ddpm" if method == "dps" else "ddim")
    denoise = exact(MIXTURE)
    if method == "pigdm":
        job = pigdm(denoise, Measured(operator, rows, noise), levels, streams)
    elif method == "ddrm":
        job, how = ddrm(denoise, Measured(operator, rows, noise), levels, streams), ddrm_steps(how)
    else:
        job = dps(denoise, operator, rows, SHAPE, levels, streams, 0.3)
    out = finished(job, how, streams).flatten(1).double().mean(0)
    right = mixture_posterior_mean(operator, y, noise)
    far = (MIXTURE.mean - right).norm()
    assert float((out - right).norm() / far) < 0.15


def test_rows_are_solved_for_themselves() -> None:
    operator, streams = OPERATORS["grey"], Noise((1, 2, 3))
    y, levels = operator(pictures(3)), trailing(Table.cosine(), 6)
    for make, how in (
        (lambda m, s: pigdm(gaussian(), m, levels, s), sampler("ddim")),
        (lambda m, s: ddrm(gaussian(), m, levels, s), ddrm_steps(sampler("ddim"))),
        (lambda m, s: dps(gaussian(), operator, m.y, SHAPE, levels, s), sampler("ddpm")),
    ):
        measured = Measured(operator, y, 0.1)
        whole = finished(make(measured, streams), how, streams)
        alone = finished(make(measured.take([2]), streams.take([2])), how, streams.take([2]))
        torch.testing.assert_close(alone, whole[2:], rtol=1e-5, atol=1e-5)
        level, x = levels[2], pictures(3, 9)
        inner = make(measured, streams).denoise
        torch.testing.assert_close(inner.take([2, 0])(x[[2, 0]], level).x0, inner(x, level).x0[[2, 0]])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SettingsError, match="standard deviation"):
        Measured(OPERATORS["grey"], pictures(1), -1.0)
    with pytest.raises(SettingsError, match="eta"):
        ddrm_steps(sampler("ddim"), 1.5)
