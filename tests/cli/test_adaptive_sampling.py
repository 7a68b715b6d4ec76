"""Adaptive sampling from the command line: a tolerance instead of steps, reported, filmed and made again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from sfumato import cli
from sfumato.errors import SettingsError
from sfumato.files.pictures import read_recipe
from sfumato.provenance import Origin, read_origin
from sfumato.runs import load

pytestmark = pytest.mark.slow


def says(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.run([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_tolerance_instead_of_steps(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, film = tmp_path / "x.png", tmp_path / "x.webp"
    asked = ["sample", home / "pets", "-n", 5, "--class", "cat", "--batch", 3, "--device", "cpu"]
    asked += ["--sampler", "DPM adaptive", "--tolerance", 0.5, "--out", out, "--film", film]
    code, _, told = says(capsys, *asked)
    assert code == 0, told
    least, most, mean = map(
        float, re.search(r"evaluations a picture: (\d+) to (\d+), ([\d.]+) on average", told).groups()
    )
    assert 4 <= least <= mean <= most
    with Image.open(film) as frames:
        assert frames.n_frames > 3
    made = read_origin(out)
    assert (made.sampler, made.steps, made.tolerance) == ("DPM adaptive", None, 0.5)
    code, told, _ = says(capsys, "replay", out, "--run", home / "pets", "--device", "cpu")
    assert code == 0
    assert "identical" in told


def test_steps_and_tolerance_exclude_each_other(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, sentence in [
        (("--sampler", "dpm-adaptive", "--steps", 20), "chooses its own"),
        (("--sampler", "ddim", "--tolerance", 0.1), "dpm-adaptive"),
        (("--sampler", "dpm-adaptive", "--tolerance", 0), "above 0"),
        (("--sampler", "DPM adaptive Karras"), "its own levels"),
    ]:
        code, _, told = says(capsys, "sample", home / "pets", *words)
        assert code == 1
        assert sentence in told
        assert told.count("\n") == 1
    with pytest.raises(SettingsError, match="by name"):
        load(home / "pets", "cpu").recipe(sampler=cli_sampler(), tolerance=0.1)


def cli_sampler() -> object:
    from sfumato.samplers import Adaptive

    return Adaptive()


def test_pictures_from_before_there_was_a_tolerance_can_be_made_again(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.png"
    assert (
        says(capsys, "sample", home / "pets", "-n", 1, "--steps", 2, "--out", out, "--device", "cpu")[0] == 0
    )
    recipe = read_recipe(out)
    del recipe["tolerance"]
    assert Origin.model_validate_json(json.dumps(recipe), strict=True).tolerance is None


def test_a_neighbour_never_changes_a_picture(home: Path) -> None:
    run = load(home / "pets", "cpu")
    kinds = {"sampler": "dpm-adaptive", "tolerance": 0.3, "classes": ["cat"] * 4}
    whole = run.sample(seeds=[3, 4, 5, 6], **kinds)
    kinds["classes"] = ["cat", "ox"]
    assert (run.sample(seeds=[5, 77], **kinds)[0] - whole[2]).abs().max() < 1e-4
    kinds["classes"] = ["cat"]
    assert (run.sample(seeds=[6], **kinds)[0] - whole[3]).abs().max() < 1e-4
