"""`sfumato edit` change, interpolate and style on a model that reads captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corpora import told
from sfumato.cli import run
from sfumato.cli.edits.changes import places_of
from sfumato.data.decode import decode
from sfumato.errors import SettingsError

pytestmark = pytest.mark.slow

STEPS = ["--steps", "5", "--guidance", "2"]
WAS = ["--class", "cat", "--was-class", "cat", "--was-prompt", "a red cat"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    told.run(folder / "run")
    Image.fromarray((4 * np.arange(64).reshape(8, 8)).astype(np.uint8)).save(folder / "a.png")
    return folder


def edit(place: Path, task: str, out: str, *words: object) -> np.ndarray:
    said = [str(place / word) if str(word).endswith(".png") else str(word) for word in words]
    assert run(["edit", task, str(place / "run"), *said, *STEPS, "--out", str(place / out)]) == 0
    return shown(place, out)


def shown(place: Path, name: str) -> np.ndarray:
    return decode(place / name).array[..., 0].astype(int)


def near(a: np.ndarray, b: np.ndarray) -> bool:
    return int(np.abs(a - b).max()) <= 1


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--keep-words", 0.8],
        ["--keep-words", 1.0, "--keep-places", 1.0],
        ["--weigh", "red=1"],
        ["--keep-rest", 0.3],
    ],
)
def test_the_same_caption_gives_the_picture_back(place: Path, more: list[object]) -> None:
    made = edit(place, "change", "same.png", "a.png", *WAS, "--prompt", "a red cat", *more)
    assert near(made, shown(place, "a.png"))


def test_kept_words_and_weights_change_what_another_caption_makes(place: Path) -> None:
    blue = [*WAS, "--prompt", "a blue dog"]
    plain = edit(place, "change", "plain.png", "a.png", *blue)
    kept = edit(place, "change", "kept.png", "a.png", *blue, "--keep-words", 1.0)
    strong = edit(place, "change", "strong.png", "a.png", *blue, "--keep-words", 1.0, "--weigh", "blue=4")
    assert not near(plain, shown(place, "a.png"))
    assert not near(plain, kept)
    assert not near(kept, strong)
    for name in ("plain", "kept", "strong"):
        assert run(["replay", str(place / f"{name}.png")]) == 0


def test_pairs_are_guided_by_all_that_is_said(place: Path) -> None:
    """Pairs that keep nothing (no place is looked at less than not at all) are a plain change."""

    def changed(out: str, *more: str) -> np.ndarray:
        words = ["edit", "change", str(place / "run"), str(place / "a.png"), *WAS, "--prompt", "a blue dog"]
        assert run([*words, "--steps", "5", *more, "--out", str(place / out)]) == 0
        return shown(place, out)

    said = ["--guidance", "class=1.5,text=4", "--interval", "0.2,20", "--negative", "a red dog"]
    mended = ["--rescale", "0.5", "--threshold", "0.9"]
    plain = changed("all.png", *said, *mended)
    assert near(plain, changed("pairs.png", *said, *mended, "--keep-rest", "0"))
    assert not near(plain, changed("fewer.png", "--guidance", "4", "--keep-rest", "0"))


def test_and_changes_what_comes_and_not_what_was(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The way back is that of the picture as it was: of a weight of next to nothing it comes again."""
    same = [*WAS, "--prompt", "a red cat"]
    made = edit(place, "change", "and.png", "a.png", *same, "--and", "a blue dog:1.5")
    assert not near(made, shown(place, "a.png"))
    assert near(
        edit(place, "change", "none.png", "a.png", *same, "--and", "a blue dog:1e-9"), shown(place, "a.png")
    )
    capsys.readouterr()
    assert run(["replay", str(place / "and.png")]) == 0
    assert "identical" in capsys.readouterr().out
    pairs = ["edit", "change", str(place / "run"), str(place / "a.png"), "--prompt", "a blue dog"]
    assert run([*pairs, "--keep-words", "0.5", "--and", "a red cat"]) == 1
    assert "leave --and and --not out" in capsys.readouterr().err


def test_a_way_from_caption_to_caption_ends_at_both(place: Path) -> None:
    way = edit(
        place, "interpolate", "way.png", "--prompt", "a red cat", "--to-prompt", "a blue dog", "--frames", 3
    )
    for prompt, cell in (("a red cat", way[:, :8]), ("a blue dog", way[:, 20:28])):
        words = ["--sampler", "ddim", "--prompt", prompt, "-n", "1", "--out", str(place / "one.png")]
        assert run(["sample", str(place / "run"), *STEPS, *words]) == 0
        assert near(shown(place, "one.png"), cell)


def test_a_style_by_caption_keeps_blocks(place: Path) -> None:
    more = ["--was-prompt", "a red cat", "--prompt", "a blue dog", "--structure", 4, "--until", 1.0]
    made = edit(place, "style", "style.png", "a.png", *more)
    blocks = lambda picture: picture.reshape(2, 4, 2, 4).mean((1, 3))
    assert float(np.abs(blocks(made) - blocks(shown(place, "a.png"))).max()) < 2


def test_a_word_is_found_by_its_tokens(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = told.tokenizer()
    assert places_of(words, "red", "a red cat") == [2]
    row = words.rows(["two red dogs"])[0].tolist()
    assert [row[i] for i in places_of(words, "dogs", "two red dogs")] == words.encode("dogs")
    with pytest.raises(SettingsError, match="hold this word"):
        places_of(words, "green", "a red cat")
    told_to = ["edit", "change", str(place / "run"), str(place / "a.png"), "--keep-words", "0.5"]
    assert run([*told_to, "--class", "cat"]) == 1
    assert "--prompt" in capsys.readouterr().err
