"""The model of emoji that ships: it opens by its name, is small, says whose pictures it learned from, and
draws what it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import sfumato
from sfumato.cli import run as command
from sfumato.data.bundled import bundled_name, model_path
from sfumato.data.prepare import prepare
from sfumato.provenance import read_origin
from sfumato.runs import Run


@pytest.fixture(scope="module")
def emoji() -> Run:
    return sfumato.load("emoji", "cpu")


def test_it_is_small_and_says_whose_pictures_it_learned_from(emoji: Run) -> None:
    folder = model_path("emoji")
    assert bundled_name(folder) == "emoji"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 10_000_000
    said = emoji.card.note or ""
    for owner in ("Microsoft", "Google", "Twitter", "CC BY 4.0"):
        assert owner in said
    assert all(p.dtype == torch.float32 for p in emoji.model.parameters())


def test_a_folder_of_that_name_goes_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_path("emoji") != Path("emoji")
    (tmp_path / "emoji").mkdir()
    assert model_path("emoji") == Path("emoji")
    assert model_path("no-such-model") == Path("no-such-model")


def test_the_command_works_at_once_and_the_picture_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["sample", "emoji", "--prompt", "red heart, 3d render emoji", "-n", "2", "--device", "cpu"]
    assert command([*words, "--out", "heart.png"]) == 0
    assert read_origin(tmp_path / "heart.png").run == "emoji"
    assert command(["replay", "heart.png", "--device", "cpu"]) == 0
    assert "identical" in capsys.readouterr().out
    assert command(words) == 0  # without --out the pictures are here, not among the package's files
    assert list(tmp_path.rglob("samples/*.png"))


@pytest.mark.slow
def test_colours_are_those_asked_for(emoji: Run) -> None:
    """Four circles each: their middle is nearest to that of the real circle of this colour."""
    data, colours = prepare("emoji", hold_out=0.0), ("red", "yellow", "green", "blue")
    said = [(data.captions or ())[row][0] for row in data.train.tolist()]
    for style in ("3d render emoji", "twemoji emoji"):
        prompts = [f"{colour} circle, {style}" for colour in colours]
        real = middle(data.images([said.index(prompt) for prompt in prompts]))
        drawn = emoji.sample(16, prompt=prompts * 4, guidance=3.0, steps=10, seed=100)
        found = torch.cdist(middle(drawn), real).argmin(1)
        assert found.tolist() == [0, 1, 2, 3] * 4, style


def middle(pictures: Tensor) -> Tensor:
    """The mean colour of the inner 8 x 8 pixels, (B, 3)."""
    return pictures[:, :, 12:20, 12:20].mean((2, 3))


@pytest.mark.slow
def test_a_flat_style_has_fewer_tones_than_a_rendered_one(emoji: Run) -> None:
    """Neighbouring pixels inside a drawing differ in more places where it is shaded."""

    def shaded(words: str) -> float:
        drawn = emoji.sample(8, prompt=f"red heart, {words}", guidance=3.0, steps=10, seed=200)
        steps = drawn.diff(dim=3).abs().amax(1)[:, 12:20, 12:20]
        return float(((steps > 0.01) & (steps < 0.3)).float().mean())

    assert shaded("3d render emoji") > shaded("twemoji emoji")
