"""Training a classifier: a function of (seed, position), and as right as can be where that is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.data.batches import Batches
from sfumato.data.dataset import DataSet
from sfumato.errors import SettingsError
from sfumato.guidance.classifier import logits
from sfumato.networks import Classifier, ClassifierConfig
from sfumato.noise import seeded
from sfumato.schedules import VE, Cosine, RectifiedFlow, Schedule
from sfumato.tables import Table
from sfumato.training.classifier import Accuracy, ClassifierSettings, Schooling
from sfumato.training.errors import TrainingError
from sfumato.training.levels import LogitNormal, Stratified
from sfumato.training.step import TrainStep


def school(schedule: Schedule | None = None, dropout: float = 0.1, **settings: Any) -> Schooling:
    config = ClassifierConfig(
        in_channels=1, outputs=3, channels=(8, 16), groups=4, middle="none", dropout=dropout
    )
    with seeded("school"):
        network = Classifier(config)
    said = {"steps": 6, "batch": 8, "warmup": 0} | settings
    return Schooling(network, schedule or Table.cosine(), ClassifierSettings(**said))


def weights(one: Schooling) -> Tensor:
    return torch.cat([p.detach().flatten() for p in one.network.parameters()])


def test_training_is_a_function_of_its_seed(batches: Batches) -> None:
    runs: list[tuple[list[TrainStep], Tensor]] = []
    for seed, workers in ((0, 0), (0, 2), (1, 0)):
        one = school(seed=seed)
        runs.append((list(one.steps(batches, workers=workers)), weights(one)))
    losses = [[step.loss for step in steps] for steps, _ in runs]
    assert losses[0] == losses[1]
    assert torch.equal(runs[0][1], runs[1][1])
    assert losses[0] != losses[2]
    steps = runs[0][0]
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    assert [step.last for step in steps] == [False] * 5 + [True]
    assert steps[-1].images == 48


def test_a_sample_does_not_depend_on_its_batch(batches: Batches) -> None:
    one = school()
    one.network.train()  # with dropout
    batch = batches.batch(range(40, 48))
    assert batch.classes is not None
    whole = one.losses(batch.images, batch.classes, batch.positions)
    assert float(whole.detach()[0]) == pytest.approx(math.log(3), rel=0.5)
    for row in range(8):
        alone = one.losses(batch.images[row : row + 1], batch.classes[row : row + 1], [40 + row])
        assert torch.allclose(alone, whole[row : row + 1], atol=1e-6)


def test_pictures_of_unknown_class_teach_nothing_and_are_not_judged(batches: Batches) -> None:
    one = school()
    batch = batches.batch(range(40, 48))
    assert batch.classes is not None
    some = torch.where(torch.arange(8) < 3, -1, batch.classes)
    losses = one.losses(batch.images, some, batch.positions)
    whole = one.losses(batch.images, batch.classes, batch.positions)
    assert torch.equal(losses[:3], torch.zeros(3))
    assert torch.allclose(losses[3:], whole[3:])
    assert one.accuracy(replace(batch, classes=some)).pictures == 5


def constant(count: int, value: float) -> DataSet:
    """Grey pictures of two classes, darker and brighter than the middle by `value` of the range [-1, 1]."""
    labels = np.arange(count) % 2
    levels = np.where(labels == 1, 1 + value, 1 - value) / 2 * 65535
    pixels = np.broadcast_to(levels.round().astype(np.uint16)[:, None, None, None], (count, 4, 4, 1)).copy()
    names = tuple(f"{i}.png" for i in range(count))
    half = np.arange(count // 2)
    return DataSet(
        "grey", pixels, (4, 4), half, half + count // 2, labels, ("dark", "light"), None, names,
        ({},) * count, names, (), (), (), "fingerprint-of-grey",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [Cosine(), RectifiedFlow(), VE(0.02, 20.0)], ids=repr)
def test_it_becomes_as_right_as_can_be(schedule: Schedule) -> None:
    """Two points +-m under noise: no judge is right more often than Phi(|m| alpha / sigma)."""
    value, count = 0.2, 1200
    data = constant(count, value)
    config = ClassifierConfig(in_channels=1, outputs=2, channels=(8,), groups=4, middle="none")
    with seeded("grey"):
        one = Schooling(
            Classifier(config), schedule, ClassifierSettings(steps=100, batch=32, lr=5e-3, warmup=10)
        )
    for _ in one.steps(Batches(data)):
        pass
    found = one.accuracy(data.held_out())
    length = value * 4  # of 16 pixels
    for log_snr, right in zip(found.log_snr, found.right, strict=True):
        best = 0.5 * (1 + math.erf(length * math.exp(log_snr / 2) / math.sqrt(2)))
        error = math.sqrt(best * (1 - best) / found.pictures)
        assert right < best + 4 * error + 1e-3
        assert right > best - 0.03 - 4 * error
    assert found.right[0] > 0.99
    assert list(found.log_snr) == sorted(found.log_snr, reverse=True)


def test_accuracy_leaves_the_network_alone_and_is_always_the_same(data: DataSet) -> None:
    one = school()
    one.network.train()
    before = weights(one)
    looks = [one.accuracy(data.held_out()) for _ in range(2)]
    assert looks[0] == looks[1]
    assert one.network.training
    assert torch.equal(weights(one), before)
    assert looks[0].pictures == 8
    assert isinstance(looks[0], Accuracy)


def test_levels_are_those_that_the_model_was_trained_at() -> None:
    asked: list[Tensor] = []

    class Told(Classifier):
        def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
            assert label is not None
            asked.append(label)
            return super().forward(x, label)

    config = ClassifierConfig(in_channels=1, outputs=3, channels=(8,), groups=4, middle="none")
    for where in (Stratified(), LogitNormal(1.0, 0.5)):
        one = Schooling(Told(config), Table.cosine(), ClassifierSettings(steps=1, seed=5), where)
        one.losses(torch.zeros(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64), range(100, 106))
        level = where(Table.cosine(), range(100, 106), 5)
        assert torch.allclose(asked[-1].double(), level.angle * 2000 / math.pi, atol=1e-4)


def test_it_stops_when_it_is_asked_to(batches: Batches) -> None:
    answers = itertools.chain([False, False], itertools.repeat(True))
    steps = list(school(steps=100).steps(batches, stop=lambda: next(answers)))
    assert len(steps) == 2
    assert not steps[-1].last


def test_what_is_not_finite_ends_it(batches: Batches) -> None:
    one = school()
    with torch.no_grad():
        one.network.head.weight.fill_(math.inf)
    with pytest.raises(TrainingError, match="lower --lr"):
        list(one.steps(batches))


def test_logits_are_told_the_same_on_every_curve(batches: Batches) -> None:
    """One noisy picture, written on three curves."""
    network, x = school().network.eval(), batches.batch(range(4)).images
    level = Table.cosine().level(torch.tensor(0.4, dtype=torch.float64))
    said = logits(network, x, level)
    for factor in (float(1 / level.alpha), 7.0):
        again = logits(network, x * factor, level.scaled(factor))
        assert torch.allclose(again, said, atol=1e-5)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no length": ({"steps": None}, "one of --steps"),
    "two lengths": ({"images": 100}, "one of --steps"),
    "batch": ({"batch": 0}, "--batch"),
    "lr": ({"lr": -1.0}, "learning rate"),
    "weight decay": ({"weight_decay": math.nan}, "--weight-decay"),
    "smoothing": ({"smoothing": 1.0}, "--smoothing"),
    "clip": ({"clip": 0.0}, "--clip"),
}


@pytest.mark.parametrize(("changes", "sentence"), WRONG.values(), ids=WRONG)
def test_wrong_settings_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        ClassifierSettings(**{"steps": 5} | changes)


def test_pictures_without_classes_are_refused(data: DataSet) -> None:
    plain: Callable[[], object] = lambda: list(
        school().steps(Batches(replace(data, labels=None, label_names=())))
    )
    with pytest.raises(SettingsError, match="with classes"):
        plain()
