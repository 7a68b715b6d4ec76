"""CLIP guidance as part of a recipe: what `sfumato sample` takes and says, and pictures made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from corpora import small, told
from sfumato.cli import run as command
from sfumato.conditions.clip import open_clip
from sfumato.errors import RunError, SettingsError
from sfumato.guidance.clip import clip_guided
from sfumato.level import Level
from sfumato.noise import Noise
from sfumato.predictions import V
from sfumato.provenance import read_origin
from sfumato.runs import Run, load
from sfumato.tables import Table

pytestmark = pytest.mark.slow

WORDS = ("a red cat", "a blue dog")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with captions, one without, both of 8 x 8 grey pictures, and pairs of one epoch's training."""
    folder = tmp_path_factory.mktemp("pulled")
    told.run(folder / "run")
    small.make(folder / "plain", small.card(schedule=Table.cosine(), prediction=V(), clip=False))
    for side in (8, 12):
        shown = (Noise((side,)).uniform((64, side, side), "shown")[0] * 255).byte().numpy()
        captions = np.array([WORDS[i % 2] for i in range(64)])
        np.savez(folder / f"{side}.npz", images=shown, captions=captions)
        words = ["train-clip", str(folder / f"{side}.npz"), "--out", str(folder / f"pair{side}")]
        words += ["--steps", "2", "--batch", "16", "--vocabulary", "540", "--hold-out", "0"]
        assert command([*words, "--device", "cpu", "--cache", str(folder / "cache")]) == 0
    return folder


@pytest.mark.parametrize("run", ["run", "plain"])
def test_the_recipe_is_the_guidance(home: Path, run: str) -> None:
    """With captions of its own or without, and one caption for each picture: what `clip_guided` makes of the
    model as it is asked without."""
    opened, pair = load(home / run, "cpu"), open_clip(home / "pair8")
    texts = [*WORDS, *WORDS]
    asked = {"steps": 5, "clip": False} | ({"prompt": texts} if run == "run" else {"n": 4})
    if run == "plain":
        with pytest.raises(SettingsError, match="without captions"):
            opened.recipe(prompt=texts)
    plain = opened.recipe(**asked)
    pulled = opened.recipe(**{**asked, "n": 4, "prompt": texts}, clip_model=home / "pair8", clip_guidance=3)
    assert pulled.pulled is not None
    assert not pulled.pulled.through
    level = Level.of(0.6, 0.8)
    x = Noise((1, 2, 3, 4)).normal((1, 8, 8), "x")
    wanted = clip_guided(opened.denoiser(plain), pair, texts, 3.0)(x, level)
    found = opened.denoiser(pulled)(x, level)
    assert torch.equal(found.x0, wanted.x0)
    assert not torch.equal(found.x0, opened.denoiser(plain)(x, level).x0)
    nothing = opened.recipe(**{**asked, "n": 4, "prompt": texts}, clip_model=home / "pair8", clip_guidance=0)
    assert torch.equal(opened.make(nothing), opened.make(plain))
    alone = opened.denoiser(pulled.take([2]))(x[2:3], level)
    torch.testing.assert_close(alone.x0, found.x0[2:3], rtol=0, atol=1e-5)


def test_another_size_or_cutouts_look_at_the_guess(home: Path) -> None:
    opened = load(home / "plain", "cpu")
    for options in ({"clip_model": home / "pair12"}, {"clip_model": home / "pair8", "cutouts": 2}):
        recipe = opened.recipe(2, prompt=WORDS[0], steps=2, clip_guidance=5, **options)
        assert recipe.pulled is not None
        assert recipe.pulled.through
        assert opened.make(recipe).isfinite().all()


@pytest.mark.parametrize("run", ["run", "plain"])
def test_what_was_drawn_is_drawn_again(home: Path, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / f"{run}.png"
    words = ["sample", str(home / run), "--prompt", WORDS[0], "--prompt", WORDS[1], "-n", "1", "--steps", "2"]
    words += ["--clip-model", str(home / "pair8"), "--clip-guidance", "3", "--device", "cpu"]
    assert command([*words, "--out", str(path)]) == 0
    made = read_origin(path)
    assert made.pulled is not None
    assert (made.pulled.folder, made.pulled.texts, made.pulled.scale) == ("pair8", WORDS, 3.0)
    capsys.readouterr()
    assert command(["replay", str(path), "--device", "cpu"]) == 0
    assert "identical" in capsys.readouterr().out


def test_mistakes_are_one_sentence(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ["sample", str(home / "plain"), "--steps", "2", "--device", "cpu", "-n", "1"]
    pair = ["--clip-model", str(home / "pair8")]
    for words, sentence in (
        (pair, "give a --prompt"),
        ([*pair, "--prompt", "x", "--clip-guidance", "inf"], "finite"),
        ([*pair, "--prompt", "x", "--cutouts", "-1"], "from 0 to 64"),
        (["--prompt", "x", "--clip-model", str(tmp_path)], "no CLIP here"),
    ):
        assert command([*start, *words]) == 1
        said = capsys.readouterr().err.strip()
        assert sentence in said
        assert "\n" not in said


def test_a_pair_of_other_channels_or_other_weights_is_refused(home: Path, tmp_path: Path) -> None:
    opened: Run = load(home / "plain", "cpu")
    recipe = opened.recipe(1, prompt="x", steps=2, clip_model=home / "pair8")
    import shutil

    shutil.copytree(home / "pair8", tmp_path / "pair")
    moved = opened.recipe(1, prompt="x", steps=2, clip_model=tmp_path / "pair")
    weights = tmp_path / "pair" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(RunError, match="its CLIP has changed"):
        opened.make(moved)
    assert opened.make(recipe).isfinite().all()
    colour = small.make(tmp_path / "colour", small.card(channels=3))
    with pytest.raises(SettingsError, match="sees 1 channels and the model draws 3"):
        colour.recipe(1, prompt="x", clip_model=home / "pair8")
