"""`sfumato edit` invert, interpolate, vary, change, directions, slide and style, on a model with random
weights: what they write is what the mathematics says, and can be made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.cli import run
from sfumato.data.decode import decode
from sfumato.editing.noise_file import read_noise
from sfumato.files.pictures import to_bytes
from sfumato.noise import Noise
from sfumato.runs import Run, load

pytestmark = pytest.mark.slow

STEPS = ["--steps", "6"]


@pytest.fixture(scope="module")
def place(home: Path) -> Path:
    """Two pictures beside the runs."""
    ramp = np.arange(64).reshape(8, 8)
    Image.fromarray((4 * ramp).astype(np.uint8)).save(home / "a.png")
    Image.fromarray((255 - 3 * ramp.T).astype(np.uint8)).save(home / "b.png")
    return home


@pytest.fixture(scope="module")
def pets(place: Path) -> Run:
    return load(place / "pets", "cpu")


def edit(place: Path, task: str, *words: object) -> int:
    said = [
        str(place / word) if str(word).endswith((".png", ".safetensors", ".webp")) else str(word)
        for word in words
    ]
    return run(["edit", task, str(place / "pets"), *said, *STEPS])


def shown(place: Path, name: str) -> np.ndarray:
    return decode(place / name).array[..., 0].astype(int)


def cells(sheet: np.ndarray, columns: int, side: int = 8, gap: int = 2) -> list[np.ndarray]:
    step = side + gap
    return [
        sheet[y : y + side, x : x + side]
        for y in range(0, sheet.shape[0], step)
        for x in range(0, columns * step, step)
    ]


def near(a: np.ndarray, b: np.ndarray, by: int = 1) -> bool:
    return a.shape == b.shape and int(np.abs(a - b).max()) <= by


def sampled(pets: Run, **words: object) -> np.ndarray:
    made = pets.sample(sampler="ddim", steps=6, **words)  # type: ignore[arg-type]
    return to_bytes(made[0]).astype(int)


def test_an_inverted_picture_is_made_again_from_its_noise_file(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert edit(place, "invert", "a.png", "--class", "cat", "--out", "inverted.png") == 0
    assert "made again from its noise" in capsys.readouterr().out
    assert near(shown(place, "inverted.png"), shown(place, "a.png"))
    assert read_noise(place / "inverted.safetensors").shape == (1, 8, 8)
    assert (
        edit(place, "vary", "inverted.safetensors", "--angle", 0.0, "--class", "cat", "--out", "same.png")
        == 0
    )
    assert near(shown(place, "same.png"), shown(place, "a.png"))


def test_a_way_begins_and_ends_at_its_pictures(place: Path) -> None:
    words = ["a.png", "b.png", "--class", "cat", "--frames", 4, "--film", "way.webp", "--out", "way.png"]
    assert edit(place, "interpolate", *words) == 0
    first, *_, last = cells(shown(place, "way.png"), 4)
    assert near(first, shown(place, "a.png"))
    assert near(last, shown(place, "b.png"))
    with Image.open(place / "way.webp") as film:
        assert film.n_frames == 6  # there and back


def test_a_way_between_seeds_and_one_between_classes(place: Path, pets: Run) -> None:
    assert (
        edit(place, "interpolate", "--seeds", "3,8", "--class", "ox", "--frames", 3, "--out", "seeds.png")
        == 0
    )
    first, _, last = cells(shown(place, "seeds.png"), 3)
    assert near(first, sampled(pets, classes=["ox"], seeds=[3]))
    assert near(last, sampled(pets, classes=["ox"], seeds=[8]))
    words = [
        "--class",
        "cat",
        "--to-class",
        "ox",
        "--guidance",
        1,
        "--frames",
        3,
        "--seed",
        3,
        "--out",
        "to.png",
    ]
    assert edit(place, "interpolate", *words) == 0
    first, _, last = cells(shown(place, "to.png"), 3)
    assert near(first, sampled(pets, classes=["cat"], seeds=[3]))
    assert near(last, sampled(pets, classes=["ox"], seeds=[3]))


def test_a_sheet_has_the_four_seeds_in_its_corners(place: Path, pets: Run) -> None:
    assert (
        edit(place, "interpolate", "--seeds", "1,2,3,4", "--sheet", "--frames", 3, "--out", "sheet.png") == 0
    )
    made = cells(shown(place, "sheet.png"), 3)
    for cell, seed in zip((made[0], made[2], made[6], made[8]), (1, 2, 3, 4), strict=True):
        assert near(cell, sampled(pets, seeds=[seed]))


def test_variations_turn_the_noise_of_a_seed(place: Path, pets: Run) -> None:
    assert edit(place, "vary", "--of", 3, "--angle", 0.4, "-n", 2, "--seed", 7, "--out", "near.png") == 0
    start = Noise((3,)).normal((1, 8, 8), "start")
    z = Noise((7, 8)).normal((1, 8, 8), "near")
    x = np.cos(0.4) * start + np.sin(0.4) * z
    recipe = pets.recipe(2, sampler="ddim", steps=6)
    level = recipe.how().start(pets.model.schedule, 6)
    *_, last = recipe.how().walk(
        pets.denoiser(recipe), x * float(level.norm), pets.model.schedule, 6, Noise((7, 8))
    )
    for cell, picture in zip(cells(shown(place, "near.png"), 2), last.x, strict=True):
        assert near(cell, to_bytes(picture).astype(int))


def test_a_change_to_what_it_was_is_the_picture_and_to_another_is_not(place: Path) -> None:
    for more in ([], ["--strength", 0.5], ["--keep-places", 1.0]):
        words = ["a.png", "--was-class", "cat", "--class", "cat", *more, "--out", "same.png"]
        assert edit(place, "change", *words) == 0
        assert near(shown(place, "same.png"), shown(place, "a.png")), more
    assert edit(place, "change", "a.png", "--was-class", "cat", "--class", "ox", "--out", "ox.png") == 0
    assert not near(shown(place, "ox.png"), shown(place, "a.png"), 8)


@pytest.mark.parametrize("space", ["features", "noise"])
def test_sliders_stand_at_the_picture_and_move_away_on_both_sides(place: Path, pets: Run, space: str) -> None:
    words = ["--space", space, "--count", 2, "--pictures", 6, "--out", "found.png"]
    assert edit(place, "directions", *words) == 0
    words = ["--direction", "2", "--amounts", "-40,-20,0,20,40", "--seed", 3, "--out", "slid.png"]
    assert edit(place, "slide", *words) == 0
    made = cells(shown(place, "slid.png"), 5)
    assert near(made[2], sampled(pets, seeds=[3]))
    far = [float(np.abs(cell - made[2]).mean()) for cell in made]
    assert far[0] > far[1] > 0 < far[3] < far[4]


def test_a_slide_is_not_made_again_with_other_directions(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file of directions is a source of the edit like its pictures, by its hash."""
    own = ["--file", "own.safetensors"]
    assert edit(place, "directions", "--pictures", 6, "--count", 2, *own, "--out", "found.png") == 0
    assert edit(place, "slide", "--amounts", "-40,40", *own, "--out", "other.png") == 0
    assert run(["replay", str(place / "other.png")]) == 0
    kept = (place / "own.safetensors").read_bytes()
    assert edit(place, "directions", "--pictures", 7, "--count", 2, *own, "--out", "found.png") == 0
    capsys.readouterr()
    assert run(["replay", str(place / "other.png")]) == 1
    told = capsys.readouterr().err
    assert "own.safetensors holds other directions than the edit used" in told
    assert told.count("\n") == 1
    (place / "own.safetensors").write_bytes(kept)
    assert run(["replay", str(place / "other.png")]) == 0


def test_a_style_keeps_the_structure_that_is_asked_for(place: Path) -> None:
    words = [
        "a.png",
        "--structure",
        4,
        "--until",
        1.0,
        "--class",
        "ox",
        "--guidance",
        1,
        "--out",
        "styled.png",
    ]
    assert edit(place, "style", *words) == 0
    blocks = lambda name: shown(place, name).reshape(2, 4, 2, 4).mean((1, 3))
    assert float(np.abs(blocks("styled.png") - blocks("a.png")).max()) < 2
    assert edit(place, "style", "a.png", "--reference", "b.png", "--out", "like.png") == 0


def test_each_can_be_made_again(place: Path) -> None:
    made = [p for p in place.glob("*.png") if p.stem not in ("a", "b", "found")]
    assert len(made) > 6
    for path in made:
        assert run(["replay", str(path)]) == 0, path


def test_mistakes_are_told_in_a_sentence(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write = ["--out", "no.png"]
    for words, sentence in (
        (("interpolate", "a.png", *write), "between what"),
        (("interpolate", "--seeds", "3,x", *write), "--seeds"),
        (("interpolate", "--seeds", "3,8", "--class", "cat,ox", *write), "--to-class"),
        (("interpolate", "--seeds", "1,2", "--sheet", *write), "four corners"),
        (("interpolate", "--seeds", "1,2", "--film", "x.mp4", *write), ".webp"),
        (("invert", "a.png", "--sampler", "vab", *write), "ddim"),
        (("invert", "a.png", "--eta", 0.5, *write), "ddim"),
        (("invert", "a.png", "--class", "cat,ox", *write), "one class"),
        (("invert", "a.png", "b.png", "--noise", "n.safetensors"), "several"),
        (("vary", "--angle", 2, *write), "angle"),
        (("change", "a.png", "--was-class", "cat", "--strength", 0, *write), "strength"),
        (("change", "a.png", *write), "change into what"),
        (("style", "a.png", *write), "in what style"),
        (("change", "a.png", "--was-class", "horse", *write), "horse"),
        (("slide", "--direction", 99, *write), "no direction 99"),
        (("slide", "--amounts", "much", *write), "--amounts"),
        (("directions", "--space", "time", *write), "--space"),
        (("style", "a.png", "--class", "ox", "--structure", 3, *write), "divisor"),
        (("style", "a.png", "--weight", 2, *write), "--weight"),
        (("img2img", "inverted.safetensors", *write), "noise"),
    ):
        assert edit(place, *words) == 1, words  # type: ignore[arg-type]
        told = capsys.readouterr().err
        assert sentence in told, (words, told)
        assert told.count("\n") == 1
    assert not (place / "no.png").exists()


def test_noise_of_another_size_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sfumato.editing.noise_file import write_noise

    write_noise(place / "small.safetensors", torch.zeros(1, 4, 4), {})
    assert edit(place, "vary", "small.safetensors", "--out", "no.png") == 1
    assert "shape" in capsys.readouterr().err
