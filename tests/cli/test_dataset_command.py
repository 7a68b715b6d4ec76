"""`sfumato sample --as-dataset`: labelled, read back by our own trainer's door, and resumed picture by
picture."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from corpora import small
from sfumato.cli import run
from sfumato.cli.dataset import balanced
from sfumato.data.bundled import open_source
from sfumato.data.decode import decode
from sfumato.errors import SettingsError
from sfumato.provenance import read_origin
from sfumato.runs import load

STEPS = ["--steps", "3"]


def sample(home: Path, *words: object) -> int:
    return run(["sample", str(home / "pets"), *STEPS, *map(str, words)])


@pytest.fixture(scope="module")
def made(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "pets"
    assert sample(home, "--per-class", 4, "--as-dataset", out) == 0
    return out


def test_every_class_has_its_folder_and_every_picture_its_class(made: Path) -> None:
    source = open_source(made)
    assert source.label_names == small.CLASSES
    assert [item.label for item in source.items] == [item.name.split("/")[0] for item in source.items]
    assert [item.label for item in source.items].count("cat") == 4
    assert not source.flaws
    with (made / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["seed"]) for row in rows) == list(range(12))
    assert {(row["file_name"].split("/")[0], row["class"]) for row in rows} == {(c, c) for c in small.CLASSES}


def test_a_picture_is_what_its_seed_and_class_give_alone(home: Path, made: Path) -> None:
    path = made / "dog" / "000004-seed4.png"
    opened = load(home / "pets", "cpu")
    alone = opened.sample(classes=["dog"], seeds=[4], steps=3)
    shown = (alone[0, 0].numpy() + 1) * 127.5
    assert float(np.abs(decode(path).array[..., 0] - shown).max()) <= 0.51
    origin = read_origin(path)
    assert origin.seeds[origin.index or 0] == 4
    assert origin.class_names == dict(enumerate_as_text(small.CLASSES))


def enumerate_as_text(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(str(i), name) for i, name in enumerate(names)]


def test_what_is_there_is_not_made_again_and_more_begins_with_the_same(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "pets"
    assert sample(home, "--per-class", 2, "--as-dataset", out) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    gone = out / "ox" / "000002-seed2.png"
    content = gone.read_bytes()
    gone.unlink()
    (out / "cat" / "000000-seed0.png.tmp-99").write_bytes(b"left by a killed process")
    assert sample(home, "--per-class", 3, "--as-dataset", out) == 0
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert len(after) == 9
    assert all(after[path] == time for path, time in before.items() if path != gone)
    apart = decode(gone).array.astype(int) - decode_bytes(content).astype(int)
    assert int(np.abs(apart).max()) <= 1
    assert not list(out.rglob("*.tmp-*"))


def decode_bytes(content: bytes) -> np.ndarray:
    return decode(content).array


def test_another_recipe_or_another_folder_is_refused(
    home: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for words, sentence in (
        (("--per-class", 4, "--as-dataset", made, "--seed", 5), "other settings"),
        (("--per-class", 3, "--as-dataset", made), "3 more pictures"),
        (("--per-class", 4, "--as-dataset", tmp_path / "mine"), "other things"),
        (("--per-class", 4, "--as-dataset", tmp_path / "x.zip"), "x.npz"),
        (("--per-class", 4, "--as-dataset", tmp_path / "x", "--out", "y.png"), "--out"),
        (("--per-class", 4, "-n", 2, "--as-dataset", tmp_path / "x"), "-n"),
        (("--per-class", 0, "--as-dataset", tmp_path / "x"), "from 1"),
    ):
        assert sample(home, *words) == 1, words
        assert sentence in capsys.readouterr().err
    with pytest.raises(SettingsError, match="classes"):
        balanced((), 3, ())


def test_an_array_file_holds_the_same(home: Path, made: Path, tmp_path: Path) -> None:
    assert sample(home, "--per-class", 4, "--as-dataset", tmp_path / "pets.npz") == 0
    source = open_source(tmp_path / "pets.npz")
    assert source.label_names == small.CLASSES
    folder = open_source(made)
    by_name = {item.name: i for i, item in enumerate(folder.items)}
    for i, item in enumerate(source.items):
        one = folder.read(by_name[f"{item.label}/{i:06d}-seed{i}.png"]).array
        assert int(np.abs(source.read(i).array.astype(int) - one.astype(int)).max()) <= 1
