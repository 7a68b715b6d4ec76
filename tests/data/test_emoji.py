"""The bundled emoji: what NOTICE says is there, and captions that say concept and style."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np

from sfumato.conditions.columns import offered
from sfumato.data.bundled import emoji_path, open_source

ROOT = Path(__file__).parents[2]
WORDS = {
    "3d": "3d render emoji",
    "fluent": "fluent flat emoji",
    "noto": "noto emoji",
    "twemoji": "twemoji emoji",
}


def test_every_picture_is_accounted_for_in_the_notice() -> None:
    source = open_source("emoji")
    styles = Counter(dict(item.columns)["style"] for item in source.items)
    said = re.findall(r"^    (\w+) +([\d,]+) pictures", (ROOT / "NOTICE").read_text("utf-8"), re.MULTILINE)
    assert {style: int(count.replace(",", "")) for style, count in said} == styles
    assert len({dict(item.columns)["concept"] for item in source.items}) == 1914


def test_a_caption_is_its_concept_and_the_words_of_its_style() -> None:
    for item in open_source("emoji").items:
        told = dict(item.columns)
        assert item.captions == (f"{told['concept']}, {WORDS[told['style']]}",)
        assert item.label is None


def test_red_heart_is_red_on_white() -> None:
    source = open_source("emoji")
    for i, item in enumerate(source.items):
        if dict(item.columns)["concept"] == "red heart":
            picture = source.read(i).array
            assert picture.shape == (32, 32, 3)
            assert (picture[0, 0] == 255).all()
            red, green, blue = picture[12:20, 12:20].reshape(-1, 3).mean(0)
            assert red > 180
            assert max(green, blue) < 120


def test_the_columns_can_be_attributes() -> None:
    kinds = offered([dict(item.columns) for item in open_source("emoji").items])
    assert kinds.keys() == {"style", "group", "subgroup", "concept"}
    assert kinds["style"] == kinds["group"] == "choice"


def test_any_numpy_reads_the_file() -> None:
    with np.load(emoji_path(), allow_pickle=False) as file:
        assert file["images"].shape == (7012, 32, 32, 3)
        assert {len(file[name]) for name in file.files} == {7012}
