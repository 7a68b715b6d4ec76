"""Where the ways of `sfumato edit` begin and end: at the pictures themselves, whatever is told there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sfumato import cli
from sfumato.data.decode import decode
from sfumato.runs import load

pytestmark = pytest.mark.slow

STEPS = ["--steps", "4"]


@pytest.fixture(scope="module")
def desk(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that the run can make, so that they have a noise: a cat and a dog."""
    folder = tmp_path_factory.mktemp("stops")
    for seed, name in enumerate(("cat", "dog")):
        words = ["sample", str(home / "pets"), "-n", "1", "--class", name, "--seed", str(seed)]
        words += ["--sampler", "ddim", "--guidance", "1", "--out", str(folder / f"{name}.png")]
        assert cli.run([*words, *STEPS]) == 0
    return folder


def cells(sheet: Path, columns: int) -> list[np.ndarray]:
    shown = decode(sheet).array[..., 0].astype(int)
    return [shown[:8, 10 * i : 10 * i + 8] for i in range(columns)]


def near(a: np.ndarray, path: Path) -> bool:
    return int(np.abs(a - decode(path).array[..., 0].astype(int)).max()) <= 2


def test_a_way_to_another_class_ends_at_the_last_picture(home: Path, desk: Path, tmp_path: Path) -> None:
    out = tmp_path / "way.png"
    words = ["edit", "interpolate", str(home / "pets"), str(desk / "cat.png"), str(desk / "dog.png")]
    words += ["--class", "cat", "--to-class", "dog", "--guidance", "1", "--frames", "3", "--out", str(out)]
    assert cli.run([*words, *STEPS]) == 0
    first, _, last = cells(out, 3)
    assert near(first, desk / "cat.png")
    assert near(last, desk / "dog.png")


def test_on_a_closed_way_the_condition_comes_round_too(home: Path, tmp_path: Path) -> None:
    """Of one seed, between two classes: there and back by the same pictures."""
    words = ["edit", "interpolate", str(home / "pets"), "--class", "cat", "--to-class", "dog"]
    words += ["--frames", "4", "--guidance", "1", "--sampler", "ddim", *STEPS]
    out = tmp_path / "round.png"
    assert cli.run([*words, "--closed", "--out", str(out)]) == 0
    one, half, other, back = cells(out, 4)
    assert np.abs(half - back).max() <= 1
    assert np.abs(one - other).max() > 8
    sampled = load(home / "pets", "cpu").sample(classes=["cat"], sampler="ddim", steps=4, guidance=1)
    assert np.abs(one - ((sampled[0, 0].numpy() + 1) * 127.5)).max() <= 1


@pytest.mark.parametrize("space", ["features", "noise"])
def test_directions_of_a_picture_are_shown_on_that_picture(
    space: str, home: Path, desk: Path, tmp_path: Path
) -> None:
    """By the command's defaults; the middle column is the picture itself."""
    out = tmp_path / "directions.png"
    words = [
        "edit",
        "directions",
        str(home / "pets"),
        str(desk / "cat.png"),
        "--class",
        "cat",
        "--count",
        "1",
    ]
    words += [
        "--space",
        space,
        "--pictures",
        "3",
        "--guidance",
        "1",
        "--file",
        str(tmp_path / "d.safetensors"),
    ]
    assert cli.run([*words, *STEPS, "--out", str(out)]) == 0
    assert near(cells(out, 5)[2], desk / "cat.png")
