"""A model of the package is used by its name: what it makes goes into a folder here, and never into the
package."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato import cli
from sfumato.data import bundled

pytestmark = pytest.mark.slow


@pytest.fixture
def package(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose model `zoo` is the run of pets; the commands run elsewhere."""
    package, here = tmp_path / "package", tmp_path / "here"
    shutil.copytree(home / "pets", package / "zoo", ignore=shutil.ignore_patterns("samples", "edits"))
    here.mkdir()
    monkeypatch.setattr(bundled, "_HERE", package)
    monkeypatch.chdir(here)
    return package


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def test_what_it_makes_goes_into_a_folder_of_its_name(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, made = files(package), Path("zoo-made")
    quick = ["--steps", "1", "--guidance", "1"]
    assert cli.run(["sample", "zoo", "-n", "1", "--sampler", "ddim", *quick]) == 0
    assert cli.run(["edit", "directions", "zoo", "--count", "1", "--pictures", "2", *quick]) == 0
    assert cli.run(["edit", "slide", "zoo", *quick]) == 0
    assert cli.run(["look", "zoo", "--schedule"]) == 0
    assert cli.run(["sample", "zoo", "--conditions"]) == 0
    assert 'sfumato sample zoo --class "cat"' in capsys.readouterr().out
    assert {path.parts[0] for path in files(made)} == {"samples", "edits", "look", "directions.safetensors"}
    assert files(package) == before


def test_its_evaluation_is_found_by_its_name(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(package)
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "ox"):
        Path("data", name).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)).save(f"data/{name}/{i}.png")
    assert cli.run(["report", "zoo"]) == 1
    assert "sfumato evaluate zoo DATA" in capsys.readouterr().err
    assert cli.run(["evaluate", "zoo", "data", "--loss"]) == 0
    assert cli.run(["report", "zoo"]) == 0
    assert "zoo-made/evaluation/report.html" in capsys.readouterr().out.replace("\\", "/")
    assert files(package) == before
