from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from corpora import small
from corpora.known import CURVE
from sfumato.card import DataSettings
from sfumato.data.dataset import DataSet
from sfumato.data.prepare import prepare
from sfumato.noise import uniform
from sfumato.predictions import V
from sfumato.runs import Run


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 grey pictures of 8 x 8 in three classes: a slope with noise on it."""
    path = tmp_path_factory.mktemp("look") / "pets.npz"
    noise = uniform(60 * 64, "pictures").reshape(60, 8, 8).numpy()
    slope = np.linspace(0, 128, 8)[None, None, :] * np.arange(1, 4).repeat(20)[:, None, None] / 3
    images = (slope + 127 * noise).astype(np.uint8)
    np.savez(path, images=images, labels=np.arange(3).repeat(20), label_names=np.array(small.CLASSES))
    return path


@pytest.fixture(scope="session")
def data(pictures: Path) -> DataSet:
    return prepare(pictures, hold_out=0.3)


def _said(data: DataSet) -> DataSettings:
    return DataSettings(fingerprint=data.fingerprint, images=len(data.train), held_out=len(data.held))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, data: DataSet) -> Run:
    """An untrained run without classes that says that it was trained on the pictures."""
    return small.make(
        tmp_path_factory.mktemp("look") / "run", small.card(schedule=CURVE, prediction=V(), data=_said(data))
    )


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory, data: DataSet) -> Run:
    """The same with classes."""
    card = small.card(classes=small.CLASSES, schedule=CURVE, prediction=V(), data=_said(data))
    return small.make(tmp_path_factory.mktemp("look") / "pets", card)
