"""`sfumato look` and `sample --sheet`: what they write, what they say, and one sentence for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfumato.cli import run as command
from sfumato.data.dataset import DataSet
from sfumato.data.decode import decode
from sfumato.inside.losses import losses
from sfumato.runs import Run


def says(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str], str]:
    """Exit code, lines, errors."""
    code = command([str(word) for word in words])
    found = capsys.readouterr()
    return code, found.out.splitlines(), found.err


@pytest.mark.slow
def test_everything_at_once(
    pets: Run, data: DataSet, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "look"
    few = ["-n", 2, "--steps", 3, "--pictures", 12, "--class", "cat,ox"]
    code, lines, err = says(capsys, "look", pets.path, pictures, "--out", out, *few)
    assert (code, err) == (0, "")
    names = ["schedule.png", "schedule.json", "loss.png", "loss.json", "seeds.png", "way.png"]
    assert [line.strip() for line in lines if line.startswith("  ")] == [str(out / name) for name in names]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    for name in names[::2]:
        assert decode(out / name).array.shape[2] == 3
    told = json.loads((out / "loss.json").read_text())
    direct = losses(pets, data, pictures=12)
    assert told["train"]["v_loss"] == pytest.approx(direct.train.mean.tolist(), rel=1e-5)
    assert told["trained_on_these"]
    assert told["held_out"]["pictures"] == 12
    sentences = [line for line in lines if not line.startswith("  ")]
    assert sentences[0].startswith("Log-SNR falls from infinity to -infinity")
    assert any("times the training loss" in line for line in sentences)
    assert any(line.startswith("Over 2 seeds a pixel deviates by") for line in sentences)


def test_one_look_goes_into_the_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, _ = says(capsys, "look", run.path, "--uncertainty", "-n", 2, "--steps", 2)
    assert code == 0
    assert sorted(path.name for path in (run.path / "look").iterdir()) == ["seeds.png", "way.png"]
    assert lines[-1] == f"  {run.path / 'look' / 'way.png'}"


def test_a_schedule_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, lines, _ = says(capsys, "look", "linear")
    assert code == 0
    assert "At t = 1 a share of 0.00635 of the signal is left, which is little." in lines
    assert json.loads((tmp_path / "look" / "schedule.json").read_text())["signal_left"] < 0.0064


def test_the_sheet_lies_beside_the_pictures(
    pets: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", pets.path, "-n", 2, "--class", "dog", "--steps", 3, "--out", tmp_path / "x.png"]
    code, lines, _ = says(capsys, *words, "--sheet", tmp_path / "sheet.png", "--sheet-steps", 2)
    assert code == 0
    assert lines == [str(tmp_path / "x.png"), str(tmp_path / "sheet.png")]
    three, two = decode(tmp_path / "sheet.png").array.shape[:2]
    assert three > 6 * 112
    assert 3 * 112 < two < 5 * 112


def test_mistakes_are_one_sentence(
    run: Run, pets: Run, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    mistakes: list[tuple[list[object], str]] = [
        ([tmp_path / "nothing"], "no such folder"),
        ([run.path, "--loss"], "--loss needs the pictures that"),
        ([run.path, pictures, "--schedule"], "DATA is looked at by --loss alone"),
        ([run.path, strange, "--loss"], "strange"),
        ([run.path, pictures, "--loss", "--resize", "bend"], "--resize is one of crop, stretch, pad"),
        ([run.path, pictures, "--loss", "--pictures", 1], "at least 2 pictures"),
        ([run.path, "--uncertainty", "-n", 1], "a deviation needs at least 2 pictures"),
        ([run.path, "--uncertainty", "--class", "cat"], "trained without classes"),
        ([pets.path, "--uncertainty", "--class", "cow"], "cow"),
        ([run.path, "--schedule", "--out", pictures / "x"], "making the folder failed"),
        (["cosine", "--loss"], "cosine is a schedule and no run"),
        (["cosine", pictures], "cosine is a schedule and no run"),
    ]
    for words, sentence in mistakes:
        code, lines, err = says(capsys, "look", *words)
        assert (code, lines) == (1, []), words
        assert err.startswith("error: "), words
        assert sentence in err
        assert err.count("\n") == 1, words
    for option, value, sentence in (("--sheet", "x.gif", "ends in .png"), ("--sheet-steps", "0", "from 1")):
        code, _, err = says(capsys, "sample", run.path, option, value)
        assert (code, err.count("\n")) == (1, 1)
        assert sentence in err
