"""Deviation over seeds and over completions, where the model's answers are those of a Gaussian."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from corpora.known import CURVE, holds, knowing
from sfumato.errors import SettingsError
from sfumato.forward import noised, posterior
from sfumato.inside.deviation import completions, decided, deviation, deviation_of, stages
from sfumato.inside.panel import shown
from sfumato.inside.uncertainty_figure import seeds_figure, stages_figure
from sfumato.level import CLEAN, Level
from sfumato.noise import Noise
from sfumato.runs import Run

MEAN, VARIANCE = 0.1, 0.04


def gain(level: Level) -> float:
    """Of E[x0 | x] = m + gain (x - alpha m) for x0 from N(m, v)."""
    alpha, sigma = float(level.alpha), float(level.sigma)
    return alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)


def belief(x: torch.Tensor, level: Level) -> torch.Tensor:
    return MEAN + gain(level) * (x - float(level.alpha) * MEAN)


def test_batches_give_the_deviation_of_the_whole() -> None:
    pictures = 1e6 + Noise(tuple(range(37))).normal((2, 3, 3), "x").double()
    found = deviation_of([pictures[:1], pictures[1:20], pictures[20:]])
    assert found.count == 37
    torch.testing.assert_close(found.mean, pictures.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(found.std, pictures.std(0), rtol=1e-8, atol=0)
    torch.testing.assert_close(found.map, pictures.var(0).mean(0).sqrt(), rtol=1e-8, atol=0)
    assert found.variance == pytest.approx(float(pictures.var(0).mean()))
    with pytest.raises(SettingsError, match="at least 2"):
        deviation_of([pictures[:1]])


def test_over_seeds_it_is_that_of_the_pictures(run: Run) -> None:
    recipe = run.recipe(5, steps=3, batch=2)
    found = deviation(run, recipe)
    torch.testing.assert_close(found.std, run.make(recipe).double().std(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("t", [0.1, 0.3, 0.6, 0.9, 1.0])
def test_completions_are_draws_of_the_posterior(run: Run, t: float) -> None:
    """Mean and variance over 200 endings of 64 pixels against Bayes' rule, within the chance of the draws and
    the 3 % that 50 steps may cost."""
    level = CURVE.level(torch.tensor(t, dtype=torch.float64))
    draws = Noise((3,))
    x0 = MEAN + math.sqrt(VARIANCE) * draws.normal((1, 8, 8), "x0")[0]
    x = noised(x0, draws.normal((1, 8, 8), "eps")[0], level)
    known = knowing(run, belief)
    found = deviation_of(completions(known, x, level, known.recipe(200, steps=50, clip=False, batch=200)))
    expected = 1 / (1 / VARIANCE + float(level.alpha / level.sigma) ** 2)
    assert found.variance == pytest.approx(expected, rel=0.03 + 4 * math.sqrt(2 / (200 * 64)))
    away = (found.mean - belief(x.double(), level)) / math.sqrt(expected / 200)
    assert float(away.square().mean()) == pytest.approx(1, abs=4 * math.sqrt(2 / 64) + 0.1)


@pytest.mark.parametrize("t", [0.1, 0.3, 0.6, 0.9, 1.0])
def test_ddpm_would_vary_too_little(t: float) -> None:
    """Why endings are not drawn by DDPM: by its affine recursion over 50 even times, its variance is 7 to
    24 % below that of the posterior."""
    times = torch.linspace(t, 0, 51, dtype=torch.float64)
    levels = [*(CURVE.level(time) for time in times[:-1]), CLEAN]
    variance = 0.0
    for here, there in pairwise(levels):
        x = torch.tensor([0.0, 1.0], dtype=torch.float64)
        q = posterior(x, belief(x, here), here, there)
        variance = float(q.mean[1] - q.mean[0]) ** 2 * variance + float(q.variance)
    start = CURVE.level(times[0])
    exact = 1 / (1 / VARIANCE + float(start.alpha / start.sigma) ** 2)
    assert 0.76 < variance / exact < 0.935


def test_fewer_steps_than_levels_still_end_clean(run: Run) -> None:
    """One move from anywhere is the guess itself."""
    known, x = knowing(run, belief), Noise((3,)).normal((1, 8, 8), "x")[0]
    for t in (0.002, 0.5):
        level = CURVE.level(torch.tensor(t, dtype=torch.float64))
        (found,) = completions(known, x, level, known.recipe(2, steps=1, clip=False))
        torch.testing.assert_close(found[0], belief(x, level).clamp(-1, 1), rtol=1e-4, atol=1e-5)


def test_a_completion_depends_on_its_seed_alone(run: Run) -> None:
    x, level = Noise((3,)).normal((1, 8, 8), "x")[0], CURVE.level(torch.tensor(0.5, dtype=torch.float64))
    many = torch.cat(list(completions(run, x, level, run.recipe(5, steps=4, batch=2))))
    one = torch.cat(list(completions(run, x, level, run.recipe(seeds=(3,), steps=4))))
    torch.testing.assert_close(many[3:4], one, rtol=0, atol=1e-5)
    assert not torch.allclose(many[0], many[1])


def test_what_is_decided_grows_as_bayes_says(run: Run) -> None:
    known = knowing(run, belief)
    found = stages(
        known, known.recipe(1, sampler="ddim", steps=50, clip=False), count=100, moments=5, examples=2
    )
    assert [len(stage.examples) for stage in found] == [2] * 5
    shares = decided(found)
    assert shares[0] == 0
    for stage, share in zip(found, shares):
        alpha, sigma = float(stage.level.alpha), float(stage.level.sigma)
        bayes = alpha**2 * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
        assert share == pytest.approx(bayes, abs=0.05)
        torch.testing.assert_close(stage.x0, belief(stage.x, stage.level), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_figures_show_every_column(run: Run, pets: Run) -> None:
    found = [deviation(pets, pets.recipe(2, classes=name, steps=2)) for name in pets.classes]
    drawn = seeds_figure(pets, found, ["$odd$ name", *pets.classes[1:]])
    for each in found:
        cell = shown(each.mean, pets.card.image)[..., 0].repeat(14, 0).repeat(14, 1)
        assert holds(drawn[..., 0], cell)
    for sampler in (None, "dpm-adaptive"):
        way = stages(run, run.recipe(1, sampler=sampler, steps=None if sampler else 3), count=2, moments=3)
        assert stages_figure(run, way).shape[2] == 3
