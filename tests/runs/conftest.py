from __future__ import annotations

from pathlib import Path

import pytest

from corpora import small
from sfumato.predictions import V
from sfumato.runs import Run
from sfumato.tables import Table


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with three classes, on the process of the default run."""
    said = small.card(classes=small.CLASSES, schedule=Table.cosine(), prediction=V())
    return small.make(tmp_path_factory.mktemp("pets") / "run", said)


@pytest.fixture
def plain(tmp_path: Path) -> Run:
    """A run without classes, of its own for each test."""
    return small.make(tmp_path / "run", small.card())
