"""The files that `sfumato edit` writes: each its own name, and none over another or over a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato import cli
from sfumato.files.pictures import read_recipe

pytestmark = pytest.mark.slow


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Two pictures of one name, in two folders."""
    for i, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        shown = np.random.default_rng(i).integers(0, 256, (8, 8)).astype(np.uint8)
        Image.fromarray(shown).save(tmp_path / name / "1.png")
    return tmp_path


def written(capsys: pytest.CaptureFixture[str], *words: object) -> list[Path]:
    """The files that an edit says it wrote."""
    capsys.readouterr()
    assert cli.run(["edit", *map(str, words)]) == 0
    return [Path(line) for line in capsys.readouterr().out.splitlines() if Path(line).suffix]


def test_no_result_takes_the_name_of_another(
    home: Path, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures of one name, and other options into the same folder: each result is there, and the same
    command gives the same names again."""
    both, out = [desk / "a/1.png", desk / "b/1.png"], desk / "out"
    words = ["img2img", home / "pets", *both, "--steps", 2, "--out", out]
    first = written(capsys, *words, "--strength", 0.5)
    second = written(capsys, *words, "--strength", 1)
    assert len({*first, *second}) == len(list(out.iterdir())) == 4
    assert written(capsys, *words, "--strength", 0.5) == first
    assert [read_recipe(path)["images"] for path in first] == [["../a/1.png"], ["../b/1.png"]]


def test_no_file_beside_the_results_takes_the_place_of_a_source(
    home: Path, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, one, two, out = (
        str(path) for path in (home / "pets", desk / "a/1.png", desk / "b/1.png", desk / "o.png")
    )
    before = (desk / "b/1.png").read_bytes()
    for words, said in (
        (["interpolate", run, one, two, "--film", two], "made from"),
        (["interpolate", run, one, two, "--out", out, "--film", out], "its result"),
        (["directions", run, one, "--file", two], ".safetensors"),
        (["invert", run, one, two, "--noise", str(desk / "n.safetensors")], "for several"),
    ):
        assert cli.run(["edit", *words, "--steps", "2"]) == 1
        assert said in capsys.readouterr().err
    assert (desk / "b/1.png").read_bytes() == before


def test_directions_make_the_folder_of_their_file(home: Path, desk: Path) -> None:
    file = desk / "new" / "d.safetensors"
    words = ["directions", str(home / "pets"), "--count", "1", "--pictures", "2", "--guidance", "1"]
    assert cli.run(["edit", *words, "--steps", "2", "--file", str(file), "--out", str(desk / "o.png")]) == 0
    assert file.is_file()
