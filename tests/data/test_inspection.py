"""`sfumato inspect`: every number against a folder that was made to have it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from corpora.images import pattern, saved
from sfumato.cli.inspect import inspect as command
from sfumato.data.inspection import inspect
from sfumato.data.prepare import prepare


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    root = tmp_path / "zoo"
    for number in range(12):
        place = root / ("cats" if number < 9 else "dogs")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pattern(number, 40)).save(place / f"{number:02}.png")
        if number != 5:
            (place / f"{number:02}.txt").write_text(f"number {number}")
    Image.fromarray(pattern(3, 40)).save(root / "dogs" / "copy of 03.webp", lossless=True)
    Image.fromarray(pattern(50, 9)[..., 0]).save(root / "dogs" / "tiny.bmp")
    (root / "cats" / "broken.jpg").write_bytes(saved(pattern(1), "JPEG")[:300])
    (root / "cats" / "00.caption").write_bytes(b"\xff\xfe\x00")
    return root


def test_what_is_there_is_said(zoo: Path) -> None:
    found = inspect(zoo)
    assert (found.pictures, found.good) == (15, 14)
    assert found.sizes == {"40 x 40": 13, "9 x 9": 1}
    assert found.modes == {"RGB": 13, "L": 1}
    assert found.formats == {"PNG": 12, "WEBP": 1, "BMP": 1}
    assert found.classes == {"cats": 9, "dogs": 5}
    assert found.imbalance == pytest.approx(1.8)
    assert [flaw.name for flaw in found.bad] == ["cats/broken.jpg"]
    assert [flaw.name for flaw in found.flaws] == ["cats/00.caption"]
    assert found.duplicates == (("cats/03.png", "dogs/copy of 03.webp"),)
    assert found.tiny == ("dogs/tiny.bmp",)
    assert found.with_caption == 11
    assert found.without_caption == ("cats/05.png", "dogs/copy of 03.webp", "dogs/tiny.bmp")
    data = prepare(zoo, multiple=8, limit_bad=0.1)
    assert (found.channels, *found.train_size) == data.shape
    assert found.bad == data.bad


def test_the_command_prints_it(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer()
    app.command()(command)
    said = CliRunner().invoke(app, [str(zoo)])
    assert said.exit_code == 0
    broken, double = "cats/broken.jpg: it is damaged", "cats/03.png = dogs/copy of 03.webp"
    for piece in ("14 of 15 can be read", "cats: 9, dogs: 5", broken, "dogs/tiny.bmp", double, "--size 32"):
        assert piece in said.stdout
    whole = json.loads(CliRunner().invoke(app, [str(zoo), "--json"]).stdout)
    assert whole["bad"][0]["name"] == "cats/broken.jpg"
    assert whole["classes"] == {"cats": 9, "dogs": 5}
    assert whole["columns"] == {}


def test_columns_are_named_with_their_kinds(zoo: Path) -> None:
    rows = [f"cats/{i:02}.png,{i / 7},{'red' if i % 2 else 'blue'},picture {i}" for i in range(9)]
    rows += [f"dogs/{i:02}.png,{i / 7},red,picture {i}" for i in range(9, 12)]
    rows += ["dogs/tiny.bmp,9.5,,"]
    (zoo / "metadata.csv").write_text("\n".join(["file_name,age,colour,title", *rows]))
    app = typer.Typer()
    app.command()(command)
    assert "age (number), colour (choice)" in CliRunner().invoke(app, [str(zoo)]).stdout
    whole = json.loads(CliRunner().invoke(app, [str(zoo), "--json"]).stdout)
    assert whole["columns"] == {"age": "number", "colour": "choice"}


def test_transparency_counts_only_where_it_is_seen(tmp_path: Path) -> None:
    clear = np.dstack([pattern(1), np.full((32, 32), 255, np.uint8)])
    Image.fromarray(clear).save(tmp_path / "opaque.png")
    clear[:4, :4, 3] = 0
    Image.fromarray(clear).save(tmp_path / "clear.png")
    found = inspect(tmp_path)
    assert (found.transparent, found.channels) == (1, 4)
    assert found.imbalance == 1.0
    assert found.without_caption == ()
