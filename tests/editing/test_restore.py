"""Restoring on exact denoisers: draws of p(clean | noisy), missing and noisy at once, noise estimated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from pairs import COV, MEAN, PAIRS, drawn
from torch import Tensor

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.denoiser import Exact
from sfumato.editing.job import finished
from sfumato.editing.restore import estimated_noise, restore, with_level
from sfumato.errors import SettingsError
from sfumato.level import Level, Levels
from sfumato.noise import Noise
from sfumato.predictions import Estimate
from sfumato.samplers import Sampler
from sfumato.schedules import VE, Cosine, Linear, Schedule
from sfumato.solvers.fresh import Sde
from sfumato.solvers.multistep import Multistep

N = 40_000
DATA = Mixture.gaussian([0.1], [0.5])
PIXELS = Exact(
    lambda x, level: DATA.posterior_mean(x.reshape(-1, 1), level.alpha, level.sigma).reshape(x.shape)
)
ODE = Sampler(Multistep("x0", "log_snr", 2))


@pytest.mark.parametrize("schedule", [Cosine(), VE()], ids=["cosine", "ve"])
@pytest.mark.parametrize("spread", [0.15, 0.6])
def test_a_noisy_picture_becomes_a_draw_of_the_clean_ones(schedule: Schedule, spread: float) -> None:
    """With new noise: mean and variance of p(clean | noisy), a normal's; without: its probability flow."""
    clean = 0.1 + 0.5 * Noise((1,)).normal((1, 1, N), "clean").double()
    noisy = clean + spread * Noise((2,)).normal((1, 1, N), "noise").double()
    levels, noise = plans.log_snr(schedule, 150), Noise((3,))
    job = restore(PIXELS, noisy, levels, noise, spread=spread)
    x = finished(job, Sampler(Multistep("x0", "log_snr", 2), Sde()), noise)
    share = 0.25 / (0.25 + spread**2)
    away = x - (0.1 + share * (noisy - 0.1))
    variance = share * spread**2
    assert float(away.mean()) == pytest.approx(0, abs=5 * math.sqrt(variance / N))
    assert float(away.var()) == pytest.approx(variance, rel=0.05)
    assert float((away * (noisy - 0.1)).mean()) == pytest.approx(0, abs=5 * math.sqrt(variance / N))
    flow = finished(restore(PIXELS, noisy, levels, noise, spread=spread), ODE, noise)
    assert torch.allclose(flow, 0.1 + math.sqrt(share) * (noisy - 0.1), atol=0.01)


def test_the_walk_starts_at_the_noises_own_level_and_adds_none() -> None:
    noisy = Noise((2,)).normal((1, 1, 50), "noise").double()
    for spread in (0.3, 1.7):
        job = restore(PIXELS, noisy, plans.log_snr(Cosine(), 20), Noise((0,)), spread=spread)
        here = job.plan[0].here
        assert float(here.sigma / here.alpha) == pytest.approx(spread, rel=1e-9)
        assert torch.allclose(job.x, float(here.alpha) * noisy, atol=1e-7)
        assert not any(move.renoise for move in job.plan)


@pytest.mark.parametrize("ratio", [0.00123, 0.0123, 0.5, 3.0, 1e4])
def test_a_level_is_put_into_the_grid_once(ratio: float) -> None:
    """Above its first node and below its last noisy one, too."""
    grid = plans.log_snr(Linear(), 12)
    found, place = with_level(grid, ratio)
    ratios = found.sigma / found.alpha
    assert float(ratios[place]) == pytest.approx(ratio, rel=1e-3)
    assert bool((ratios[1:] < ratios[:-1]).all())
    assert len(found) == len(grid) + 1
    again, same = with_level(found, ratio)
    assert (len(again), same) == (len(found), place)
    kept = torch.cat([ratios[:place], ratios[place + 1 :]])
    assert torch.equal(kept, grid.sigma / grid.alpha)


@pytest.mark.parametrize("spread", [1e-5, 1e9])
def test_noise_outside_of_what_the_model_knows_is_refused(spread: float) -> None:
    class Narrow:
        """A model of levels between 0.01 and 100."""

        def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
            return PAIRS(x, level, seen)

        def take(self, rows: Sequence[int]) -> Narrow:
            return self

        def check(self, level: Level) -> None:
            if not 0.01 <= float(level.sigma / level.alpha) <= 100:
                raise SettingsError("outside")

    with pytest.raises(SettingsError, match="too little to be taken"):
        restore(Narrow(), drawn(4), plans.log_snr(Linear(), 12), Noise((0,)), spread=spread)


@pytest.mark.slow
def test_missing_and_noisy_at_once() -> None:
    """The second of a pair is missing and the first is noisy: RePaint nears p(both | noisy first)."""
    spread, h = 0.3, 20_000
    clean = drawn(h, 4)
    first = clean[..., :1] + spread * Noise((5,)).normal((1, h, 1), "noise").double()
    picture = torch.cat([first, torch.zeros_like(first)], dim=3)
    mask = torch.tensor([0.0, 1.0]).expand(h, 2)
    noise = Noise((6,))
    job = restore(PAIRS, picture, plans.bounded(Cosine(), 60), noise, mask=mask, spread=spread, times=25)
    x = finished(job, Sampler(Multistep("x0", "log_snr", 2), Sde()), noise)[0, 0]
    slope = COV[0] / (COV[0, 0] + spread**2)
    mean = MEAN + (first[0, 0] - MEAN[0]) * slope
    cov = COV - torch.outer(COV[0], slope)
    away = x - mean
    assert torch.allclose(away.mean(0), torch.zeros(2).double(), atol=0.02)
    assert torch.allclose(torch.cov(away.T), cov, atol=0.02)
    tilt = (away * (first[0, 0] - MEAN[0])).mean(0) / (COV[0, 0] + spread**2)
    assert torch.allclose(tilt, torch.zeros(2).double(), atol=0.05)


def test_without_noise_what_is_there_stays() -> None:
    picture = drawn(30, 8).float()
    mask = Noise((1,)).uniform((30, 2), "mask")[0] < 0.5
    levels, noise = plans.bounded(Cosine(), 6), Noise((0,))
    x = finished(restore(PAIRS, picture, levels, noise, mask=mask), ODE, noise)
    assert torch.equal(x[0, 0][~mask], picture[0, 0][~mask])


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.5])
def test_noise_is_estimated(spread: float) -> None:
    """On a smooth picture with one edge, to within its own error; what is masked does not count."""
    ramp = torch.linspace(-0.5, 0.5, 200)[:, None] + torch.linspace(0, 0.3, 201)
    ramp[:, 90:] += 0.4
    noisy = ramp + spread * Noise((1,)).normal((200, 201), "noise")[0]
    assert estimated_noise(noisy[None, None]) == pytest.approx(spread, rel=0.05)
    broken = noisy.clone()
    broken[20:180] = (Noise((2,)).uniform((160, 201), "blocks")[0] < 0.5).float() * 9
    mask = torch.zeros(200, 201)
    mask[20:180] = 1
    assert estimated_noise(broken[None, None], mask) == pytest.approx(spread, rel=0.1)
    with pytest.raises(SettingsError, match="no block"):
        estimated_noise(broken[None, None], torch.ones(200, 201))


def test_nothing_to_restore_is_said() -> None:
    levels: Levels = plans.bounded(Cosine(), 6)
    for spread, says in ((0.0, "nothing to restore"), (-0.1, "nothing to restore"), (math.inf, "above 0")):
        with pytest.raises(SettingsError, match=says):
            restore(PAIRS, drawn(4), levels, Noise((0,)), spread=spread)
