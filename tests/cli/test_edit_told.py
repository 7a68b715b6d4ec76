"""Edits with models that are told things: captions, attributes, and what is known of the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from corpora import small, told
from sfumato import cli
from sfumato.assembled import build
from sfumato.data.decode import decode
from sfumato.editing.inpaint import inpaint
from sfumato.editing.job import bench
from sfumato.files.pictures import read_recipe, to_bytes
from sfumato.predictions import V
from sfumato.records.conditions import PictureSettings
from sfumato.runs import load, save
from sfumato.tables import Table
from sfumato.training.hints import Inpaint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is told much, one that was trained to inpaint, a picture and a mask."""
    folder = tmp_path_factory.mktemp("told")
    told.run(folder / "told")
    painter = small.card(
        schedule=Table.cosine(),
        prediction=V(),
        network=small.unet(3, out_channels=1),
        picture=PictureSettings(channels=2, task="inpaint"),
    )
    save(folder / "painter", build(painter, 1), painter)
    shown = np.random.default_rng(1).integers(0, 256, (8, 8)).astype(np.uint8)
    Image.fromarray(shown).save(folder / "x.png")
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 1:6] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


def test_what_is_put_there_is_said_by_prompt_and_attributes(
    desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["edit", "replace", str(desk / "told"), str(desk / "x.png"), "--mask", str(desk / "mask.png")]
    words += ["--steps", "3", "--resample", "2"]
    assert cli.run([*words, "--negative", "a blue dog"]) == 1
    said = ["--prompt", "a red cat", "--negative", "a blue dog", "--set", "age=3", "--guidance", "2"]
    out, other = tmp_path / "out.png", tmp_path / "other.png"
    assert cli.run([*words, *said, "--class", "cat", "--out", str(out)]) == 0
    assert cli.run([*words, "--prompt", "two red dogs", "--out", str(other)]) == 0
    assert not np.array_equal(decode(out).array, decode(other).array)
    capsys.readouterr()
    for path in (out, other):
        assert cli.run(["replay", str(path)]) == 0
        assert capsys.readouterr().out == f"{path}: identical\n"
    origin = read_recipe(out)["origin"]
    assert isinstance(origin, dict)
    assert (origin["prompts"], origin["negatives"]) == (["a red cat"], ["a blue dog"])
    with Image.open(out) as image:
        image.load()
        assert "a red cat" in image.text["parameters"].splitlines()[0]  # type: ignore[attr-defined]


def test_a_run_that_was_trained_to_inpaint_is_shown_what_is_known(desk: Path, tmp_path: Path) -> None:
    """What the command draws is what the hint gives, in one descent; without the hint it is another."""
    out = tmp_path / "out.png"
    words = ["edit", "inpaint", str(desk / "painter"), str(desk / "x.png"), "--mask", str(desk / "mask.png")]
    assert cli.run([*words, "--steps", "4", "--seed", "3", "--out", str(out)]) == 0
    run = load(desk / "painter", "cpu")
    picture = (
        torch.from_numpy(decode(desk / "x.png").array[..., 0].astype(np.float32))[None, None] / 127.5 - 1
    )
    mask = torch.zeros(8, 8)
    mask[2:5, 1:6] = 1
    drawn: list[np.ndarray] = []
    for hint in (Inpaint().of(picture, (mask == 0)[None, None]), None):
        b = bench(run, run.recipe(1, steps=4, seed=3), hint)
        job = inpaint(b.denoise, picture, mask, b.levels, b.noise, times=1)
        drawn.append(to_bytes(b.finished(job)[0]))
    found = decode(out).array[..., 0]
    assert np.array_equal(found, drawn[0])
    assert not np.array_equal(found, drawn[1])


def test_a_canvas_of_tiles_is_hinted_tile_by_tile(desk: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    words = ["edit", "outpaint", str(desk / "painter"), str(desk / "x.png"), "--right", "5", "--steps", "3"]
    assert cli.run([*words, "-n", "2", "--out", str(out)]) == 0
    shown = decode(desk / "x.png").array
    whole = decode(out).array
    assert whole.shape == (8, 28, 1)
    assert np.array_equal(whole[:, :8], shown)
    assert np.array_equal(whole[:, 15:23], shown)
    assert not np.array_equal(whole[:, 8:13], whole[:, 23:])
    assert cli.run(["replay", str(out)]) == 0
