"""img2img on exact denoisers: its laws at every strength."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.denoiser import Exact
from sfumato.editing.img2img import img2img, start_of
from sfumato.editing.job import Job, counted, descending, finished
from sfumato.errors import SettingsError
from sfumato.noise import Noise
from sfumato.samplers import SAMPLERS, Sampler, sampler
from sfumato.sampling import sample
from sfumato.schedules import Cosine, Linear
from sfumato.solvers.multistep import Multistep

N = 40_000
DATA = Mixture(
    torch.tensor([0.3, 0.7]).double(),
    torch.tensor([[-0.6], [0.4]]).double(),
    torch.tensor([[0.1], [0.2]]).double(),
)
PIXELS = Exact(
    lambda x, level: DATA.posterior_mean(x.reshape(-1, 1), level.alpha, level.sigma).reshape(x.shape)
)
"""Every pixel for itself, by a mixture of two."""


def picture(seed: int) -> Tensor:
    """One picture of N pixels of the data."""
    noise = Noise((seed,))
    low = noise.uniform((1, N), "which").double() < 0.3
    z = noise.normal((1, N), "place").double()
    return torch.where(low, -0.6 + 0.1 * z, 0.4 + 0.2 * z)[:, None, :]


def test_strength_1_is_sampling() -> None:
    how, noise = Sampler(Multistep("x0", "log_snr", 2)), Noise((3, 4))
    levels = plans.log_snr(Linear(), 8)
    new = sample(PIXELS, (1, 5), plans.descend(levels), how.solver, (3, 4))
    given = torch.rand(2, 1, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(finished(img2img(PIXELS, given, levels, noise, 1), how, noise), new)


@pytest.mark.parametrize("strength", [0.1, 0.4, 0.7, 1.0])
def test_every_strength_keeps_the_datas_law(strength: float) -> None:
    levels, noise = plans.log_snr(Cosine(), 80), Noise((1,))
    job = img2img(PIXELS, picture(2), levels, noise, strength)
    x = finished(job, Sampler(Multistep("x0", "log_snr", 2)), noise).flatten()
    low = (x < -0.25).double()
    truth = DATA.weights[0] * 0.5 * (1 + math.erf(0.35 / 0.1 / math.sqrt(2)))
    truth += DATA.weights[1] * 0.5 * (1 + math.erf(-0.65 / 0.2 / math.sqrt(2)))
    assert float(low.mean()) == pytest.approx(float(truth), abs=5 * math.sqrt(0.21 / N) + 0.002)
    mean, variance = float(DATA.mean), float(DATA.variance)
    assert float(x.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / N) + 0.002)
    assert float(x.var()) == pytest.approx(variance, rel=0.02)


def test_what_stays_of_the_picture_is_what_the_formula_says() -> None:
    """On Gaussian data of deviation d the walk is linear: the correlation with the picture is
    alpha d / hypot(alpha d, sigma) at the level where it starts."""
    data = Mixture.gaussian([0.0], [0.5])
    one = Exact(
        lambda x, level: data.posterior_mean(x.reshape(-1, 1), level.alpha, level.sigma).reshape(x.shape)
    )
    levels, noise = plans.log_snr(Cosine(), 60), Noise((1,))
    given = 0.5 * Noise((9,)).normal((1, N), "data").double()[:, None, :]
    kept: list[float] = []
    for strength in (0.2, 0.5, 0.8):
        x = finished(
            img2img(one, given, levels, noise, strength), Sampler(Multistep("x0", "log_snr", 2)), noise
        )
        start = levels[start_of(strength, levels)]
        signal = 0.5 * float(start.alpha)
        truth = signal / math.hypot(signal, float(start.sigma))
        kept.append(float(torch.corrcoef(torch.stack([x.flatten(), given.flatten()]))[0, 1]))
        assert kept[-1] == pytest.approx(truth, abs=5 / math.sqrt(N))
    assert kept == sorted(kept, reverse=True)


@pytest.mark.parametrize(("strength", "start"), [(0.001, 9), (0.1, 9), (0.5, 5), (0.74, 3), (1, 0)])
def test_strength_is_the_share_of_moves(strength: float, start: int) -> None:
    assert start_of(strength, plans.trailing(Cosine(), 10)) == start


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.01, math.nan, math.inf])
def test_a_strength_outside_is_refused(strength: float) -> None:
    with pytest.raises(SettingsError, match="above 0"):
        img2img(PIXELS, picture(0), plans.trailing(Cosine(), 5), Noise((0,)), strength)


def test_samplers_with_a_way_of_their_own_are_refused() -> None:
    x = torch.zeros(1, 1, 5)
    with pytest.raises(SettingsError, match="adaptive"):
        finished(Job(PIXELS, x, []), sampler("dpm-adaptive"), Noise((0,)))
    for name in ("edm", "restart", "pc", "langevin"):
        with pytest.raises(SettingsError, match="descends"):
            descending(sampler(name), Cosine(), 30)
    for name, how in SAMPLERS.items():
        if how.route is plans.descend:
            assert len(descending(how, Cosine(), 10)) == 11, name
    assert counted(sampler("vab")).order == 3
    assert torch.equal(finished(Job(PIXELS, x, []), sampler("ddim"), Noise((0,))), x)
