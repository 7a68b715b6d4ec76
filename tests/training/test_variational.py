"""The variational bound as an objective: exact sums, its hybrid, and what it cannot be asked."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sfumato.bound import Bins, discretised_gaussian_log_likelihood, gaussian_kl
from sfumato.data.toy import Mixture
from sfumato.errors import SettingsError
from sfumato.forward import largest_variance, noised, posterior
from sfumato.level import Level
from sfumato.model import Model
from sfumato.predictions import Epsilon, Estimate, Said, V
from sfumato.schedules import VE, Cosine, LogLinear, RectifiedFlow, Schedule
from sfumato.tables import Table
from sfumato.training.objectives import Denoising, Objective, Trial
from sfumato.training.settings import TrainSettings
from sfumato.training.variational import VariationalBound

TABLE = Table.linear(12, 0.01, 0.4)
BINS = Bins(16)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trials(spread: bool) -> Trial:
    """The same picture at every node, each with its own noise and its own wrong answer."""
    level = TABLE.nodes()
    x0 = ((normals(1, 1, 2, 3) * 3).round().clamp(-7, 7) * 2 + 1).expand(12, 1, 2, 3) / 15
    eps = normals(12, 1, 2, 3, seed=1)
    x = noised(x0, eps, level)
    y = normals(12, 1, 2, 3, seed=2)
    v = torch.rand(12, 1, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return Trial(x0, eps, level, Estimate(x, level, Said(x, level, y, V()), v if spread else None), TABLE)


def by_hand(asked: Trial, spread: bool) -> float:
    """Ho et al. 2020, eq. 5, term by term, in bits per number."""
    total = 0.0
    node = lambda n: TABLE.level(torch.tensor(n / 12, dtype=torch.float64))
    for n in range(1, 13):
        here, there, row = node(n), node(n - 1), slice(n - 1, n)
        x0, x, guess = asked.x0[row], asked.estimate.x[row], asked.estimate.x0[row]
        true, said = posterior(x, x0, here, there), posterior(x, guess, here, there)
        low = posterior(x, x0, node(2), node(1)).variance if n == 1 else true.variance
        log = low.log().expand(x0.shape)
        if spread and asked.estimate.spread is not None:
            v = asked.estimate.spread[row]
            log = v * largest_variance(here, there).log() + (1 - v) * low.log()
        if n == 1:
            likelihood = discretised_gaussian_log_likelihood(x0, guess, torch.exp(log / 2), BINS)
            total -= float(likelihood.mean())
        else:
            total += float(gaussian_kl(true.mean, true.variance.log(), said.mean, log).mean())
    end = node(12)
    prior = gaussian_kl(
        end.alpha * asked.x0[:1], (end.sigma**2).log(), torch.zeros(()).double(), torch.zeros(()).double()
    )
    return (total + float(prior.mean())) / math.log(2)


@pytest.mark.parametrize("spread", [False, True])
def test_the_mean_over_all_steps_is_the_whole_bound(spread: bool) -> None:
    asked = trials(spread)
    terms = VariationalBound(bins=BINS)(asked)
    assert terms.shape == (12,)
    assert float(terms.mean()) == pytest.approx(by_hand(asked, spread), rel=1e-9)


def test_a_hybrid_teaches_the_variance_alone() -> None:
    asked = trials(True)
    y, v = asked.estimate.said.y.requires_grad_(), asked.estimate.spread
    assert v is not None
    v.requires_grad_()
    whole = VariationalBound(bins=BINS)(asked).sum()
    half = VariationalBound(mean=False, bins=BINS)(asked).sum()
    assert torch.equal(whole, half)
    of_y, of_v = torch.autograd.grad(whole, (y, v))
    assert float(of_y.abs().min()) > 0
    none, same = torch.autograd.grad(half, (y, v), allow_unused=True)
    assert none is None
    torch.testing.assert_close(same, of_v)


def test_the_learned_variance_finds_the_true_one() -> None:
    """For Gaussian data of standard deviation s and an exact estimate the best v is known at every step."""
    s = 0.6
    node = lambda n: TABLE.level(torch.tensor(n / 12, dtype=torch.float64))
    for n in (3, 8):
        here, there = node(n), node(n - 1)
        x0 = s * normals(20_000, 1)
        x = noised(x0, normals(20_000, 1, seed=1), here)
        gain = s**2 * here.alpha / (s**2 * here.alpha**2 + here.sigma**2)
        v = torch.full((20_000, 1), 0.5, dtype=torch.float64, requires_grad=True)
        e = Estimate(x, here, Said(x, here, gain * x, V()), v).but(x0=gain * x)
        # The reverse step's variance is that of the mean's error beside beta-tilde.
        left = s**2 * here.sigma**2 / (s**2 * here.alpha**2 + here.sigma**2)
        k = there.alpha * (here.sigma**2 - (here.alpha / there.alpha * there.sigma) ** 2) / here.sigma**2
        tilde = posterior(x, x, here, there).variance
        wanted = torch.log((tilde + k**2 * left) / tilde) / torch.log(largest_variance(here, there) / tilde)
        level = Level(here.alpha.expand(20_000), here.sigma.expand(20_000))
        trial = Trial(x0, x, level, e, TABLE)
        best = []
        for guess in torch.linspace(0, 1, 41, dtype=torch.float64):
            spread = guess.expand(20_000, 1)
            told = Estimate(e.x, e.level, e.said, spread)
            best.append(float(VariationalBound()(Trial(x0, x, level, told, TABLE)).mean()))
        found = torch.linspace(0, 1, 41)[int(torch.tensor(best).argmin())]
        assert float(found) == pytest.approx(float(wanted), abs=0.04)
        assert trial.estimate.spread is v


@pytest.mark.parametrize("schedule", [LogLinear(-6.0, 4.0), VE(0.05, 40.0), LogLinear(-8.0, 6.0)])
def test_the_continuous_bound_of_a_gaussian(schedule: Schedule) -> None:
    """Its diffusion term is the integral of 1/2 E|eps - E eps|^2, in closed form for N(0, s^2): with y =
    log-SNR the error of eps is s^2 e^y / (1 + s^2 e^y), whose integral is log(1 + s^2 e^y)."""
    s, count = 0.5, 200_000
    t = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    level = schedule.level(t)
    x0, eps = s * normals(count, 1), normals(count, 1, seed=1)
    x = noised(x0, eps, level)
    alpha, sigma = level.on(x)
    exact = Mixture.gaussian([0.0], [s])
    believed = exact.posterior_mean(x, level.alpha, level.sigma)
    torch.testing.assert_close(believed, s**2 * alpha / (s**2 * alpha**2 + sigma**2) * x)
    terms = VariationalBound(bins=Bins(2, 0.0, 1e9))(
        Trial(x0, eps, level, Estimate.of(x, level, x0=believed), schedule)
    )
    ends = schedule.level(torch.tensor([0.0, 1.0], dtype=torch.float64))
    grown = torch.log1p(s**2 * torch.exp(ends.log_snr))
    snr = torch.exp(ends.log_snr[1])
    prior = (snr / (1 + snr) * (s**2 - 1) + torch.log1p(snr)) / 2
    expected = float((grown[0] - grown[1]) / 2 + prior) / math.log(2)  # one wide bin: no cost to decode
    four = 4 * float(terms.std()) / math.sqrt(count)
    assert abs(float(terms.mean()) - expected) < four < 0.05 * expected


def model(schedule: Schedule, learned: bool = False, prediction: object = None) -> Model:
    return Model(nn.Identity(), schedule, prediction or V(), learned_variance=learned)  # pyright: ignore


@pytest.mark.parametrize(
    ("asked", "of", "why"),
    [
        (VariationalBound(), model(Cosine()), "the bound of Cosine is infinite"),
        (VariationalBound(), model(RectifiedFlow()), "the bound of RectifiedFlow is infinite"),
        (VariationalBound("learned"), model(Table.cosine()), "does not learn its variance"),
        (VariationalBound(), model(LogLinear(), learned=True), "belongs to the steps of a table"),
        (
            VariationalBound(),
            model(Table.cosine(largest=1.0), False, Epsilon()),
            "says nothing about one half",
        ),
    ],
)
def test_what_has_no_bound_is_refused(asked: Objective, of: Model, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        asked.check(of)
    with pytest.raises(SettingsError, match=why):
        (Denoising() + 0.001 * asked).check(of)  # pyright: ignore


def test_settings_name_the_bound(model: Callable[..., Model]) -> None:
    assert TrainSettings(steps=1, weight="bound").objective(Table.cosine()) == VariationalBound()
    both = TrainSettings(steps=1, bound=0.001).objective(Table.cosine())
    assert both == Denoising() + 0.001 * VariationalBound(mean=False)
    for wrong, why in (
        ({"weight": "bound", "levels": "logit-normal"}, "levels drawn evenly"),
        ({"weight": "bound", "huber": 0.1}, "is the whole loss"),
        ({"bound": -1.0}, "--bound must not be negative"),
    ):
        with pytest.raises(SettingsError, match=why):
            TrainSettings(steps=1, **wrong)
    with pytest.raises(SettingsError, match="steps of a table"):
        TrainSettings(steps=1, weight="ddpm").objective(Cosine())
