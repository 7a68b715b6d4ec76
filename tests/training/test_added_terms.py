"""Perceptual and adversarial terms: what they are, that they add, and that the judge resumes with the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from corpora.told import ABC
from sfumato.data.batches import Batches
from sfumato.data.dataset import DataSet
from sfumato.errors import SettingsError
from sfumato.files import Checkpoints
from sfumato.forward import noised
from sfumato.model import Model
from sfumato.networks.patches import PatchDiscriminator
from sfumato.noise import seeded
from sfumato.predictions import Epsilon, Estimate, Said, V
from sfumato.schedules import Cosine
from sfumato.tables import Table
from sfumato.training.adversarial import Adversarial
from sfumato.training.companion import Companion, companions_in, settled
from sfumato.training.objectives import Denoising, Objective, Trial
from sfumato.training.perceptual import Perceptual
from sfumato.training.recipes import pixels
from sfumato.training.run import train_run
from sfumato.training.settings import Habits, TrainSettings
from sfumato.training.trainer import Training
from sfumato.training.vault import Disk


def trial(belief: Tensor) -> Trial:
    """What is said of two pictures, at a low level and at a high one."""
    level = Cosine().level(torch.tensor([0.2, 0.7], dtype=torch.float64))
    gen = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(2, 1, 8, 8, generator=gen) for _ in range(2))
    x = noised(x0, eps, level)
    alpha, sigma = level.on(x)
    y = V().target(belief, (x - alpha * belief) / sigma, level)
    return Trial(x0, eps, level, Estimate(x, level, Said(x, level, y, V())), Cosine())


def belief() -> Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


class Maps(nn.Module):
    """Two maps and a vector of features."""

    def __init__(self) -> None:
        super().__init__()
        with seeded(4, "features"):
            self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3, stride=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        a = self.first(x)
        b = self.second(a.relu())
        return [a, b, b.mean((2, 3))]


def test_perceptual_is_the_mean_distance_of_unit_features() -> None:
    asked, features = trial(belief().requires_grad_()), Maps()
    loss = Perceptual(features)(asked)
    unit = lambda m: m / m.norm(dim=1, keepdim=True)
    by_hand = torch.zeros(2)
    for a, b in zip(features(asked.estimate.x0), features(asked.x0), strict=True):
        apart = (unit(a) - unit(b)).square().sum(1)
        by_hand += (apart if apart.ndim == 1 else apart.mean((1, 2))) / 3
    share = (asked.level.alpha**2).float()
    torch.testing.assert_close(loss, share * by_hand)
    assert not any(p.requires_grad for p in features.parameters())
    assert torch.autograd.grad(loss.sum(), asked.estimate.said.y)[0].abs().min() > 0
    right = trial(trial(belief()).x0)
    assert float(Perceptual(features)(right).max()) < 1e-9
    both = Denoising() + 0.1 * Perceptual(features)
    torch.testing.assert_close(both(asked), Denoising()(asked) + 0.1 * loss)


def adversarial(ramp: int = 2, lr: float = 2e-3) -> Adversarial:
    with seeded(0, "discriminator"):
        return Adversarial(PatchDiscriminator(1, (8, 8), width=8), lr, ramp)


def any_model() -> Model:
    return Model(nn.Linear(1, 1), Cosine(), V())


def test_the_hinge_losses_and_who_learns_from_which() -> None:
    asked = trial(belief().requires_grad_())
    term = adversarial()
    term.begin(any_model(), 2, torch.device("cpu"))
    assert isinstance(term, Companion)
    judge, share = term.discriminator, (asked.level.alpha**2).float()
    own = term.watch(asked, torch.zeros(2), (0, 1))
    assert own is not None
    real, made = (judge(x).flatten(1) for x in (asked.x0, asked.estimate.x0.detach()))
    by_hand = share * ((1 - real).clamp(min=0).mean(1) + (1 + made).clamp(min=0).mean(1))
    torch.testing.assert_close(own, by_hand)
    own.sum().backward()
    assert asked.estimate.said.y.grad_fn is not None
    taught = [p.grad.clone() for p in judge.parameters() if p.grad is not None]
    assert len(taught) == len(list(judge.parameters()))
    assert all(float(g.abs().max()) > 0 for g in taught if g.ndim > 1)

    assert float(term(asked).detach().abs().max()) == 0  # ramped in: nothing yet
    term.learn()
    scores = judge(asked.estimate.x0).flatten(1).mean(1)
    torch.testing.assert_close(term(asked), -0.5 * share * scores)
    term(asked).sum().backward()
    assert all(float(p.grad.abs().max()) == 0 for p in judge.parameters() if p.grad is not None)


def test_a_judge_learns_to_tell() -> None:
    """Shown the same pictures and the same wrong answers, it soon scores the pictures higher."""
    asked, term = trial(belief() * 0.2), adversarial()
    term.begin(any_model(), 2, torch.device("cpu"))
    losses: list[float] = []
    for _ in range(60):
        own = term.watch(asked, torch.zeros(2), (0, 1))
        assert own is not None
        losses.append(float(own.detach().mean()))
        own.mean().backward()
        term.learn()
    assert losses[-1] < 0.3 * losses[0]
    real, made = (term.discriminator(x).mean() for x in (asked.x0, asked.estimate.x0))
    assert float(real.detach()) > 0.5
    assert float(made.detach()) < -0.5


def test_a_gradient_that_is_not_finite_teaches_nothing() -> None:
    term = adversarial()
    term.begin(any_model(), 2, torch.device("cpu"))
    before = {name: p.detach().clone() for name, p in term.discriminator.named_parameters()}
    for p in term.discriminator.parameters():
        p.grad = torch.full_like(p, float("nan"))
    term.learn()
    assert all(torch.equal(before[name], p) for name, p in term.discriminator.named_parameters())


def test_what_learns_is_found_and_left_out_of_held_out_losses() -> None:
    term = adversarial()
    whole: Objective = Denoising() + 0.1 * term
    assert companions_in(whole) == (term,)
    assert companions_in(Denoising()) == ()
    asked = trial(belief())
    torch.testing.assert_close(settled(whole)(asked), Denoising()(asked))
    assert settled(Denoising()) == Denoising()


SETTINGS = TrainSettings(steps=24, batch=6, lr=2e-3, warmup=2)


def run(model: Model, batches: Batches, settings: TrainSettings, folder: Path, stop: int = 1000) -> Training:
    """Trains with a checkpoint every 5 steps; the process dies after `stop`."""
    objective = Denoising() + 0.5 * adversarial(ramp=8)
    vault = Disk(Checkpoints(folder, 2), settings, "toy")
    habits = Habits(workers=0, save_every=5)
    training = Training(
        model, batches, settings, telling=ABC, vault=vault, habits=habits, objective=objective
    )
    for step in training.steps():
        if step.step == stop:
            break
    return training


def judged(training: Training) -> dict[str, Tensor]:
    return training.state.tensors()["discriminator"]


def test_the_judge_resumes_bit_for_bit_and_parts_agree(
    model: Callable[..., Model], batches: Batches, tmp_path: Path
) -> None:
    whole = run(model(), batches, SETTINGS, tmp_path / "whole")
    run(model(), batches, SETTINGS, tmp_path / "cut", stop=13)
    again = run(model(), batches, SETTINGS, tmp_path / "cut")
    assert again.resumed
    assert torch.equal(again.state.weights.vector, whole.state.weights.vector)
    mine, theirs = judged(again), judged(whole)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert int(mine["learned"]) == 24
    parts = run(model(), batches, replace(SETTINGS, accumulate=3), tmp_path / "parts")
    apart = (parts.state.weights.vector - whole.state.weights.vector).norm()
    assert float(apart / whole.state.weights.vector.norm()) < 1e-4


@pytest.mark.slow
def test_a_run_with_a_judge(data: DataSet, tmp_path: Path) -> None:
    train = {"steps": 3, "batch": 4, "validate": 0}
    settings = pixels(data, model="tiny", adversarial=0.1, train=train, dropout=0.0)
    steps = list(train_run(data, settings, tmp_path / "run", sample_share=0.0))
    assert steps[-1].last
    latest = Checkpoints(tmp_path / "run" / "checkpoints").latest()
    assert latest is not None
    assert (latest.path / "discriminator.safetensors").exists()


@pytest.mark.parametrize(
    ("do", "why"),
    [
        (lambda: Adversarial(nn.Identity(), ramp=0), "a ramp of a step or more"),
        (lambda: PatchDiscriminator(1, (2, 2)), "4 x 4 or more"),
        (
            lambda: adversarial().check(Model(nn.Linear(1, 1), Table.cosine(largest=1.0), Epsilon())),
            "one half",
        ),
        (lambda: Perceptual(Maps()).check(Model(nn.Linear(1, 1), Cosine(), Epsilon())), "one half"),
    ],
)
def test_what_makes_no_sense_is_refused(do: Callable[[], object], why: str) -> None:
    with pytest.raises((SettingsError, ValueError), match=why):
        do()


@pytest.mark.parametrize(("side", "places"), [(4, 2), (8, 2), (28, 3), (64, 8)])
def test_a_judge_looks_at_patches(side: int, places: int) -> None:
    judge = PatchDiscriminator(3, (side, side), width=8)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0), requires_grad=True)
    scores = judge(x)
    assert scores.shape == (2, 1, places, places)
    (gradient,) = torch.autograd.grad(scores[0].sum(), x)
    assert float(gradient[1].abs().max()) == 0  # an image is judged alone
