"""`sfumato evaluate` as a person uses it: everything measured once, and the page made of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corpora import small
from sfumato import cli
from sfumato.card import DataSettings, TrainingSettings
from sfumato.data.prepare import prepare
from sfumato.evaluation.record import Record
from sfumato.evaluation.sets import of_dataset
from sfumato.files import read_json, write_json
from sfumato.reporting.stored import read_records, stored
from sfumato.reporting.subject import subject
from sfumato.runs import Run, load

pytestmark = pytest.mark.slow

EVERY, HELD = 180, 0.35


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three classes, of which one is rare, and its data: noise around a grey of each class."""
    home = tmp_path_factory.mktemp("home")
    noise = np.random.default_rng(0)
    for i in range(EVERY):
        kind = 2 if i % 6 == 0 else i % 2
        folder = home / "data" / small.CLASSES[kind]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = 60 + 60 * kind + 40 * noise.standard_normal((8, 8))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    found = prepare(home / "data", size=8, hold_out=HELD)
    data = DataSettings(fingerprint=found.fingerprint, images=len(found.train), held_out=len(found.held))
    small.make(
        home / "run", small.card(classes=small.CLASSES, data=data, training=TrainingSettings(seconds=60.0))
    )
    return home


@pytest.fixture(scope="module")
def evaluated(home: Path) -> Path:
    words = [
        "evaluate",
        home / "run",
        home / "data",
        "-n",
        60,
        "--device",
        "cpu",
        "--batch",
        32,
        "--watts",
        20,
    ]
    assert cli.run([str(word) for word in words]) == 0
    return home / "run" / "evaluation"


def test_samples_are_asked_for_as_often_as_the_data_has_them(home: Path) -> None:
    of = subject(load(home / "run", "cpu"), str(home / "data"))
    assert of.same
    rows = of.drawn(3 * len(of.data.train) + 5, 0)
    counts = np.bincount(rows, minlength=EVERY)[of.data.train]
    assert sorted(set(counts.tolist())) == [3, 4]
    assert counts.sum() == len(rows)
    whole = of.samples(len(of.data.train), 1, 64)
    real = of_dataset(of.data, of.data.train)
    assert sorted(whole.classes or ()) == sorted(real.classes or ())
    assert not set(of.train.digests) & set(of.held.digests if of.held else ())


def test_every_part_is_written_and_the_page_shows_it(evaluated: Path) -> None:
    names = {path.name for path in evaluated.iterdir()}
    assert names >= {
        "report.html", "records.json", "losses.json", "novelty.json", "nearest.png", "coverage.json",
        "samples.png", "samples.json", "data.json", "about.json",
    }  # fmt: skip
    page = (evaluated / "report.html").read_text("utf-8")
    assert "Not measured yet" not in page
    assert (evaluated.parent / "README.md").read_text("utf-8").count("written by sfumato") == 2
    found = stored(evaluated.parent)
    first = found.metric("kid")
    assert first is not None
    assert first.baseline is not None
    assert first.baseline.generated == min(60, found.card.data.held_out)
    assert first.terms.real == found.card.data.images
    for record in found.newest:
        assert record.group in (None, *small.CLASSES)
    assert found.parts["about"]["watts"] == 20.0


def test_measuring_again_adds_and_the_page_can_be_made_again(
    home: Path, evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(read_records(evaluated / "records.json"))
    words = ["evaluate", home / "run", home / "data", "--metrics", "kid,recall", "-n", 55, "--device", "cpu"]
    assert cli.run([str(word) for word in words]) == 0
    records = read_records(evaluated / "records.json")
    assert [r.terms.metric for r in records[before:] if r.group is None] == ["kid", "recall"]
    assert "At 20 W" in (evaluated / "report.html").read_text("utf-8")  # what was said is kept
    (evaluated / "report.html").unlink()
    capsys.readouterr()
    assert cli.run(["report", str(home / "run"), "--licence", "apache-2.0"]) == 0
    assert "report.html" in capsys.readouterr().out
    assert "apache-2.0" in (evaluated / "report.html").read_text("utf-8")


def test_compare_says_differences_and_refuses_unlike_terms(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = next(r for r in read_records(evaluated / "records.json") if r.terms.metric == "kid")

    def kept(name: str, value: float, **terms: object) -> str:
        low, high = value - 0.1, value + 0.1
        changed = {"value": value, "low": low, "high": high, "terms": {**record.terms.model_dump(), **terms}}
        said = Record.of_json({**record.to_json(), **changed})
        write_json(tmp_path / name, {"format": 1, "records": [said.to_json()]})
        return str(tmp_path / name)

    far, near, other = kept("far", 2.0), kept("near", 1.0), kept("other", 1.0, generated=7)
    assert cli.run(["compare", far, near]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    reach = 2**0.5 * 0.1
    assert f"{1.0:.4g}" in line.split()
    assert f"{1 - reach:.4g}" in line
    assert line.endswith("B is better")
    assert cli.run(["compare", near, other]) == 1
    assert "not measured alike" in capsys.readouterr().err
    assert cli.run(["compare", near, str(tmp_path)]) == 1
    assert "nothing was measured there" in capsys.readouterr().err


def test_metrics_that_are_named_are_measured_by_class_too(home: Path, tmp_path: Path) -> None:
    words = ["evaluate", home / "run", home / "data", "--metrics", "is, clip-score", "-n", 150]
    assert cli.run([*map(str, words), "--device", "cpu", "--out", str(tmp_path)]) == 1  # lite0 reads nothing
    words[4] = "is , is"
    assert cli.run([*map(str, words), "--device", "cpu", "--out", str(tmp_path)]) == 0
    records = read_records(tmp_path / "records.json")
    assert [record.terms.metric for record in records] == ["is"] * 3
    assert {record.group for record in records} == {None, *small.CLASSES[:2]}  # of the third there are 25


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("fid-infinity", "fid-infinity needs at least 2,560 generated pictures and there are 70"),
        ("kid,sfid", "lite0 gives no features of places"),
        ("clip-score", "has no scores of its captions"),
    ],
)
def test_what_cannot_be_measured_is_told_before_anything_is_drawn(
    names: str, words: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Run, "make", lambda *_: pytest.fail("drawn"))
    said = ["evaluate", home / "run", home / "data", "--metrics", names, "-n", 70, "--seed", 9]
    assert cli.run([*map(str, said), "--device", "cpu"]) == 1
    assert words in capsys.readouterr().err


def test_a_folder_of_pictures_has_metrics_alone(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", home / "data", home / "data", "--metrics", "fid,precision", "--device", "cpu"]
    assert cli.run([*map(str, words), "--out", str(tmp_path)]) == 0
    records = {r.terms.metric: r for r in read_records(tmp_path / "records.json")}
    assert records["fid"].value == pytest.approx(0, abs=1e-3)  # of a set and itself
    assert records["precision"].value == 1.0
    assert records["fid"].baseline is None
    assert not (home / "data" / "evaluation").exists()


def test_what_few_pictures_are_enough_for_is_measured_and_the_rest_is_said(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, path in enumerate(sorted((home / "data").rglob("*.png"))[:24]):
        (home / "few").mkdir(exist_ok=True)
        (home / "few" / f"{i}.png").write_bytes(path.read_bytes())
    small.make(home / "little", small.card())
    words = ["evaluate", home / "little", home / "few", "-n", 10, "--device", "cpu"]
    assert cli.run([str(word) for word in words]) == 0
    out = capsys.readouterr().out
    assert out.count("not measured: ") >= 2  # no metric, no novelty
    assert (home / "little" / "evaluation" / "losses.json").exists()
    assert cli.run([*map(str, words), "--novelty"]) == 1
    assert "novelty is measured" in capsys.readouterr().err


def test_a_run_that_was_not_evaluated_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small.make(home / "fresh", small.card())
    assert cli.run(["report", str(home / "fresh")]) == 1
    assert "not evaluated yet" in capsys.readouterr().err


def test_about_keeps_what_was_said_before(evaluated: Path) -> None:
    said = read_json(evaluated / "about.json")
    assert isinstance(said, dict)
    assert json.dumps(said)
    assert {"date", "sfumato", "torch", "python", "device", "weights_sha256", "watts"} <= set(said)
