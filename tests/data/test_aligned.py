"""Pictures that go with the pictures: found by a column, cut and mirrored alike, missing ones zero."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.data.aligned import named
from sfumato.data.augment import Augment
from sfumato.data.batches import Batches
from sfumato.data.bundled import open_source
from sfumato.data.dataset import DataSet
from sfumato.data.prepare import prepare
from sfumato.errors import DataError


def folder(root: Path, apart: bool = True) -> Path:
    """30 bars on black, each with its outline of the same shape; each fifth picture has none."""
    rows: list[dict[str, str]] = []
    for i in range(30):
        pixels = np.zeros((12, 12), np.uint8)
        pixels[2:10, i % 9 : i % 9 + 3] = 100 + i
        outline = np.where(pixels > 0, 255, i).astype(np.uint8)  # all different files
        place = root / "pictures" if apart else root
        beside = root / "outlines" if apart else root
        place.mkdir(parents=True, exist_ok=True)
        beside.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(place / f"{i:02d}.png")
        Image.fromarray(outline).save(beside / f"{i:02d}-outline.png")
        name = f"{place.relative_to(root).as_posix()}/{i:02d}.png".removeprefix("./")
        said = f"{beside.relative_to(root).as_posix()}/{i:02d}-outline.png".removeprefix("./")
        rows.append({"file_name": name, "outline": said if i % 5 else "", "number": str(i)})
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


def opened(root: Path, cache: Path, room: float = 0.0) -> DataSet:
    return prepare(root, size=8, multiple=4, room=room, aligned="outline", cache=cache)


def test_they_are_conditions_and_not_pictures(tmp_path: Path) -> None:
    """The outlines that no picture names are left out with their folder, and it is no class either."""
    data = opened(folder(tmp_path / "pairs"), tmp_path / "cache")
    assert sorted(data.names) == [f"pictures/{i:02d}.png" for i in range(30)]
    assert data.label_names == ()
    assert any("6 pictures beside those of outline" in note for note in data.notes)
    flat = opened(folder(tmp_path / "flat", apart=False), tmp_path / "cache")
    assert len(flat.names) == 30 + 6  # among pictures one cannot tell what they are
    again = opened(tmp_path / "pairs", tmp_path / "cache")
    assert again.reused
    assert again.fingerprint == data.fingerprint


def test_they_have_no_class_where_a_table_gives_the_pictures_theirs(tmp_path: Path) -> None:
    """Of a picture with an empty cell the class is missing; an outline never had one."""
    table = folder(tmp_path / "pairs") / "metadata.csv"
    first, *lines = table.read_text().splitlines()
    named = [f"{line},{'' if i == 3 else 'even' if i % 2 == 0 else 'odd'}" for i, line in enumerate(lines)]
    table.write_text("\n".join([f"{first},class", *named]))
    data = opened(table.parent, tmp_path / "cache")
    assert data.labels is not None
    assert data.label_names == ("even", "odd")
    assert data.labels.tolist() == [-1 if i == 3 else i % 2 for i in range(30)]
    assert [note for note in data.notes if "class" in note] == ["of 1 of 30 pictures the class is not known"]


@pytest.mark.parametrize("room", [0.0, 0.25])
def test_they_are_cut_and_mirrored_alike(tmp_path: Path, room: float) -> None:
    data = opened(folder(tmp_path / "pairs"), tmp_path / "cache", room)
    batch = Batches(data, 3, Augment(flip=True)).batch(range(60))
    assert batch.picture is not None
    assert batch.picture.shape == (60, 2, 8, 8)
    known = torch.tensor([int(name[9:11]) % 5 != 0 for name in batch.names])
    assert torch.equal(batch.picture[:, 1].flatten(1).amin(1), known.float())
    assert float(batch.picture[~known].abs().sum()) == 0
    drawn, shown = batch.images[known, 0] > -0.5, batch.picture[known, 0] > 0
    assert float((drawn != shown).float().mean()) < 0.05  # but for what resizing blurs
    turned = torch.flip(shown, [2])
    assert float((drawn != turned).float().mean()) > 0.1  # which a mirror would not do


def test_rows_have_their_own(tmp_path: Path) -> None:
    data = opened(folder(tmp_path / "pairs"), tmp_path / "cache")
    taken = data.take(range(30))
    assert taken.picture is not None
    stored = [i for i, name in enumerate(taken.names) if int(name[9:11]) % 5]
    drawn, shown = taken.images[stored, 0] > -0.5, taken.picture[stored, 0] > 0
    assert float((drawn != shown).float().mean()) < 0.05


def test_sidecars_need_no_table(tmp_path: Path) -> None:
    """1.outline.png is of 1.png."""
    root = folder(tmp_path / "pairs", apart=False)
    (root / "metadata.csv").unlink()
    for path in root.glob("*-outline.png"):
        path.rename(path.with_name(path.name.replace("-outline", ".outline")))
    (root / "07.outline.png").unlink()
    data = opened(root, tmp_path / "cache")
    assert sorted(data.names) == [f"{i:02d}.png" for i in range(30)]
    assert data.aligned is not None
    assert [name for name, place in zip(data.names, data.aligned.place) if place < 0] == ["07.png"]


def test_another_outline_is_another_data_set(tmp_path: Path) -> None:
    root = folder(tmp_path / "pairs")
    before = opened(root, tmp_path / "cache").fingerprint
    Image.fromarray(np.full((12, 12), 7, np.uint8)).save(root / "outlines" / "03-outline.png")
    assert opened(root, tmp_path / "cache").fingerprint != before


def test_a_column_is_known_by_a_table_or_by_names(tmp_path: Path) -> None:
    for apart in (True, False):
        source = open_source(folder(tmp_path / str(apart), apart))
        assert named(source, "outline") == "outline"
        assert named(source, "depth") == named(source, "") == ""
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "True" / "1.depth.png")
    assert named(open_source(tmp_path / "True"), "depth") == "depth"


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    root = folder(tmp_path / "pairs")
    (root / "outlines" / "03-outline.png").unlink()
    data = opened(root, tmp_path / "cache")
    assert any("pictures/03.png: its outline" in str(flaw) for flaw in data.flaws)
    taken = data.take([data.names.index("pictures/03.png")])
    assert taken.picture is not None
    assert float(taken.picture.abs().sum()) == 0
    with pytest.raises(DataError, match="no column depth names one"):
        prepare(root, aligned="depth", cache=tmp_path / "cache")
