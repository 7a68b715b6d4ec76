"""`sfumato train` on a folder of small pictures, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from sfumato.cli.train import train
from sfumato.data.dataset import DataSet
from sfumato.errors import RunError, SettingsError, SfumatoError
from sfumato.files import Checkpoints, read_json
from sfumato.runs import load
from sfumato.training.device import choose_device, choose_precision, gains_from_bf16
from sfumato.training.figures import grid, write_loss
from sfumato.training.learned_schedule import value_of
from sfumato.training.logs import LOG, TensorBoard, WeightsAndBiases, read_log
from sfumato.training.recipes import RunSettings, pixels
from sfumato.training.run import train_run
from sfumato.training.settings import TrainSettings

APP = typer.Typer()
APP.command()(train)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 small colour pictures in two classes, and a broken one."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(40):
        folder = root / ("cats" if i % 2 else "dogs")
        folder.mkdir(exist_ok=True)
        a = rng.integers(0, 255, (16, 20 if i % 3 else 16, 3)).astype(np.uint8)
        Image.fromarray(a).save(folder / f"{i}.png")
    (root / "cats" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return root


def call(pictures: Path, out: Path, *more: str) -> Any:
    arguments = [
        str(pictures),
        "--out",
        str(out),
        "--size",
        "16",
        "--model",
        "tiny",
        "--batch",
        "8",
        "--validate",
        "3",
    ]
    return CliRunner().invoke(
        APP, [*arguments, "--device", "cpu", "--cache", str(out.parent / "cache"), *more]
    )


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("runs") / "mine"
    result = call(pictures, out, "--steps", "6", "--tensorboard", "--averages", "2")
    assert result.exit_code == 0, result.output
    return out, result.output


def test_what_a_run_leaves(run: tuple[Path, str]) -> None:
    out, said = run
    log = read_log(out / LOG)
    assert [entry["step"] for entry in log] == [1, 2, 3, 4, 5, 6]
    assert [("held_out/loss" in entry) for entry in log] == [False, False, True] * 2
    for name, width in (("samples/step-00000006.png", 64), ("loss.png", 400)):
        with Image.open(out / name) as picture:
            assert picture.size[0] > width
    assert list((out / "tensorboard").iterdir())
    assert len(list((out / "averages").iterdir())) == 4
    settings = read_json(out / "settings.json")
    assert isinstance(settings, dict)
    assert settings["train"]["batch"] == 8
    assert "broken.png" in said
    assert "2 classes" in said
    assert f"sfumato sample {out} -n 16" in said.replace("\n", "")
    assert not (out / "lock.json").exists()


@pytest.mark.slow
def test_each_bad_picture_is_named_once(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):  # read, and then found in the cache
        result = call(pictures, tmp_path / "run", "--steps", "1", "--sample-share", "0")
        assert result.exit_code == 0
        assert result.output.count("broken.png") == 1
    assert "broken.png" not in caplog.text


def test_the_folder_is_a_model_with_its_averaged_weights(run: tuple[Path, str]) -> None:
    out, _ = run
    opened = load(out, "cpu")
    assert opened.classes == ("cats", "dogs")
    assert opened.card.training.steps == 6
    assert opened.card.training.images_seen == 48
    assert opened.card.weights.kind == "ema"
    checkpoints = Checkpoints(out / "checkpoints")
    last = checkpoints.latest()
    assert last is not None
    tensors, _ = checkpoints.load(last)
    for name, value in opened.model.named_parameters():
        assert torch.equal(value, tensors["ema"][name])
    raw = load(out, "cpu", "raw")
    for name, value in raw.model.named_parameters():
        assert torch.equal(value, tensors["weights"][name])
    rebuilt = dict(load(out, "cpu", "ema:0.1").model.named_parameters())
    for name, value in rebuilt.items():
        torch.testing.assert_close(value.detach(), tensors["power-0.1"][name], rtol=2e-3, atol=1e-4)
    pictures = opened.sample(classes=["cats", "dogs"], steps=3)
    assert pictures.shape == (2, 3, 16, 16)


def test_the_same_command_goes_on_and_another_is_refused(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert call(pictures, out, "--steps", "2", "--sample-share", "0").exit_code == 0
    before = (out / LOG).read_text()
    again = call(pictures, out, "--steps", "2", "--sample-share", "0")
    assert again.exit_code == 0
    assert (out / LOG).read_text() == before
    other = call(pictures, out, "--steps", "2", "--lr", "0.5", "--flip")
    assert isinstance(other.exception, RunError)
    assert "flip (False, now True), lr (" in str(other.exception)
    restart = call(pictures, out, "--steps", "2", "--restart")
    assert isinstance(restart.exception, RunError)
    assert "not empty" in str(restart.exception)
    never = call(pictures, out, "--steps", "2", "--resume", "never")
    assert isinstance(never.exception, SettingsError)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "5", "--minutes", "1"], "one of --steps, --images or --minutes"),
        (["--steps", "5", "--schedule", "cosin"], "--schedule is one of"),
        (["--steps", "5", "--size", "abc"], "--size is a side"),
        (["--steps", "5", "--device", "tpu"], "--device is one of"),
        (["--steps", "5", "--model", "huge"], "--model is one of"),
        (
            ["--steps", "5", "--prediction", "x0", "--weight", "simple", "--schedule", "flow"],
            "no finite loss",
        ),
        (["--steps", "5", "--resize", "odd"], "--resize is one of"),
        (["--steps", "5", "--batch", "2", "--accumulate", "3"], "cannot be computed in 3 parts"),
        (["--steps", "5", "--batch", "0"], "--batch must be at least 1, not 0"),
        (["--steps", "5", "--batch", "-3"], "--batch must be at least 1, not -3"),
        (["--steps", "5", "--lr", "inf"], "--lr must be a finite number, not inf"),
        (["--steps", "5", "--gamma", "nan"], "--gamma must be a finite number, not nan"),
        (["--steps", "5", "--seed", "1" + 20 * "0"], "--seed must be a number of at most 63 bits"),
        (["--steps", "5", "--sample-share", "2"], "--sample-share must be in [0, 1), not 2.0"),
        (["--steps", "5", "--crop", "3"], "random crops must lie between 0 and 1, not 3.0"),
    ],
)
def test_mistakes_are_one_sentence(pictures: Path, tmp_path: Path, options: list[str], words: str) -> None:
    result = call(pictures, tmp_path / "run", *options)
    assert isinstance(result.exception, SfumatoError)
    assert words in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["cosine", "learned"])
def test_a_run_that_stopped_early_is_its_best_self(data: DataSet, tmp_path: Path, schedule: str) -> None:
    """A learning rate that destroys: looks get worse, and the best is what the folder holds."""
    weight = "bound" if schedule == "learned" else "simple"
    training = TrainSettings(
        steps=50, batch=4, lr=0.05, warmup=0, ema=0.0, validate=1, patience=3, averages=0, weight=weight
    )
    settings = RunSettings(training, schedule=schedule)
    steps = list(train_run(data, settings, tmp_path / "run", sample_share=0.0))
    assert steps[-1].step < 50
    looks = [s.validation.loss for s in steps if s.validation is not None]
    best = looks.index(min(looks)) + 1
    assert steps[-1].step == best + 3
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    marked = checkpoints.best()
    assert marked is not None
    assert marked.step == best
    groups, model = checkpoints.load(marked)[0], load(tmp_path / "run", "cpu").model
    for name, value in model.named_parameters():
        assert torch.equal(value, groups["ema"][name])
    if schedule == "learned":
        assert model.schedule == value_of(groups["schedule"])


@pytest.mark.slow
def test_a_signal_ends_the_command_with_its_code(pictures: Path, tmp_path: Path) -> None:
    timer = threading.Timer(4.0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.start()
    result = call(pictures, tmp_path / "run", "--steps", "100000", "--sample-share", "0")
    timer.join()
    assert result.exit_code == 143
    assert "the same command goes on from there" in result.output
    log = read_log(tmp_path / "run" / LOG)
    last = Checkpoints(tmp_path / "run" / "checkpoints").latest()
    assert last is not None
    assert last.step == (log[-1]["step"] if log else 0)


def test_defaults_follow_from_the_data(data: DataSet) -> None:
    settings = pixels(data)
    assert (settings.model, settings.train.minutes, settings.train.batch) == ("tiny", 20, 32)
    assert settings.train.drop == 0.1
    assert settings.dropout == 0.1
    assert settings.train.weight == "v"
    assert any("3 classes" in reason for reason in settings.reasons)
    assert any("minutes" in reason for reason in settings.reasons)
    assert pixels(data, device="cuda").model == "base"
    assert pixels(data, train={"steps": 5, "lr": 0.5}).train.lr == 0.5
    assert pixels(data, prediction="epsilon").train.weight == "simple"
    with pytest.raises(SettingsError, match="no setting 'flop'"):
        pixels(data, flop=True)
    assert settings.differences(json.loads(json.dumps(settings.to_json()))) == []


def test_every_schedule_and_prediction_has_a_card(data: DataSet) -> None:
    for schedule, prediction in (
        ("cosine", "v"),
        ("linear", "epsilon"),
        ("flow", "flow"),
        ("scaled-linear", "x0"),
    ):
        settings = RunSettings(TrainSettings(steps=1), schedule=schedule, prediction=prediction)
        card = settings.card(data)
        assert card.classes == ("a", "b", "c")
        assert card.clip


def test_device_and_precision() -> None:
    cpu = choose_device("cpu")
    assert choose_precision("fp32", cpu) == "fp32"
    assert choose_precision("auto", cpu) == ("bf16" if gains_from_bf16(cpu) else "fp32")
    with pytest.raises(SettingsError, match="--precision"):
        choose_precision("fp8", cpu)
    if not torch.cuda.is_available():
        with pytest.raises(SettingsError, match="use --device auto"):
            choose_device("cuda")


def test_wandb_gets_every_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in: the package is no dependency of the tests. With wandb 0.31.0 itself, offline, the
    project, the settings and every figure with its step came to the file."""
    seen: list[Any] = []
    run = types.SimpleNamespace(
        log=lambda f, step: seen.append((step, f)), finish=lambda: seen.append("finished")
    )
    fake = types.ModuleType("wandb")
    fake.init = lambda **settings: seen.append(settings["project"]) or run  # pyright: ignore
    monkeypatch.setitem(sys.modules, "wandb", fake)
    tracker = WeightsAndBiases("project", tmp_path, {"lr": 1.0})
    tracker.write({"loss": 0.5}, 3)
    tracker.close()
    assert seen == ["project", (3, {"loss": 0.5}), "finished"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SettingsError, match="pip install"):
        WeightsAndBiases("project", tmp_path, {})


def test_tensorboard_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(SettingsError, match="pip install"):
        TensorBoard(tmp_path)


def test_grid_and_curve(tmp_path: Path) -> None:
    pixels = grid(torch.stack([torch.full((1, 4, 4), v) for v in (-1.0, 0.0, 1.0)]), 2)
    assert pixels.shape == (10, 10, 1)
    assert [int(pixels[0, 0, 0]), int(pixels[0, 6, 0]), int(pixels[6, 0, 0]), int(pixels[6, 6, 0])] == [
        0,
        128,
        255,
        128,
    ]
    write_loss(tmp_path / "none.png", [])
    assert not (tmp_path / "none.png").exists()


def test_a_log_drops_half_lines(tmp_path: Path) -> None:
    path = tmp_path / LOG
    path.write_text('{"step": 1, "images": 8, "loss": 0.5}\n{"step": 2, "ima')
    assert read_log(path) == [{"step": 1, "images": 8, "loss": 0.5}]
