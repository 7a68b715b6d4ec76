"""Runs that were trained for tasks: what they are shown decides what they draw, and the commands use it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sfumato import cli
from sfumato.editing.upscale import enlarged, for_task, told, trained
from sfumato.operators import downsample
from sfumato.runs import Run, load
from sfumato.training.hints import Inpaint, Upscale

SIDE, FACTOR = 8, 2
SMALL = SIDE // FACTOR
pytestmark = pytest.mark.slow


def smooth(count: int, seed: int) -> np.ndarray:
    """Pictures of two soft waves: what is lost in a smaller one follows from what is left."""
    rng = np.random.default_rng(seed)
    at = np.arange(SIDE) / SIDE
    a, b, u, v = rng.uniform(0, 2 * np.pi, (4, count, 1, 1))
    waves = np.sin(2 * np.pi * at[:, None] + a) * np.cos(u) + np.sin(2 * np.pi * at + b) * np.sin(v)
    return (127.5 + 63 * waves).round().astype(np.uint8)


def shrunk(picture: np.ndarray) -> Image.Image:
    """The means of its blocks."""
    height, width = (n // FACTOR for n in picture.shape)
    blocks = picture.reshape(height, FACTOR, width, FACTOR).astype(np.float64)
    return Image.fromarray(blocks.mean((1, 3)).round().astype(np.uint8))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("tasks")
    np.savez(folder / "waves.npz", images=smooth(400, 0))
    words = [
        "train",
        str(folder / "waves.npz"),
        "--out",
        str(folder / "run"),
        "--task",
        f"upscale:{FACTOR},inpaint",
    ]
    words += ["--steps", "300", "--batch", "16", "--model", "tiny", "--device", "cpu", "--sample-share", "0"]
    assert cli.run([*words, "--cache", str(folder / "cache"), "--validate", "0"]) == 0
    return load(folder / "run", "cpu")


def pictures(count: int) -> Tensor:
    return torch.from_numpy(smooth(count, 1)).float()[:, None] / 127.5 - 1


def test_the_run_says_what_it_was_trained_for(run: Run) -> None:
    task = trained(run)
    assert task is not None
    assert task.name == f"upscale:{FACTOR},inpaint"
    assert run.conditions.attributes.names == ("task",)


def test_an_upscaler_keeps_to_the_small_picture_that_it_is_shown(run: Run) -> None:
    """Made small again, its pictures are those that were shown, and not those that were shown beside them."""
    truth = pictures(16)
    small = Upscale(FACTOR).shrunk(truth)
    recipe = for_task(run, run.recipe(16, steps=10), "upscale")
    made = enlarged(run, recipe, small, Upscale(FACTOR))
    again = downsample(made.shape[1:], (SMALL, SMALL))(made)
    right = float((again - small).square().mean())
    wrong = float((again - small.roll(1, 0)).square().mean())
    assert right < 0.1 * wrong
    assert float((made - truth).square().mean()) < 0.2 * float((made - truth.roll(1, 0)).square().mean())


def test_the_same_run_fills_holes_when_told_so(run: Run) -> None:
    """Where the hole is, its pictures are nearer to the truth than to another picture."""
    truth = pictures(16)
    known = torch.ones(16, 1, SIDE, SIDE)
    known[..., 2:6, 2:6] = 0
    recipe = for_task(run, run.recipe(16, steps=10), "inpaint")
    made = told(run, recipe, Inpaint().of(truth, known))
    hole = (known == 0).expand_as(made)
    error = lambda a, b: float((a - b)[hole].square().mean())
    assert error(made, truth) < 0.3 * error(made, truth.roll(1, 0))


def test_the_commands_use_the_training(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    shrunk(smooth(1, 2)[0]).save(small)
    words = ["edit", "upscale", str(run.path), str(small), "--steps", "10", "--out", str(large)]
    assert cli.run(words) == 0
    said = re.search(r"to (-?[\d.]+) dB", capsys.readouterr().out)
    assert said is not None
    assert float(said[1]) > 18
    assert np.asarray(Image.open(large)).shape == (SIDE, SIDE)
    assert cli.run(["replay", str(large)]) == 0
    capsys.readouterr()
    for more, sentence in (
        (["--factor", "3"], f"trained to make pictures {FACTOR} times larger"),
        (["--noise", "0.1"], "takes no --noise"),
        (["--augment", "0.9"], "0 to 0.5"),
    ):
        assert cli.run([*words, *more]) == 1
        assert sentence in capsys.readouterr().err


def test_larger_than_the_run_in_tiles_and_in_a_cascade(run: Run, tmp_path: Path) -> None:
    """A picture of the run's own size becomes twice as large, in 3 x 3 tiles; a cascade draws with a run and
    makes it larger with another."""
    given, large = tmp_path / "given.png", tmp_path / "large.png"
    Image.fromarray(smooth(1, 3)[0]).save(given)
    assert cli.run(["edit", "upscale", str(run.path), str(given), "--steps", "6", "--out", str(large)]) == 0
    again = np.asarray(shrunk(np.asarray(Image.open(large)))).astype(float)
    assert np.square(again - np.asarray(Image.open(given))).mean() < 30**2
    out = tmp_path / "cascade"
    words = ["edit", "cascade", str(run.path), str(run.path), "-n", "2", "--steps", "3", "--out", str(out)]
    assert cli.run(words) == 0
    assert len(list((out / "small").glob("*.png"))) == 2
    made = sorted(out.glob("*.png"))
    assert [np.asarray(Image.open(path)).shape for path in made] == [(FACTOR * SIDE, FACTOR * SIDE)] * 2
    assert cli.run(["replay", str(made[0])]) == 0
