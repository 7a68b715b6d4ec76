"""`sfumato edit` upscale, colourise, deblur, sense, draw and cascade with any run: what is told is true of
the files, and each file says how it was made."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corpora import told as corpus
from sfumato import cli
from sfumato.card import ImageSettings, NetworkSettings
from sfumato.files.pictures import read_recipe
from sfumato.folders.run import save
from sfumato.networks import to_json

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures: grey of 4, 8 and 12 x 20 pixels, colour, and a kernel."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    made = {"s4": (4, 4), "g8": (8, 8), "g12": (12, 20), "c8": (8, 8, 3)}
    for name, shape in made.items():
        Image.fromarray(rng.integers(60, 200, shape).astype(np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(np.array([[0, 0, 0], [50, 100, 50], [0, 0, 0]], np.uint8)).save(folder / "kernel.png")
    return folder


def told(text: str) -> float:
    """The decibels that a command told."""
    found = re.search(r"to (-?[\d.]+) dB", text)
    assert found is not None, text
    return float(found[1])


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    """Of pictures in bytes."""
    return 10 * math.log10(255**2 / np.square(a.astype(np.float64) - b).mean())


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(np.float64)


@pytest.mark.parametrize("method", ["pigdm", "ddrm", "dps"])
def test_upscale_tells_how_well_it_keeps_to_the_picture(
    method: str, home: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, small = tmp_path / "large.png", photos / "s4.png"
    words = ["edit", "upscale", str(home / "pets"), str(small), "--method", method, "--steps", "6"]
    assert cli.run([*words, "--out", str(out)]) == 0
    said = told(capsys.readouterr().out)
    large = pixels(out)
    assert large.shape == (8, 8)
    again = large.reshape(4, 2, 4, 2).mean((1, 3))
    assert abs(said - decibels(again, pixels(small))) < 0.06
    if method != "dps":
        assert said > 25
    account = json.loads(json.dumps(read_recipe(out)))
    assert (account["task"], account["options"]["method"]) == ("upscale", method)
    assert account["sources"][0]["path"].endswith("s4.png")
    assert cli.run(["replay", str(out)]) == 0


def test_larger_than_the_model_in_tiles(
    home: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "large.png"
    words = ["edit", "upscale", str(home / "pets"), str(photos / "g12.png"), "--factor", "2", "--steps", "3"]
    assert cli.run([*words, "--out", str(out)]) == 0
    assert pixels(out).shape == (24, 40)
    again = pixels(out).reshape(12, 2, 20, 2).mean((1, 3))
    assert abs(told(capsys.readouterr().out) - decibels(again, pixels(photos / "g12.png"))) < 0.06


def test_deblur_by_its_kernel(
    home: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel's middle is half, its sides a quarter; the edges are joined."""
    out, given = tmp_path / "sharp.png", photos / "g8.png"
    words = ["edit", "deblur", str(home / "pets"), str(given), "--kernel", str(photos / "kernel.png")]
    assert cli.run([*words, "--steps", "4", "--noise", "0.02", "--out", str(out)]) == 0
    sharp = pixels(out)
    again = 0.5 * sharp + 0.25 * (np.roll(sharp, 1, 1) + np.roll(sharp, -1, 1))
    assert abs(told(capsys.readouterr().out) - decibels(again, pixels(given))) < 0.06
    account = json.loads(json.dumps(read_recipe(out)))
    assert {source["role"] for source in account["sources"]} == {"picture", "kernel"}


def test_sense_tells_how_near_it_comes(
    home: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = photos / "g8.png"
    for share, least in ((1.0, 45.0), (0.25, 0.0)):
        out = tmp_path / f"again-{share}.png"
        words = ["edit", "sense", str(home / "pets"), str(given), "--share", str(share), "--steps", "5"]
        assert cli.run([*words, "--out", str(out)]) == 0
        text = capsys.readouterr().out
        assert f"from {round(64 * share)} numbers of 64" in text
        assert told(text) >= least
    everything = pixels(tmp_path / "again-1.0.png")
    assert float(np.abs(everything - pixels(given)).max()) <= 1  # all was measured: the picture itself


def test_colourise_keeps_the_grey(
    home: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "colour.png"
    words = ["edit", "colourise", str(home / "deep"), str(photos / "g8.png"), "--method", "ddrm"]
    assert cli.run([*words, "--steps", "5", "--out", str(out)]) == 0
    assert told(capsys.readouterr().out) > 15


def test_a_cascade_is_one_seed_and_a_chain_of_edits(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base draws 8 x 8; any run of 8 x 8 makes it larger only if told a factor, so this needs none: the
    refusal comes from the second stage, after the first has drawn."""
    out = tmp_path / "cascade"
    assert cli.run(["edit", "cascade", *[str(home / "pets")] * 2, "--steps", "2", "--out", str(out)]) == 1
    assert "say --factor" in capsys.readouterr().err
    assert len(list((out / "small").glob("*.png"))) == 1


def test_a_cascade_says_its_prompt_and_attributes_to_all_that_know_them(tmp_path: Path) -> None:
    corpus.run(tmp_path / "base")
    image = ImageSettings(channels=1, height=16, width=16)
    network = replace(corpus.card().config(), image_size=(16, 16))
    settings = NetworkSettings(kind="unet", settings=to_json(network))
    card = corpus.card().but(image=image, network=settings)
    save(tmp_path / "large", corpus.model(card), card, text=corpus.tokenizer())
    words = ["--prompt", "a red cat", "--set", "Age=2", "--steps", "2", "--out", str(tmp_path / "out")]
    assert cli.run(["edit", "cascade", str(tmp_path / "base"), str(tmp_path / "large"), *words]) == 0
    (made,) = (tmp_path / "out").glob("*.png")
    assert pixels(made).shape[:2] == (16, 16)
    origin = json.loads(json.dumps(read_recipe(made)))["origin"]
    assert (origin["prompts"], origin["values"]) == (["a red cat"], [{"age": 2.0}])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["upscale", "pets", "g8"], "by no whole factor: say --factor"),
        (["upscale", "pets", "s4", "--method", "trained"], "was not trained for this"),
        (["upscale", "pets", "s4", "--method", "best"], "--method is one of"),
        (["upscale", "pets", "s4", "--method", "dps", "--noise", "0.1"], "dps is told no noise"),
        (["upscale", "pets", "s4", "--scale", "2"], "--scale goes with --method dps"),
        (["upscale", "pets", "s4", "--noise", "2"], "--noise is a share"),
        (["upscale", "pets", "s4", "--method", "ddrm", "--eta", "0.3"], "--eta goes with --method pigdm"),
        (["upscale", "pets", "s4", "--augment", "0.1"], "trained for it"),
        (["upscale", "pets", "s4", "--factor", "1"], "whole number from 2"),
        (["upscale", "pets", "c8", "--factor", "2"], "is colour and the model draws grey"),
        (["colourise", "pets", "g8"], "made of colour pictures"),
        (["deblur", "pets", "g8"], "how was the picture blurred"),
        (["deblur", "pets", "g8", "--blur", "-1"], "above 0"),
        (["deblur", "pets", "s4", "--blur", "1"], "say --resize"),
        (["sense", "pets", "g8", "--share", "0"], "above 0, at most 1"),
        (["draw", "pets", "g8"], "--task edges"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    words: list[str], sentence: str, home: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, run, picture, *more = words
    assert cli.run(["edit", command, str(home / run), str(photos / f"{picture}.png"), *more]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
