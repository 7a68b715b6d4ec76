"""The flow's likelihood against densities that are known, and its solver."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.known import GAUSSIAN, STD, UNIFORM, entropy, expected, smooth, values
from mathematics.oracles import MIXTURE, exact
from sfumato.bound import BYTES, prior_kl
from sfumato.denoiser import Exact
from sfumato.errors import SettingsError
from sfumato.evaluation.dormand_prince import DormandPrince, State
from sfumato.evaluation.flow_likelihood import Ends, flow_likelihood, log_density
from sfumato.evaluation.mean import Mean
from sfumato.evaluation.variational import Steps, bound
from sfumato.level import Level, Levels
from sfumato.noise import Noise
from sfumato.schedules import VE, Cosine, RectifiedFlow, Schedule
from sfumato.tables import Table

WHOLE = Ends(Level.of(1.0, 0.002), Level.of(0.0, 1.0))


def between(ends: Ends) -> Steps:
    """A process of one step, for its ends."""
    return Steps(Levels.of(ends.most, ends.least), "large")


def on_circle(level: Level) -> tuple[float, float]:
    return float(level.alpha / level.norm), float(level.sigma / level.norm)


def test_the_density_of_a_mixture() -> None:
    x = Noise((0,)).normal((40, 2), "places")[0].double()
    found = log_density(exact(MIXTURE), x, WHOLE, solver=DormandPrince(1e-8))
    wanted = MIXTURE.log_prob(x, *on_circle(WHOLE.least))
    assert float((found.log_prob - wanted).abs().max()) < 1e-6


def test_the_error_falls_with_the_tolerance_and_single_precision_is_kept() -> None:
    x = Noise((0,)).normal((40, 2), "places")[0].double()
    wanted = MIXTURE.log_prob(x, *on_circle(WHOLE.least))
    errors, asked = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        found = log_density(exact(MIXTURE), x, WHOLE, solver=DormandPrince(tolerance))
        errors.append(float((found.log_prob - wanted).abs().mean()))
        asked.append(float(found.evaluations.double().mean()))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert asked == sorted(asked)
    single = log_density(exact(MIXTURE), x.float(), WHOLE, solver=DormandPrince(1e-5))
    assert float((single.log_prob - wanted).abs().mean()) < 3 * errors[1] + 1e-5


def even(probability: Tensor) -> Exact:
    """The denoiser of the uniform density that bytes have once they are spread over their bins, x (B, 1)."""
    edge = 256 / 255
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(64))

    def narrow(y: Tensor, ratio: Tensor) -> Tensor:
        low, high = (-edge - y) / ratio, (edge - y) / ratio
        mass = torch.special.ndtr(high) - torch.special.ndtr(low)
        rise = (torch.exp(-(low**2) / 2) - torch.exp(-(high**2) / 2)) / math.sqrt(2 * math.pi)
        return y + ratio * rise / mass

    def wide(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        score = -((x - alpha * edge * nodes) ** 2) / (2 * sigma**2) + weights.log()
        return (torch.softmax(score, dim=1) * edge * nodes).sum(1, keepdim=True)

    def believe(x: Tensor, level: Level) -> Tensor:
        alpha, sigma = level.alpha.reshape(-1, 1), level.sigma.reshape(-1, 1)
        near = sigma < 0.2 * alpha
        ratio = torch.where(near, sigma / alpha, 1.0)
        y = torch.where(near, x / torch.where(near, alpha, 1.0), 0.0)
        return torch.where(near, narrow(y, ratio), wide(x, alpha, sigma))

    return Exact(believe)


def test_uniform_bytes_cost_8_bits() -> None:
    ends = Ends(Level.of(1.0, 1e-4), Level.of(0.0, 1.0))
    alpha, _ = on_circle(ends.least)
    u = values(256)[::5].reshape(-1, 1)
    found = log_density(even(UNIFORM), alpha * u, ends, solver=DormandPrince(1e-11))
    bits = -(found.log_prob + math.log(alpha) + math.log(BYTES.width)) / math.log(2)
    assert float((bits - 8).abs().max()) < 1e-9


def even_draws(rows: int, size: int) -> Tensor:
    """Bytes of N(0, STD^2), rounded, as often in each row as the law says."""
    place = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    order = torch.special.ndtri(place) * STD
    x = BYTES.low + ((order.clamp(-1, 1) - BYTES.low) / BYTES.width).round() * BYTES.width
    return x.expand(rows, size)


def test_quantised_gaussian_bytes_cost_their_entropy() -> None:
    x0 = even_draws(2, 16384)
    ends = Ends(Level.of(1.0, 0.001), Level.of(0.0, 1.0))
    found = flow_likelihood(smooth(size=16384), x0, between(ends), Noise((1, 2)), solver=DormandPrince(1e-6))
    assert float((found.bits - entropy(GAUSSIAN)).abs().max()) < 1e-3
    assert entropy(GAUSSIAN) == pytest.approx(7.041218, abs=5e-7)


@pytest.mark.parametrize(
    "schedule", [Table.cosine(), Cosine(), RectifiedFlow(), VE()], ids=["table", "cosine", "flow", "ve"]
)
def test_both_estimators_agree_on_a_gaussian(schedule: Schedule) -> None:
    """Bound and flow of the same denoiser from the same least noise: the gap is what 1000 steps leave."""
    x0, noise = even_draws(50, 256), Noise(tuple(range(50)))
    denoise, process = smooth(size=256), Steps.of(schedule, 1000, "large", terms=60)
    above = bound(denoise, x0, process, noise)
    lifted = flow_likelihood(denoise, x0, process, noise, "noise", solver=DormandPrince(1e-5))
    gap = Mean.of(above.bits - lifted.bits)
    assert -4 * gap.error < gap.value < 4 * gap.error + 0.01


def test_dequantised_by_noise_is_the_bound_of_the_first_level() -> None:
    """For the exact density p at the least noise: -log p(x) + log q(x | x0) - log P(x0 | x), nothing more."""
    x0 = even_draws(20, 512)
    level = Level.of(1.0, 0.005)
    found = flow_likelihood(
        smooth(size=512),
        x0,
        between(Ends(level, WHOLE.most)),
        Noise(tuple(range(20))),
        "noise",
        solver=DormandPrince(1e-7),
    )
    alone = expected(smooth(), GAUSSIAN, Steps(Levels.of(level), "large"))
    decoder = alone - float((GAUSSIAN * prior_kl(values(256), level)).sum()) / math.log(2)
    told = 0.5 * math.log2(1 + (STD / 0.005) ** 2)
    total = Mean.of(found.bits)
    assert abs(total.value - told - decoder) < 4 * total.error
    assert total.error < 0.01


def test_one_probe_is_exact_where_numbers_do_not_mix() -> None:
    x = 0.3 * Noise((0, 1)).normal((6,), "x").double()
    signs = torch.where(Noise((0, 1)).uniform((6,), "signs") < 0.5, -1.0, 1.0).double()[None]
    probed = log_density(smooth(size=6), x, WHOLE, signs)
    whole = log_density(smooth(size=6), x, WHOLE)
    assert torch.allclose(probed.log_prob, whole.log_prob, rtol=0, atol=1e-9)


def test_probes_are_unbiased_where_they_do() -> None:
    x0 = torch.tensor([[0.2, -0.4]], dtype=torch.float64)
    x0 = (BYTES.low + ((x0 - BYTES.low) / BYTES.width).round() * BYTES.width).expand(400, 2)
    solver, noise = DormandPrince(1e-4), Noise(tuple(range(400)))
    one = flow_likelihood(exact(MIXTURE), x0, between(WHOLE), noise, probes=1, solver=solver)
    four = flow_likelihood(exact(MIXTURE), x0, between(WHOLE), noise, probes=4, solver=solver)
    whole = flow_likelihood(exact(MIXTURE), x0, between(WHOLE), noise, probes=None, solver=solver)
    for found in (one, four):
        off = Mean.of(found.bits - whole.bits)
        assert abs(off.value) < 4 * off.error
    spread = [float((found.bits - whole.bits).std()) for found in (one, four)]
    assert 0.35 < spread[1] / spread[0] < 0.7  # 1/2, as four draws have


def test_a_row_does_not_depend_on_its_batch() -> None:
    """Steps are each row's own, so a neighbour changes nothing, to the bit."""
    x = Noise((0,)).normal((6, 2), "places")[0].double()
    x[3] *= 30  # a difficult one
    whole = log_density(exact(MIXTURE), x, WHOLE)
    for row in range(6):
        alone = log_density(exact(MIXTURE), x[row : row + 1], WHOLE)
        assert torch.equal(alone.log_prob[0], whole.log_prob[row])
        assert alone.evaluations[0] == whole.evaluations[row]
    assert len(set(whole.evaluations.tolist())) > 1


def test_the_solver_is_of_fifth_order() -> None:
    """y' = -2 t y with y along: exp(-t^2). The work for an error falls as its fifth root."""

    def slope(t: Tensor, state: State, rows: Tensor) -> State:
        return State(-2 * t[:, None] * state.x, t.cos())

    errors, asked = [], []
    for tolerance in (1e-5, 1e-10):
        start = State(torch.ones(1, 1).double(), torch.zeros(1).double())
        (x, along), evaluations = DormandPrince(tolerance).solve(slope, start, 0.0, 3.0)
        errors.append(abs(float(x[0, 0]) - math.exp(-9)) + abs(float(along[0]) - math.sin(3)))
        asked.append(float(evaluations[0]))
    order = math.log(errors[0] / errors[1]) / math.log(asked[1] / asked[0])
    assert order > 4.5


def test_mistakes() -> None:
    x0 = even_draws(2, 4)
    with pytest.raises(SettingsError, match="tolerance"):
        DormandPrince(0.0)
    with pytest.raises(SettingsError, match="from some noise to more"):
        Ends(Level.of(1.0, 0.0), Level.of(0.0, 1.0))
    with pytest.raises(SettingsError, match="probes"):
        flow_likelihood(smooth(size=4), x0, between(WHOLE), Noise((0, 1)), probes=0)
    with pytest.raises(SettingsError, match="2 of 2 pictures stopped"):
        log_density(Exact(lambda x, level: x * math.nan), x0, WHOLE)
