"""N12, N13: the terms of the variational bound against sampling, sums and each other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sfumato.bound import (
    Bins,
    Variance,
    decoder_nll,
    direct_nll,
    discretised_gaussian_log_likelihood,
    gaussian_kl,
    log_ndtr,
    prior_kl,
    rate,
    reverse_log_variance,
    steepness,
    step_kl,
)
from sfumato.errors import SettingsError
from sfumato.forward import largest_variance, noised, posterior
from sfumato.level import CLEAN, Level
from sfumato.predictions import Estimate, Said, V
from sfumato.schedules import VE, Cosine, Linear, RectifiedFlow, Schedule
from sfumato.tables import Table

VALUES = torch.linspace(-1, 1, 256, dtype=torch.float64)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def believed(x0: Tensor, level: Level, error: float = 0.3, spread: Tensor | None = None) -> Estimate:
    """An estimate at a noisy x0 that is wrong by about `error`."""
    x = noised(x0, normals(*x0.shape, seed=5), level)
    belief = x0 + error * normals(*x0.shape, seed=6)
    alpha, sigma = level.on(x)
    y = V().target(belief, (x - alpha * belief) / sigma, level)
    return Estimate(x, level, Said(x, level, y, V()), spread)


def test_the_kl_of_gaussians_is_what_sampling_says() -> None:
    m1, m2 = torch.tensor(0.3, dtype=torch.float64), torch.tensor(-0.4, dtype=torch.float64)
    v1, v2 = torch.tensor(-0.5, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    x = m1 + torch.exp(v1 / 2) * normals(1_000_000)
    log = lambda m, v: -((x - m) ** 2) / (2 * torch.exp(v)) - v / 2
    ratio = log(m1, v1) - log(m2, v2)
    four = 4 * float(ratio.std()) / 1000
    assert abs(float(gaussian_kl(m1, v1, m2, v2) - ratio.mean())) < four


def test_the_kl_is_never_negative_and_0_for_equal_ones() -> None:
    m, v = normals(2000), 3 * normals(2000, seed=1)
    assert torch.equal(gaussian_kl(m, v, m, v), torch.zeros_like(m))
    for near in (1e-3, 1e-7, 1e-12):
        away = gaussian_kl(m, v, m, v + near * normals(2000, seed=2))
        assert float(away.min()) >= -1e-12


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.123, 0.9999, 40.0])
@pytest.mark.parametrize("log_std", [-7.0, -4.0, -1.0, 3.0])
def test_a_discretised_gaussian_adds_to_1(mean: float, log_std: float) -> None:
    for dtype, most in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        m, s = (torch.tensor(v, dtype=dtype) for v in (mean, math.exp(log_std)))
        log = discretised_gaussian_log_likelihood(VALUES.to(dtype), m, s)
        assert abs(float(torch.logsumexp(log, 0))) < most
    few = Bins(5, 0.0, 4.0)
    log = discretised_gaussian_log_likelihood(torch.arange(5.0).double(), m.double(), s.double(), few)
    assert abs(float(torch.logsumexp(log, 0))) < 1e-9


def test_far_tails_are_right_and_have_gradients() -> None:
    """Beyond 37 deviations distribution functions are 0; the log is -z^2/2 - log z + ...."""
    std = torch.tensor(1e-3, dtype=torch.float64)
    mean = torch.tensor([-0.5, 0.5], dtype=torch.float64, requires_grad=True)
    x0 = torch.tensor([129 / 255, -129 / 255], dtype=torch.float64)  # 1003 deviations away, less half a bin
    log = discretised_gaussian_log_likelihood(x0, mean, std)
    z = ((x0 - mean).abs() - 1 / 255) / std
    mills = -(z**2) / 2 - z.log() - math.log(2 * math.pi) / 2 + torch.log1p(-1 / z**2)
    torch.testing.assert_close(log, mills, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(log.sum(), mean)
    torch.testing.assert_close(gradient, torch.tensor([1.0, -1.0]).double() * z / std, rtol=1e-3, atol=0)
    for dtype, rtol in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        far = torch.tensor([-1e8, -3e3, -30.0, -1.0, 0.0, 3.0], dtype=dtype, requires_grad=True)
        torch.testing.assert_close(log_ndtr(far), torch.special.log_ndtr(far), rtol=rtol, atol=0)
        (slope,) = torch.autograd.grad(log_ndtr(far).sum(), far)
        exact = math.sqrt(2 / math.pi) / torch.special.erfcx(-far.double() / math.sqrt(2))
        torch.testing.assert_close(slope.double(), exact.detach(), rtol=rtol, atol=0)
    ends = torch.tensor([-1.0, 1.0, 0.9999999], dtype=torch.float64)  # the last is rounded to its bin
    far = discretised_gaussian_log_likelihood(ends, torch.tensor([-9.0, 9.0, 9.0]).double(), std)
    assert far.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("schedule", [Cosine(), Linear(), RectifiedFlow(), VE(), Table.linear()])
def test_a_step_is_the_kl_of_its_posteriors(schedule: Schedule) -> None:
    times = torch.tensor([[0.11, 0.3, 0.9], [0.1, 0.2, 0.5]], dtype=torch.float64)
    here, there = schedule.level(times[0]), schedule.level(times[1])
    x0 = normals(3, 2, 4)
    v = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    e = believed(x0, here, spread=v)
    true, model = posterior(e.x, x0, here, there), posterior(e.x, e.x0, here, there)
    small, large = (w.reshape(3, 1, 1).log() for w in (true.variance, largest_variance(here, there)))
    kinds: dict[Variance, Tensor] = {"small": small, "large": large, "learned": v * large + (1 - v) * small}
    for kind, log_variance in kinds.items():
        expected = gaussian_kl(true.mean, small, model.mean, log_variance)
        torch.testing.assert_close(step_kl(x0, e, there, kind), expected, rtol=1e-7, atol=1e-9)
        assert float(step_kl(x0, e, there, kind).min()) >= -1e-12
    # Kingma et al. 2021, eq. 13
    fall = (torch.exp(there.log_snr) - torch.exp(here.log_snr)).reshape(3, 1, 1) / 2
    torch.testing.assert_close(step_kl(x0, e, there), fall * (x0 - e.x0) ** 2, rtol=1e-9, atol=0)


def test_many_steps_become_the_continuous_rate() -> None:
    """Over [0.5, 0.5 + h] the KL is rate x fall of the log-SNR, with an error of order h."""
    schedule, x0 = Cosine(), normals(1, 50)
    errors: list[float] = []
    for h in (1e-2, 1e-3):
        here, there = (schedule.level(torch.tensor(t, dtype=torch.float64)) for t in (0.5 + h, 0.5))
        e = believed(x0, here)
        alpha, sigma = here.on(x0)
        eps = (e.x - alpha * x0) / sigma
        exact = step_kl(x0, e, there).mean() / rate(eps, e).mean() / float(there.log_snr - here.log_snr)
        slope = steepness(schedule, torch.tensor(0.5 + h / 2)) * h
        assert float(slope) == pytest.approx(float(there.log_snr - here.log_snr), rel=h)
        errors.append(abs(float(exact) - 1))
    assert errors[1] < errors[0] / 8 < 0.01


@pytest.mark.parametrize("level", [Level.of(0.3, 0.9), Level.of(1.0, 80.0), Level.of(1e-9, 1.0)])
def test_the_prior_s_term(level: Level) -> None:
    x0 = normals(4, 3)
    shape = lambda v: v.log().expand(4, 3)
    expected = gaussian_kl(
        level.alpha * x0, shape(level.sigma**2), torch.zeros(4, 3).double(), shape(level.norm**2)
    )
    torch.testing.assert_close(prior_kl(x0, level), expected, rtol=1e-6, atol=1e-15)
    assert torch.equal(prior_kl(x0, Level.of(0.0, 1.0)), torch.zeros(4, 3).double())


def test_the_decoder_is_wide_where_nothing_else_is_known() -> None:
    """DDPM's first variance: beta-tilde_2 for the small one, beta_1 for the large one."""
    table = Table.linear()
    first, second = (table.level(torch.tensor(n / 1000, dtype=torch.float64)) for n in (1, 2))
    x0 = VALUES[torch.arange(40) * 6].reshape(4, 10)
    half = torch.full((4, 10), 0.5, dtype=torch.float64)
    e = believed(x0, first, 0.01, half)
    beta, tilde = table.betas, float(table.betas[1] * (1 - table.alpha_bar[0]) / (1 - table.alpha_bar[1]))
    kinds: dict[Variance, float] = {"small": tilde, "large": float(beta[0])}
    kinds["learned"] = math.sqrt(tilde * float(beta[0]))
    for kind, variance in kinds.items():
        got = reverse_log_variance(e, CLEAN, kind, second).exp()
        torch.testing.assert_close(got.mean(), torch.tensor(variance, dtype=torch.float64), rtol=1e-9, atol=0)
        std = torch.tensor(variance, dtype=torch.float64).sqrt()
        expected = -discretised_gaussian_log_likelihood(x0, e.x0, std)
        torch.testing.assert_close(decoder_nll(x0, e, kind, second), expected, rtol=1e-7, atol=1e-12)
    with pytest.raises(SettingsError, match="decoder_nll"):
        step_kl(x0, e, CLEAN)
    with pytest.raises(SettingsError, match="no learned variance"):
        decoder_nll(x0, believed(x0, first), "learned", second)
    assert float(direct_nll(x0, x0 * 0.9, Level.of(0.9, 1e-5)).max()) < 1e-12
