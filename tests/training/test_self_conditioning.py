"""Self-conditioning: half of training sees its own guess, sampling always does, and the guess is of use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sfumato.data.dataset import Batch, DataSet
from sfumato.errors import SettingsError
from sfumato.forward import noised
from sfumato.model import LogSigma, Model
from sfumato.noise import Noise, seeded
from sfumato.predictions import Clean, Estimate, V
from sfumato.runs import load
from sfumato.schedules import LogLinear
from sfumato.tables import Table
from sfumato.training.lesson import Lesson
from sfumato.training.levels import Stratified
from sfumato.training.objectives import Denoising
from sfumato.training.recipes import pixels
from sfumato.training.run import train_run
from sfumato.training.settings import TrainSettings
from sfumato.training.trainer import fit

pytestmark = pytest.mark.slow


class Listening(nn.Module):
    """Answers with a known function of x, and keeps what it was fed."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.fed: list[Tensor] = []

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        self.fed.append(x.detach())
        return torch.tanh(x[:, :1]) * self.scale


def lesson(network: nn.Module, seed: int = 0) -> Lesson:
    model = Model(network, Table.cosine(), V(), self_conditioned=True)
    return Lesson(model, Denoising(), Stratified(), seed, 0.0, "fp32", torch.device("cpu"))


def test_half_of_the_samples_see_the_first_answer_without_gradient() -> None:
    network = Listening()
    asked = lesson(network)
    images = Noise.of("images", places=range(400)).normal((1, 2, 2))
    losses = asked.losses(images, {}, range(400))
    first, second = network.fed
    assert torch.equal(first[:, :1], second[:, :1])
    assert float(first[:, 1:].abs().max()) == 0
    shown = second[:, 1:].abs().flatten(1).sum(1) > 0
    assert 160 < int(shown.sum()) < 240  # 4 standard deviations
    level = Stratified()(Table.cosine(), range(400), 0)
    alpha, sigma = level.on(images)
    x0 = alpha * first[:, :1] - sigma * torch.tanh(first[:, :1])
    torch.testing.assert_close(second[shown, 1:], x0[shown], rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(losses.sum(), network.scale)
    x, target = second[:, :1], V().target(images, _eps(images), level)
    error = torch.tanh(x) - target
    expected = (2 * alpha**2 * torch.tanh(x) * error).flatten(1).mean(1).sum()
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=0)


def test_half_precision_has_the_same_gradients_with_a_first_look() -> None:
    """A cast that is made without gradient must not be used again with it."""
    gradients: list[Tensor] = []
    for precision in ("fp32", "bf16"):
        with seeded(2, "weights"):
            network = Narrow()
        told = Model(network, LogLinear(-4.0, 4.0), Clean(), LogSigma(), self_conditioned=True)
        asked = replace(lesson(network), model=told, precision=precision)
        asked.losses(signs(range(64)), {}, range(64)).mean().backward()
        found = [p.grad for p in network.parameters()]
        gradients.append(torch.cat([g.reshape(-1) for g in found if g is not None]))
        assert len(found) == sum(g is not None for g in found)
    apart = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    assert float(apart) < 0.1


def _eps(images: Tensor) -> Tensor:
    return Noise.of(0, "noise", places=range(len(images))).normal(images.shape[1:], "eps")


def test_who_is_shown_is_a_function_of_the_position() -> None:
    network = Listening()
    asked, images = lesson(network), Noise.of("images", places=range(20)).normal((1, 2, 2))
    whole = asked.losses(images, {}, range(20))
    parts = [asked.losses(images[i : i + 5], {}, range(i, i + 5)) for i in range(0, 20, 5)]
    torch.testing.assert_close(torch.cat(parts), whole)


class Signs:
    """A stream of x0 = -1 or 1 in all four numbers."""

    def each(self, chunks: Iterable[Sequence[int]], *, workers: int = 0, ahead: int = 4) -> Iterator[Batch]:
        for chunk in chunks:
            yield Batch(signs(chunk), None, None, ("",) * len(chunk), tuple(chunk))


def signs(places: Sequence[int]) -> Tensor:
    return Noise.of("signs", places=places).normal((1, 1, 1), "sign").sign().expand(-1, 4, 1, 1)


class Narrow(nn.Module):
    """Sees each number alone beside the mean of the guess: the guess tells what the other numbers say."""

    def __init__(self) -> None:
        super().__init__()
        self.of = nn.Sequential(nn.Linear(3, 24), nn.SiLU(), nn.Linear(24, 24), nn.SiLU(), nn.Linear(24, 1))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x, guess = x.flatten(1).chunk(2, 1)
        told = torch.stack([x, guess.mean(1, keepdim=True).expand_as(x), label[:, None].expand_as(x)], 2)
        return self.of(told)[..., 0, None, None]


def test_a_guess_is_of_use_to_a_model_that_was_trained_with_it() -> None:
    """Each number alone knows little; the mean of four guesses knows more, so a second look is better."""
    schedule = LogLinear(-4.0, 4.0)
    with seeded(2, "weights"):
        model = Model(Narrow(), schedule, Clean(), LogSigma(), self_conditioned=True)
    settings = TrainSettings(
        steps=400, batch=128, lr=1e-2, warmup=10, ema=0.98, weight_decay=0.0, weight="x0"
    )
    for _ in fit(model, Signs(), settings):
        pass
    x0 = signs(range(50_000, 54_000))
    level = schedule.level(torch.linspace(0.3, 0.9, 4000, dtype=torch.float64))
    x = noised(x0, Noise.of("eps", places=range(4000)).normal((4, 1, 1)), level)
    with torch.no_grad():
        first: Estimate = model(x, level)
        second: Estimate = model(x, level, first)
    loss = lambda e: float(((e.x0 - x0) ** 2).mean())
    assert loss(second) < 0.8 * loss(first)


def test_a_self_conditioned_run(data: DataSet, tmp_path: Path) -> None:
    train = {"steps": 2, "batch": 4, "validate": 0}
    settings = pixels(data, model="tiny", self_conditioning=True, train=train, dropout=0.0)
    for _ in train_run(data, settings, tmp_path / "run", sample_share=0.0):
        pass
    run = load(tmp_path / "run")
    assert run.card.self_conditioned
    assert run.model.self_conditioned
    assert run.card.config().in_channels == 2
    assert "last estimate" in (run.card.diffusers or "")
    again = load(tmp_path / "run").sample(2, steps=3)
    fed: list[Tensor] = []
    run.model.network.register_forward_pre_hook(lambda _, given: fed.append(given[0]))
    assert torch.equal(run.sample(2, steps=3), again)
    assert [bool(x[:, 1:].abs().sum() > 0) for x in fed] == [False, True, True]
    with pytest.raises(SettingsError, match="does not fit images of 1 and self-conditioning"):
        run.card.but(
            network=run.card.network.model_copy(update={"settings": _plain(run.card.network.settings)})
        )


def _plain(settings: dict) -> dict:
    return settings | {"in_channels": 1}
