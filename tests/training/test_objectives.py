"""N20: one loss, whatever is predicted, and the weights of the papers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sfumato.bound import step_kl
from sfumato.errors import SettingsError
from sfumato.forward import noised
from sfumato.level import Level
from sfumato.model import Model
from sfumato.predictions import Clean, Epsilon, Estimate, Flow, Mean, Prediction, Said, Score, V
from sfumato.schedules import Cosine, RectifiedFlow, Schedule
from sfumato.tables import Table
from sfumato.training.objectives import Denoising, Trial
from sfumato.training.weights import (
    CLEAN_LOSS,
    FLOW_LOSS,
    P2,
    SIMPLE,
    V_LOSS,
    Custom,
    Ddpm,
    Edm,
    InverseVariance,
    MinSnr,
    SigmoidWeight,
    Weight,
    weight_on,
)

PREDICTIONS: list[Prediction] = [
    Epsilon(), Clean(), Score(), Flow(), V(), V(0.5, -1.0), Mean(Table.linear(40))
]  # fmt: skip
WEIGHTS: list[Weight] = [
    SIMPLE,
    CLEAN_LOSS,
    V_LOSS,
    FLOW_LOSS,
    MinSnr(5.0),
    Edm(0.5),
    P2(0.5, 2.0),
    SigmoidWeight(-1.0),
    Custom(lambda l: l.alpha),
]


def inside(schedule: Schedule, count: int = 12) -> Level:
    return schedule.level(torch.linspace(0.1, 0.9, count, dtype=torch.float64))


def trial(level: Level, prediction: Prediction, belief: Tensor) -> tuple[Trial, Tensor]:
    """What a network of this kind says when it believes that x0 is `belief`; and x0."""
    gen = torch.Generator().manual_seed(1)
    x0, eps = (torch.randn(len(level.alpha), 2, 3, 3, generator=gen, dtype=torch.float64) for _ in range(2))
    x = noised(x0, eps, level)
    alpha, sigma = level.on(x)
    y = prediction.target(belief, (x - alpha * belief) / sigma, level)
    return Trial(x0, eps, level, Estimate(x, level, Said(x, level, y, prediction))), x0


def belief(count: int) -> Tensor:
    gen = torch.Generator().manual_seed(2)
    return torch.randn(count, 2, 3, 3, generator=gen, dtype=torch.float64)


@pytest.mark.parametrize("schedule", [Cosine(), RectifiedFlow(), Table.linear(40)])
@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda w: type(w).__name__)
def test_every_prediction_has_the_same_loss_and_gradient(schedule: Schedule, weight: Weight) -> None:
    level = inside(schedule)
    results = []
    for prediction in PREDICTIONS:
        if isinstance(prediction, Mean) and not isinstance(schedule, Table):
            continue
        guess = belief(len(level.alpha)).requires_grad_()
        asked, _ = trial(level, prediction, guess)
        loss = Denoising(weight)(asked)
        (gradient,) = torch.autograd.grad(loss.sum(), guess)
        results.append((loss.detach(), gradient))
    for loss, gradient in results[1:]:
        torch.testing.assert_close(loss, results[0][0], rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("schedule", [Cosine(), RectifiedFlow(), Table.linear(40)])
def test_weights_are_those_of_the_papers(schedule: Schedule) -> None:
    level = inside(schedule)
    guess = belief(len(level.alpha))
    asked, x0 = trial(level, V(), guess)
    a, s = level.alpha, level.sigma
    snr = a**2 / s**2
    dx0 = ((guess - x0) ** 2).flatten(1).mean(1)
    deps = snr * dx0
    said = {
        SIMPLE: deps,  # Ho et al. 2020, eq. 14
        CLEAN_LOSS: dx0,
        V_LOSS: (snr + 1) * dx0,  # Salimans & Ho 2022, section 4
        FLOW_LOSS: ((a + s) / s) ** 2 * dx0,
        MinSnr(5.0): snr.clamp(max=5.0) * dx0,  # Hang et al. 2023, section 3.4
        P2(0.5, 2.0): deps / (2 + snr) ** 0.5,  # Choi et al. 2022, eq. 8
        P2(): deps / (1 + snr),
        SigmoidWeight(1.5): torch.sigmoid(1.5 - snr.log()) * deps,  # Kingma & Gao 2023
        # Karras et al. 2022, table 1, at sigma' = sigma / alpha
        Edm(0.5): ((s / a) ** 2 + 0.25) / (s / a * 0.5) ** 2 * dx0,
    }
    for weight, expected in said.items():
        torch.testing.assert_close(Denoising(weight)(asked), expected, rtol=1e-6, atol=0)


def test_native_errors_have_weight_one() -> None:
    """L_simple on eps, the v-loss on v, flow on flow and EDM on its network are plain squared errors."""
    level = Cosine().level(torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64))
    pairs: list[tuple[Weight, Prediction]] = [
        (SIMPLE, Epsilon()), (CLEAN_LOSS, Clean()), (V_LOSS, V()), (FLOW_LOSS, Flow()),
        (Edm(0.5), V(0.5, -1.0)),
    ]  # fmt: skip
    for weight, prediction in pairs:
        torch.testing.assert_close(weight_on(weight, prediction, level), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("prediction", [V(), Flow(), V(0.5, -1.0)])
@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda w: type(w).__name__)
def test_finite_at_both_ends(weight: Weight, prediction: Prediction) -> None:
    level = Level.of(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    x0, eps = torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), -2.0)
    y = torch.zeros(2, 1, 2, 2, requires_grad=True)
    x = noised(x0, eps, level)
    loss = Denoising(weight)(Trial(x0, eps, level, Estimate(x, level, Said(x, level, y, prediction))))
    (gradient,) = torch.autograd.grad(loss.sum(), y)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()


def test_min_snr_keeps_its_limits_where_a_quotient_would_be_lost() -> None:
    ends = Level.of(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    assert weight_on(MinSnr(5.0), Epsilon(), ends).tolist() == [0.0, 1.0]
    assert weight_on(MinSnr(5.0), Clean(), ends).tolist() == [5.0, 0.0]


def test_the_weights_of_popular_texts_and_of_ddpm() -> None:
    """In DDPM's notation, step by step; they differ by beta^2 / (alpha (1 - alpha-bar))."""
    table = Table.linear(40)
    level = table.nodes()
    asked, _ = trial(level, V(), belief(40))
    deps = Denoising(SIMPLE)(asked)
    beta, bar = table.betas, table.alpha_bar
    before = torch.cat([bar.new_ones(1), bar[:-1]])
    tilde = beta * (1 - before) / (1 - bar)
    tilde[0] = tilde[1]
    factor = beta**2 / ((1 - beta) * (1 - bar))
    close = lambda weight, expected: torch.testing.assert_close(
        Denoising(weight)(asked), expected, rtol=1e-6, atol=0
    )
    close(InverseVariance(table), deps / (2 * tilde))
    close(InverseVariance(table, "large"), deps / (2 * beta))
    close(Ddpm(table), factor * deps / (2 * tilde))
    close(Ddpm(table, "large"), factor * deps / (2 * beta))
    long = Table.linear()  # DDPM's own thousand steps: the factor is no constant
    factor = long.betas**2 / ((1 - long.betas) * (1 - long.alpha_bar))
    assert float(factor.max() / factor.min()) > 9
    for step in (1, 20, 39):  # beyond the first step Ddpm is the KL itself
        one = Trial(
            asked.x0[step : step + 1],
            asked.eps[step : step + 1],
            Level(level.alpha[step], level.sigma[step]),
            Estimate.of(
                asked.estimate.x[step : step + 1],
                Level(level.alpha[step], level.sigma[step]),
                x0=asked.estimate.x0[step : step + 1],
            ),
        )
        there = Level(level.alpha[step - 1], level.sigma[step - 1])
        kl = step_kl(one.x0, one.estimate, there).flatten(1).mean(1)
        torch.testing.assert_close(Denoising(Ddpm(table))(one), kl, rtol=1e-6, atol=0)


def test_a_bound_weight_is_finite_at_zero_terminal_snr() -> None:
    table = Table.linear().zero_terminal_snr()
    last = table.level(torch.ones(1, dtype=torch.float64))
    expected = float(torch.exp(table.level(torch.tensor(0.999, dtype=torch.float64)).log_snr)) / 2
    assert float(weight_on(Ddpm(table), Clean(), last)) == pytest.approx(expected, rel=1e-9)


def test_huber_is_a_square_near_0_and_a_line_far_away() -> None:
    level = inside(Cosine())
    near, x0 = trial(level, V(), belief(12))
    for weight in (SIMPLE, V_LOSS):
        plain = Denoising(weight)
        torch.testing.assert_close(Denoising(weight, 1e4)(near), plain(near), rtol=1e-6, atol=0)
        c = 1e-6
        said = near.estimate.said
        w = weight_on(weight, V(), level).sqrt()
        size = (said.y - V().target(x0, near.eps, level)).abs().flatten(1).mean(1)
        torch.testing.assert_close(Denoising(weight, c)(near), 2 * c * w * size, rtol=1e-3, atol=0)
    results = [Denoising(SIMPLE, 0.3)(trial(level, p, belief(12))[0]) for p in PREDICTIONS[:6]]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-6, atol=0)
    with pytest.raises(SettingsError, match="Huber"):
        Denoising(SIMPLE, -1.0)


@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda w: type(w).__name__)
def test_at_zero_terminal_snr_a_loss_is_refused_or_finite_at_every_node(weight: Weight) -> None:  # N3
    table = Table.linear(40).zero_terminal_snr()
    for prediction in PREDICTIONS:
        prediction = Mean(table) if isinstance(prediction, Mean) else prediction
        model = Model(torch.nn.Identity(), table, prediction)
        level = table.nodes()
        x0, eps = (t * torch.ones(40, 1, 2, 2) for t in (1.0, -2.0))
        y = torch.zeros(40, 1, 2, 2)
        try:
            Denoising(weight).check(model)
        except SettingsError:
            assert not torch.isfinite(weight_on(weight, prediction, level)).all()
            continue
        x = noised(x0, eps, level)
        asked = Trial(x0, eps, level, Estimate(x, level, Said(x, level, y, prediction)))
        assert torch.isfinite(Denoising(weight)(asked)).all(), prediction


def test_what_has_no_finite_loss_is_refused() -> None:
    model = lambda prediction: Model(torch.nn.Identity(), RectifiedFlow(), prediction)
    with pytest.raises(SettingsError, match=r"Epsilon prediction .* alpha = 0"):
        Denoising(CLEAN_LOSS).check(model(Epsilon()))
    with pytest.raises(SettingsError, match="sigma = 0"):
        Denoising(SIMPLE).check(model(Clean()))
    Denoising(SIMPLE).check(model(V()))
    (Denoising(SIMPLE) + Denoising(V_LOSS)).check(model(V()))
    with pytest.raises(SettingsError, match="gamma"):
        MinSnr(0.0)
    with pytest.raises(SettingsError, match="P2"):
        P2(-1.0)
    with pytest.raises(SettingsError, match="bias"):
        SigmoidWeight(1000.0)


def test_objectives_add() -> None:
    level = inside(Cosine())
    asked, _ = trial(level, V(), belief(len(level.alpha)))
    both = Denoising(SIMPLE) + 0.5 * Denoising(V_LOSS)
    expected = Denoising(SIMPLE)(asked) + 0.5 * Denoising(V_LOSS)(asked)
    torch.testing.assert_close(both(asked), expected)
    torch.testing.assert_close((2 * both + Denoising(SIMPLE))(asked), 2 * expected + Denoising(SIMPLE)(asked))


def test_a_level_per_region_weighs_per_region() -> None:
    sigma = torch.tensor([[0.0, 1.0]], dtype=torch.float64)[
        :, None, None
    ]  # (1, 1, 1, 2): left clean, right noise
    level = Level(torch.sqrt(1 - sigma**2), sigma)
    x0, eps = torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    x = noised(x0, eps, level)
    y = torch.zeros(1, 1, 1, 2)
    asked = Trial(x0, eps, level, Estimate(x, level, Said(x, level, y, V())))
    assert (
        float(Denoising(CLEAN_LOSS)(asked)) == 0.5
    )  # the right half's v is -x0, the left half has no weight
