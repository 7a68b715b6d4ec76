"""NAME.json beside NAME.png is a line of a table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.data.folder import read_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(3):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), 50 * i, np.uint8)).save(tmp_path / "a" / f"{i}.png")
    return tmp_path


def test_it_gives_class_caption_and_columns(root: Path) -> None:
    said = {"class": "cat", "caption": ["one", "two"], "age": 3.5, "tags": ["x", "y"], "none": None}
    (root / "a" / "0.json").write_text(
        json.dumps({**said, "shapes": [{"points": []}], "data": "x" * 100_000})
    )
    (root / "a" / "1.json").write_text(json.dumps({"class": "dog", "wild": True}))
    (root / "a" / "2.json").write_text(json.dumps({"class": "cat"}))
    (root / "metadata.csv").write_text("file_name,size\na/0.png,large\n")
    source = read_folder(root)
    first, second, _ = source.items
    assert (first.label, first.captions) == ("cat", ("one", "two"))
    assert dict(first.columns) == {"size": "large", "age": "3.5", "tags": '["x", "y"]'}
    assert dict(second.columns) == {"wild": "true"}
    assert source.label_names == ("cat", "dog")
    assert source.flaws == ()


def test_other_files_of_that_name_are_told(root: Path) -> None:
    (root / "a" / "0.json").write_text("[1, 2]")
    (root / "a" / "1.json").write_text("{")
    (root / "a" / "other.json").write_text("{")  # beside no picture
    source = read_folder(root)
    assert [flaw.name for flaw in source.flaws] == ["a/0.json", "a/1.json"]
    assert not any(item.columns for item in source.items)
