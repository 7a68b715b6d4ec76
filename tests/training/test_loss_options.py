"""`sfumato train` with every option of the loss: each does something, and none goes with what it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from sfumato.cli.train import train
from sfumato.errors import SettingsError
from sfumato.files import Checkpoints, read_json
from sfumato.runs import load
from sfumato.training.logs import LOG, read_log

APP = typer.Typer()
APP.command()(train)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 grey pictures of 8 x 8."""
    path = tmp_path_factory.mktemp("pictures") / "few.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 255, (30, 8, 8)).astype(np.uint8))
    return path


def call(pictures: Path, out: Path, *more: str) -> Any:
    always = ["--model", "tiny", "--batch", "4", "--steps", "1", "--device", "cpu", "--sample-share", "0"]
    always += ["--validate", "0", "--averages", "0", "--cache", str(out.parent / "cache")]
    return CliRunner().invoke(APP, [str(pictures), "--out", str(out), *always, *more])


def first_loss(pictures: Path, out: Path, *more: str) -> float:
    result = call(pictures, out, *more)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return read_log(out / LOG)[0]["loss"]


@pytest.fixture(scope="module")
def plain(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    return first_loss(pictures, tmp_path_factory.mktemp("plain") / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        "--weight p2 --huber 0.2",
        "--weight sigmoid --bias 2",
        "--weight inverse-variance",
        "--weight ddpm",
        "--weight bound",
        "--weight bound --schedule log-linear",
        "--learned-variance --bound 1.0",
    ],
)
def test_options_change_the_loss(pictures: Path, plain: float, tmp_path: Path, more: str) -> None:
    assert first_loss(pictures, tmp_path / "run", *more.split()) != plain


def test_a_model_with_everything_beside(pictures: Path, tmp_path: Path) -> None:
    """Learned variance, self-conditioning, a judge and levels by importance in one run, which samples."""
    more = "--learned-variance --self-conditioning --adversarial 0.1 --levels importance"
    first_loss(pictures, tmp_path / "run", *more.split())
    latest = Checkpoints(tmp_path / "run" / "checkpoints").latest()
    assert latest is not None
    groups = Checkpoints(tmp_path / "run" / "checkpoints").load(latest)[0]
    assert int(groups["levels"]["count"].sum()) == 4
    assert int(groups["discriminator"]["learned"]) == 1
    said = read_json(tmp_path / "run" / "settings.json")
    assert isinstance(said, dict)
    assert (said["adversarial"], said["train"]["bound"]) == (0.1, 0.001)
    assert load(tmp_path / "run").sample(1, steps=2).isfinite().all()
    again = call(pictures, tmp_path / "run", *more.split(), "--levels", "fitted")
    assert "levels (importance, now fitted)" in str(again.exception)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("--weight best", "--weight is one of simple, x0, v"),
        ("--levels everywhere", "--levels is one of stratified, uniform"),
        ("--schedule flow --learned-variance", "about the steps of a table"),
        ("--schedule flow --weight ddpm", "about the steps of a table"),
        ("--schedule flow --weight bound", "has no bound"),
        ("--schedule learned --weight simple", "trained by --weight bound"),
        ("--schedule learned --levels importance", "decides itself where to train"),
        ("--bound 0.1", "add --learned-variance"),
        ("--learned-variance --bound 0", "taught by the bound"),
        ("--learned-variance --levels logit-normal", "needs levels drawn evenly"),
        ("--weight bound --adversarial 0.1", "beside any --weight but bound"),
        ("--adversarial -1", "a share of 0 or more"),
        ("--huber -1", "--huber must not be negative"),
        ("--weight sigmoid --bias 1000", "bias"),
        ("--self-conditioning --prediction epsilon", "--prediction v, x0 or flow"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(
    pictures: Path, tmp_path: Path, more: str, why: str
) -> None:
    result = call(pictures, tmp_path / "run", *more.split())
    assert isinstance(result.exception, SettingsError), result.output
    said = str(result.exception)
    assert why in said
    assert "\n" not in said
