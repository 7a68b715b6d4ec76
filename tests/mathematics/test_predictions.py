"""Predictions (row N8): every kind tells both halves back, at every level it can be asked."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sfumato.forward import noised, posterior
from sfumato.level import CLEAN, PURE_NOISE, Level
from sfumato.noise import Noise
from sfumato.predictions import Clean, Epsilon, Estimate, Flow, Mean, Prediction, Said, Score, V
from sfumato.schedules import Cosine, RectifiedFlow
from sfumato.tables import Table

TABLE = Table.cosine()
KINDS: list[Prediction] = [Epsilon(), Clean(), Score(), Flow(), V(), V(0.5, -1.0), Mean(TABLE)]
EVERYWHERE: list[Prediction] = [Flow(), V(), V(0.5, -1.0)]


def pair(n: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    noise = Noise(tuple(range(n)))
    return noise.normal((16,), "x0").to(dtype).clamp(-1, 1), noise.normal((16,), "eps").to(dtype)


def errors(kind: Prediction, level: Level, x0: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    x = noised(x0, eps, level)
    y = kind.target(x0, eps, level)
    return (kind.x0(x, y, level) - x0).abs().amax(1), (kind.eps(x, y, level) - eps).abs().amax(1)


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_round_trip_in_float64_at_every_node_of_the_cosine_table(kind: Prediction) -> None:
    level = TABLE.nodes()
    x0, eps = pair(1000)
    a, b = errors(kind, level, x0, eps)
    assert float(a.max()) < (1e-14 if kind in EVERYWHERE else 1e-11)
    assert float(b.max()) < (1e-14 if kind in EVERYWHERE else 1e-11)


@pytest.mark.parametrize("kind", EVERYWHERE, ids=repr)
def test_v_and_flow_stay_exact_in_float32_where_epsilon_loses_its_digits(kind: Prediction) -> None:
    level = TABLE.nodes()
    x0, eps = pair(1000, torch.float32)
    a, b = errors(kind, level, x0, eps)
    assert float(a.max()) < 1e-6
    assert float(b.max()) < 1e-6
    for blind in (Epsilon(), Score()):
        worst = errors(blind, level, x0, eps)[0]
        assert float(worst.max()) > 1e-4  # alpha is 5e-5 at the last node
        assert bool((worst <= 1e-6 / level.alpha).all())  # and no worse than that explains


@pytest.mark.parametrize("kind", EVERYWHERE, ids=repr)
@pytest.mark.parametrize("level", [CLEAN, PURE_NOISE], ids=["clean", "noise"])
def test_v_and_flow_tell_both_halves_at_both_ends(kind: Prediction, level: Level) -> None:
    x0, eps = pair(4)
    a, b = errors(kind, level, x0, eps)
    assert float(a.max()) < 1e-15
    assert float(b.max()) < 1e-15
    assert kind.tells(level)


def test_the_kinds_say_where_they_cannot_tell() -> None:
    assert not Epsilon().tells(PURE_NOISE)
    assert not Score().tells(PURE_NOISE)
    assert not Score().tells(CLEAN)
    assert not Clean().tells(CLEAN)
    assert not Mean(TABLE).tells(CLEAN)
    assert Epsilon().tells(CLEAN)
    assert Clean().tells(PURE_NOISE)


@given(st.floats(1e-3, 0.999), st.floats(0.05, 20.0), st.floats(-3, 3), st.floats(-3, 3))
def test_every_kind_agrees_on_any_curve(t: float, scale: float, x0: float, eps: float) -> None:
    level = Cosine().level(torch.tensor(t, dtype=torch.float64)).scaled(scale)
    a, b = (torch.full((1, 1), v, dtype=torch.float64) for v in (x0, eps))
    x = noised(a, b, level)
    for kind in KINDS:
        y = kind.target(a, b, level)
        e = Estimate(x, level, Said(x, level, y, kind))
        assert torch.allclose(e.x0, a, atol=1e-8), kind
        assert torch.allclose(e.eps, b, atol=1e-8), kind
        alpha, sigma = level.on(x)
        assert torch.allclose(alpha * e.x0 + sigma * e.eps, x, atol=1e-8 * scale), kind


def test_v_is_the_published_velocity_and_edm_the_published_preconditioning() -> None:
    x0, eps = pair(3)
    level = Cosine().level(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
    alpha, sigma = level.on(x0)
    assert torch.allclose(V().target(x0, eps, level), alpha * eps - sigma * x0, atol=1e-15)
    # Karras et al. 2022, table 1: D = c_skip x + c_out F
    data, s = 0.5, torch.tensor([[0.01], [1.0], [50.0]], dtype=torch.float64)
    ve = Level.of(1.0, s[:, 0])
    x, f = x0 + s * eps, eps
    published = data**2 / (s**2 + data**2) * x + s * data / (s**2 + data**2).sqrt() * f
    assert torch.allclose(V(data, -1.0).x0(x, f, ve), published, atol=1e-14)


def test_flow_and_score_are_the_published_ones() -> None:
    x0, eps = pair(3)
    level = RectifiedFlow().level(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
    assert torch.equal(Flow().target(x0, eps, level), eps - x0)
    x = noised(x0, eps, level)
    alpha, sigma = level.on(x0)
    gradient = -(x - alpha * x0) / sigma**2  # of log N(x; alpha x0, sigma^2)
    assert torch.allclose(Score().target(x0, eps, level), gradient, atol=1e-12)


def test_the_posterior_mean_prediction_is_one_table_step_down() -> None:
    x0, eps = pair(2)
    here = TABLE.level(torch.tensor([0.3, 0.001], dtype=torch.float64))
    below = TABLE.level(torch.tensor([0.299, 0.0], dtype=torch.float64))
    x = noised(x0, eps, here)
    assert torch.allclose(Mean(TABLE).target(x0, eps, here), posterior(x, x0, here, below).mean, atol=1e-13)
    assert torch.allclose(
        Mean(TABLE).target(x0, eps, here)[1], x0[1], atol=1e-13
    )  # the last step lands on x0


def test_changing_the_belief_changes_the_other_half_with_it() -> None:
    x0, eps = pair(2)
    level = Cosine().level(torch.tensor(0.5, dtype=torch.float64))
    x = noised(x0, eps, level)
    e = Estimate(x, level, Said(x, level, eps, Epsilon()), spread=torch.ones_like(x)).but(
        x0=x0.clamp(-0.5, 0.5)
    )
    alpha, sigma = level.on(x)
    assert torch.allclose(alpha * e.x0 + sigma * e.eps, x, atol=1e-14)
    assert e.spread is not None
    assert torch.allclose(e.flow, e.eps - e.x0)


def test_an_estimate_is_made_of_one_half() -> None:
    x = torch.zeros(1, 1)
    with pytest.raises(TypeError, match="one half"):
        Estimate.of(x, CLEAN)
    with pytest.raises(TypeError, match="one half"):
        Estimate.of(x, CLEAN, x0=x, eps=x)
