"""Learned variance from end to end: the reverse step it makes, its training, its run folder, diffusers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sfumato.assembled import build
from sfumato.bound import Variance
from sfumato.data.dataset import Batch, DataSet
from sfumato.data.toy import Mixture
from sfumato.errors import SettingsError
from sfumato.files import read_json
from sfumato.folders.run import save
from sfumato.forward import largest_variance, posterior, transition
from sfumato.guidance.mix import classifier_free
from sfumato.level import Level
from sfumato.model import Model
from sfumato.noise import Noise, seeded
from sfumato.predictions import Estimate, V
from sfumato.runs import load
from sfumato.samplers import sampler
from sfumato.sampling import prior, walk
from sfumato.solvers.fresh import Ancestral, Between, LargeVariance, LearnedVariance
from sfumato.tables import Table
from sfumato.training.objectives import Trial
from sfumato.training.recipes import RunSettings, pixels
from sfumato.training.run import train_run
from sfumato.training.settings import TrainSettings
from sfumato.training.trainer import fit
from sfumato.training.variational import VariationalBound

pytestmark = pytest.mark.slow

STD = 0.4
TABLE = Table.linear(12, 0.01, 0.4)


def best_spread(s: float, here: Level, there: Level) -> float:
    """Where between beta-tilde and beta the reverse variance of N(0, s^2) lies, on a logarithmic scale."""
    tilde = float(posterior(torch.zeros(1), torch.zeros(1), here, there).variance)
    gain = float(there.alpha * transition(there, here).variance / here.sigma**2)
    left = float(s**2 * here.sigma**2 / (s**2 * here.alpha**2 + here.sigma**2))
    return math.log(1 + gain**2 * left / tilde) / math.log(float(largest_variance(here, there)) / tilde)


class Told:
    """The exact denoiser of N(0, STD^2), which says the best spread of its moves."""

    def __init__(self, moves: dict[float, float]) -> None:
        self.moves = moves

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        x0 = STD**2 * level.alpha / (STD**2 * level.alpha**2 + level.sigma**2) * x
        v = torch.full_like(x, self.moves.get(float(level.sigma), 0.0))
        e = Estimate.of(x, level, x0=x0)
        return Estimate(e.x, e.level, e.said, v)

    def take(self, rows: Sequence[int]) -> Told:
        return self

    def check(self, level: Level) -> None:
        return None


def test_the_right_variance_makes_every_step_exact() -> None:
    """A Gaussian's reverse steps are Gaussian: with their true variances six steps end at the data's own
    standard deviation, where beta-tilde falls short of it and beta overshoots."""
    how, count = sampler("ddpm-learned"), 100_000
    plan = how.plan(Table.linear(), 6)
    spreads = {float(m.here.sigma): best_spread(STD, m.here, m.there) for m in plan if float(m.there.sigma)}
    assert all(0 < v < 1 for v in spreads.values())
    first = plan[0].here
    noise = Noise((1,))
    x = noise.normal((count,), "start").double()
    x = x * torch.sqrt(STD**2 * first.alpha**2 + first.sigma**2)

    def ends(fresh: object) -> float:
        *_, last = walk(Told(spreads), x, plan[:-1], how.solver, noise, fresh)  # pyright: ignore
        there = plan[-2].there
        return float(last.x.std() / torch.sqrt(STD**2 * there.alpha**2 + there.sigma**2)) - 1

    error = 4 / math.sqrt(2 * count)
    assert abs(ends(LearnedVariance())) < error
    assert ends(Ancestral()) < -10 * error
    assert ends(LargeVariance()) > 10 * error


def test_it_lies_between_small_and_large_pixel_by_pixel() -> None:
    here, there = (TABLE.level(torch.tensor(n / 12, dtype=torch.float64)) for n in (7, 4))
    split = LearnedVariance()(here, there)
    assert split.kept == Ancestral()(here, there).kept
    assert callable(split.added)
    x = torch.zeros(1, 3)
    e = Estimate.of(x, here, x0=x)
    std = split.added(Estimate(x, here, e.said, torch.tensor([[0.0, 0.5, 1.0]])))
    small, large = Ancestral()(here, there).added, LargeVariance()(here, there).added
    expected = torch.tensor([[small, math.sqrt(small * large), large]])  # pyright: ignore
    torch.testing.assert_close(std, expected)
    assert float(split.added(e)) == pytest.approx(small)  # a model that says none has beta-tilde
    assert LearnedVariance()(here, Level.of(1.0, 0.0)).added == 0.0
    near = Level.of(here.alpha * (1 + 1e-6), here.sigma)
    close = LearnedVariance()(here, near).added
    assert isinstance(close, Between)
    assert close.low == pytest.approx(Ancestral(1.0)(here, near).added ** 2, rel=1e-13)  # nothing cancels


def test_diffusers_reads_it_alike() -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(variance_type="learned_range")
    said = torch.linspace(-1, 1, 5)
    for t in (999, 400, 2):
        variance = theirs._get_variance(t, predicted_variance=said, variance_type="learned_range")
        here, there = (
            Table.linear().level(torch.tensor((t + n) / 1000, dtype=torch.float64)) for n in (1, 0)
        )
        split = LearnedVariance()(here, there)
        assert callable(split.added)
        e = Estimate.of(said, here, x0=said)
        ours = split.added(Estimate(said, here, e.said, (said + 1) / 2))
        torch.testing.assert_close(ours**2, variance.exp(), rtol=3e-4, atol=0)


class Gaussian:
    """A stream of N(0, STD^2), each of two numbers."""

    def each(self, chunks: Iterable[Sequence[int]], *, workers: int = 0, ahead: int = 4) -> Iterator[Batch]:
        for chunk in chunks:
            x = STD * Noise.of("gaussian", places=chunk).normal((2, 1, 1))
            yield Batch(x, None, None, ("",) * len(chunk), tuple(chunk))


class Gains(nn.Module):
    """Affine in x for the mean, and a number of the level for the variance."""

    def __init__(self) -> None:
        super().__init__()
        self.of = nn.Sequential(nn.Linear(4, 32), nn.SiLU(), nn.Linear(32, 2))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        t = (label[:, None] + 1) / 12
        gain, v = self.of(torch.cat([t, t**2, torch.sin(3 * t), torch.cos(3 * t)], 1)).chunk(2, 1)
        gain, v = gain[..., None, None], v[..., None, None]
        return torch.cat([gain * x, v.expand_as(x)], 1)


def test_the_hybrid_teaches_the_variance() -> None:
    """Trained, its bound is below those with the fixed variances, and its spread is the best one."""
    from sfumato.model import Steps

    with seeded(1, "weights"):
        model = Model(Gains(), TABLE, V(), Steps(12), learned_variance=True)
    settings = TrainSettings(
        steps=500, batch=96, lr=1e-2, warmup=10, ema=0.98, weight_decay=0.0, weight="v", bound=0.01
    )
    for _ in fit(model, Gaussian(), settings):
        pass
    level = TABLE.level(((torch.arange(6000) % 12) + 1).double() / 12)
    x0 = STD * Noise.of("test", places=range(6000)).normal((2, 1, 1))
    eps = Noise.of("test eps", places=range(6000)).normal((2, 1, 1))
    alpha, sigma = level.on(x0)
    with torch.no_grad():
        e = model(alpha * x0 + sigma * eps, level)
    assert e.spread is not None
    inner = (torch.arange(6000) % 12) > 0
    part, x0, eps = _take(e, inner), x0[inner], eps[inner]
    moves = [
        [TABLE.level(torch.tensor(k / 12, dtype=torch.float64)) for k in (n, n - 1)] for n in range(2, 13)
    ]
    exact = torch.tensor([best_spread(STD, here, there) for here, there in moves]).repeat(500)
    ideal = Estimate(part.x, part.level, part.said, exact[:, None, None, None].expand_as(part.x))

    def bound(estimate: Estimate, kind: Variance = "learned") -> float:
        return float(VariationalBound(kind)(Trial(x0, eps, part.level, estimate, TABLE)).mean())

    best = bound(ideal)
    fixed = min(bound(part, "small"), bound(part, "large"))
    assert best < bound(part) < best + 0.05 * (fixed - best)


def _take(e: Estimate, rows: Tensor) -> Estimate:
    level = Level(e.level.alpha[rows], e.level.sigma[rows])
    own = e.said.level
    said = type(e.said)(e.said.x[rows], Level(own.alpha[rows], own.sigma[rows]), e.said.y[rows], V())
    return Estimate(e.x[rows], level, said, None if e.spread is None else e.spread[rows])


def test_guidance_keeps_the_variance_of_what_was_asked_for() -> None:
    level = TABLE.level(torch.tensor(0.5, dtype=torch.float64))
    one, other = Told({float(level.sigma): 0.75}), Told({float(level.sigma): 0.25})
    e = classifier_free(one, other, 3.0)(torch.ones(2, 1), level)
    assert e.spread is not None
    assert e.spread.tolist() == [[0.75], [0.75]]


def test_a_run_with_a_learned_variance(data: DataSet, tmp_path: Path) -> None:
    settings = pixels(
        data, model="tiny", learned_variance=True, train={"steps": 2, "batch": 4, "validate": 0}, dropout=0.0
    )
    assert settings.train.bound == 0.001
    for _ in train_run(data, settings, tmp_path / "run", sample_share=0.0):
        pass
    run = load(tmp_path / "run")
    assert run.card.learned_variance
    assert run.recipe(2).sampler == "ddpm-learned"
    learned, small = (run.sample(2, steps=3, sampler=name) for name in ("ddpm-learned", "ddpm"))
    assert float((learned - small).abs().max()) > 1e-3
    told = read_json(tmp_path / "run" / "scheduler" / "scheduler_config.json")
    assert isinstance(told, dict)
    assert told["variance_type"] == "learned_range"


def test_diffusers_opens_such_a_run(data: DataSet, tmp_path: Path) -> None:
    from diffusers import DDPMPipeline

    plain = replace(data, labels=None, label_names=())
    card = pixels(plain, model="tiny", learned_variance=True, train={"steps": 1}).card(plain)
    save(tmp_path / "run", build(card), card)
    theirs = DDPMPipeline.from_pretrained(tmp_path / "run")
    theirs.set_progress_bar_config(disable=True)
    assert theirs.scheduler.config.variance_type == "learned_range"
    gen = torch.Generator().manual_seed(0)
    pictures = theirs(batch_size=2, num_inference_steps=3, generator=gen, output_type="np").images
    assert pictures.shape == (2, 8, 8, 1)


def test_a_variance_that_no_one_learned_is_not_used(data: DataSet, tmp_path: Path) -> None:
    card = pixels(data, model="tiny", train={"steps": 1}).card(data)
    save(tmp_path / "run", build(card), card)
    with pytest.raises(SettingsError, match=r"has not learned the variance .* sampler ddpm"):
        load(tmp_path / "run").sample(1, sampler="ddpm-learned")


@pytest.mark.parametrize(
    ("said", "train", "why"),
    [
        ({"learned_variance": True, "schedule": "flow"}, {"bound": 0.1}, "about the steps of a table"),
        ({"learned_variance": True}, {}, "is taught by the bound"),
        ({}, {"bound": 0.1}, "add --learned-variance"),
        ({"schedule": "learned"}, {"weight": "v"}, "trained by --weight bound, not v"),
        ({"schedule": "flow"}, {"weight": "bound"}, "has no bound"),
        ({"self_conditioning": True, "prediction": "epsilon"}, {}, "--prediction v, x0 or flow"),
    ],
)
def test_combinations_without_sense_are_refused(said: dict, train: dict, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        RunSettings(TrainSettings(steps=1, **train), **said)


def test_the_prior_and_the_mixture_are_the_same_gaussian() -> None:
    """What `Told` says is the posterior mean of the toy distribution."""
    level = TABLE.level(torch.tensor(0.5, dtype=torch.float64))
    x = prior(level, (1,), Noise((1, 2))).double()
    exact = Mixture.gaussian([0.0], [STD]).posterior_mean(x, level.alpha, level.sigma)
    torch.testing.assert_close(Told({})(x, level).x0, exact)
