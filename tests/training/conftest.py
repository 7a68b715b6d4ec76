"""Small real parts: a data set of 40 pictures in memory, a network of a few thousand weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato.data.batches import Batches
from sfumato.data.dataset import DataSet
from sfumato.model import Model
from sfumato.noise import Dropout, number_dropouts, seeded
from sfumato.predictions import V
from sfumato.tables import Table


class SmallNet(nn.Module):
    """Two convolutions, told the level and the class; with dropout."""

    def __init__(self, classes: int = 3, width: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, 1, 3, padding=1)
        self.told = nn.Linear(2, width)
        self.classes = nn.Embedding(classes + 1, width)
        self.dropout = Dropout(dropout)
        number_dropouts(self)

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        told = self.told(torch.stack([torch.sin(label / 100), torch.cos(label / 300)], 1))
        if classes is not None:
            told = told + self.classes(classes)
        h = torch.nn.functional.silu(self.first(x) + told[:, :, None, None])
        return self.second(self.dropout(h))


def make_model(dropout: float = 0.1) -> Model:
    with seeded(3, "weights"):
        return Model(SmallNet(dropout=dropout), Table.linear(), V())


def make_data(count: int = 40) -> DataSet:
    """Pictures of 8 x 8: bright on one of three sides, by class."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 80, (count, 8, 8, 1)).astype(np.uint8)
    for pixel, label in zip(pixels, labels):
        pixel[:, 3 * label : 3 * label + 2] += 120
    train, held = np.arange(0, count - 8), np.arange(count - 8, count)
    names = tuple(f"{i}.png" for i in range(count))
    digests = tuple(str(i) for i in range(count))
    return DataSet(
        "toy", pixels, (8, 8), train, held, labels, ("a", "b", "c"), None, names, ({},) * count, digests,
        (), (), (), "fingerprint-of-toy",
    )  # fmt: skip


def make_batches(seed: int = 0) -> Batches:
    return Batches(make_data(), seed)


@pytest.fixture
def model() -> Callable[..., Model]:
    return make_model


@pytest.fixture
def batches() -> Batches:
    return make_batches()


@pytest.fixture
def data() -> DataSet:
    return make_data()
