from __future__ import annotations

from pathlib import Path

import pytest

from corpora import small
from sfumato.assembled import build
from sfumato.card import ImageSettings
from sfumato.predictions import V
from sfumato.runs import save
from sfumato.tables import Table


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, `pets` (three classes) and `deep` (colour, 16 bits)."""
    folder = tmp_path_factory.mktemp("home")
    pets = small.card(classes=small.CLASSES, schedule=Table.cosine(), prediction=V())
    save(folder / "pets", build(pets, 1), pets)
    image = ImageSettings(channels=3, height=8, width=8, bits=16)
    deep = small.card(channels=3, image=image, schedule=Table.cosine(), prediction=V())
    save(folder / "deep", build(deep, 1), deep)
    return folder
