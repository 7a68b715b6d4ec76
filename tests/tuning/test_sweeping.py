"""A sweep finds the value that is planted, and one that was stopped or killed ends as if it never was."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from corpora import small
from sfumato import cli
from sfumato.card import SamplerSettings, read_card
from sfumato.data.dataset import DataSet
from sfumato.data.prepare import prepare
from sfumato.errors import RunError, SettingsError
from sfumato.files import read_json
from sfumato.folders.default_sampler import set_sampler
from sfumato.model import LogSigma, Model
from sfumato.noise import uniform
from sfumato.predictions import V
from sfumato.schedules import Cosine
from sfumato.tables import Table
from sfumato.training.recipes import RunSettings
from sfumato.training.run import train_run
from sfumato.training.settings import TrainSettings
from sfumato.tuning.loss import LOG_SNRS, at, eps_losses
from sfumato.tuning.ranking import behind, ranked
from sfumato.tuning.space import RUN, TRAIN, Axis, combinations, options, read_axes, read_axis, usual_axes
from sfumato.tuning.sweep import Done, Going, Sweep, run_sweep
from sfumato.tuning.trial import Result
from tuning import exact

AXES = read_axes(["lr=1e-9,3e-3", "schedule=cosine,flow", "batch=8", "averages=2"])
STEPS = 8


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """75 grey pictures of 8 x 8 in three classes: a slope with noise on it."""
    path = tmp_path_factory.mktemp("sweep") / "pets.npz"
    noise = uniform(75 * 64, "pictures").reshape(75, 8, 8).numpy()
    slope = np.linspace(0, 128, 8)[None, None, :] * np.arange(1, 4).repeat(25)[:, None, None] / 3
    images = (slope + 127 * noise).astype(np.uint8)
    np.savez(path, images=images, labels=np.arange(3).repeat(25), label_names=np.array(small.CLASSES))
    return path


@pytest.fixture(scope="module")
def data(source: Path, tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return prepare(source, hold_out=0.2, cache=tmp_path_factory.mktemp("cache"))


def sweep(data: DataSet, **changes: Any) -> Sweep:
    return Sweep(
        data, **{"axes": AXES, "length": {"steps": STEPS}, "pictures": 0, "source": "pets.npz", **changes}
    )


def through(whole: Sweep, out: Path) -> list[Going | Done]:
    return list(run_sweep(whole, out))


def outcome(out: Path) -> tuple[str, list[Any]]:
    """The table, and every figure but the seconds."""
    trials = json.loads((out / "results.json").read_text())["trials"]
    return (out / "table.md").read_text(), [{**one, "seconds": 0} for one in trials]


@pytest.fixture(scope="module")
def whole(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "sweep"
    through(sweep(data), out)
    return out


@pytest.mark.slow
def test_the_planted_rate_wins_under_both_schedules(whole: Path) -> None:
    found = json.loads((whole / "results.json").read_text())
    rates = [trial["said"]["lr"] for trial in found["trials"]]
    assert rates == [3e-3, 3e-3, 1e-9, 1e-9]
    assert all(trial["behind"]["low"] > 0 for trial in found["trials"][2:])
    losses = [sum(trial["losses"]) / len(trial["losses"]) for trial in found["trials"]]
    assert losses[2] == pytest.approx(losses[3], rel=0.02)  # untrained: the same on a common scale
    assert losses[0] < 0.98 * losses[2]
    assert all(len(trial["curve"]) == 2 for trial in found["trials"])
    assert [point[0] for point in found["trials"][0]["curve"]] == [0.5, 1.0]
    with Image.open(whole / "curves.png") as picture:
        assert picture.size[0] > 400


@pytest.mark.slow
def test_what_is_left_is_a_command_and_a_run(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first: Any = read_json(whole / "winner.json")
    words = shlex.split(first["command"])
    assert words[:5] == ["sfumato", "train", "pets.npz", "--out", "RUN"]
    assert words[words.index("--lr") + 1] == "0.003"
    settings: Any = read_json(whole / first["run"] / "settings.json")
    assert {name: settings[name] for name in first["settings"] if name != "train"} == {
        name: value for name, value in first["settings"].items() if name != "train"
    }
    assert settings["train"] == first["settings"]["train"]
    TrainSettings.from_json(first["settings"]["train"])
    out = whole.parent / "pictures.png"
    arguments = ["sample", str(whole / first["run"]), "-n", "2", "--steps", "2", "--out", str(out)]
    assert cli.run([*arguments, "--device", "cpu"]) == 0
    assert out.exists()
    capsys.readouterr()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the sweep that is killed is forked")
def test_a_killed_sweep_ends_as_if_it_never_was(data: DataSet, whole: Path, tmp_path: Path) -> None:
    """Killed in the middle of its second trial, after that was begun again from a checkpoint."""
    out = tmp_path / "sweep"
    for steps in (5, 13, 6):
        child = os.fork()
        if not child:
            try:
                events: Iterator[Going | Done] = run_sweep(sweep(data), out)
                for i, _ in enumerate(events):
                    if i == steps:
                        os._exit(9)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    again = [event for event in through(sweep(data), out) if isinstance(event, Done)]
    assert [event.again for event in again].count(True) >= 1
    assert outcome(out) == outcome(whole)


@pytest.mark.slow
def test_a_stopped_sweep_keeps_everything_and_goes_on(data: DataSet, whole: Path, tmp_path: Path) -> None:
    out, count = tmp_path / "sweep", 0

    def stop() -> bool:
        return count > STEPS + 4

    for _ in run_sweep(sweep(data), out, stop=stop):
        count += 1
    assert not (out / "table.md").exists()
    assert (out / "trials" / "002" / "checkpoints").is_dir()
    rest = [event for event in through(sweep(data), out) if isinstance(event, Going)]
    assert (rest[0].number, rest[0].step.step) == (2, count - STEPS)  # a result is counted too
    assert outcome(out) == outcome(whole)


@pytest.mark.slow
def test_more_trials_go_on_and_other_settings_do_not(data: DataSet, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    through(sweep(data, trials=1), out)
    more = [event for event in through(sweep(data, trials=2), out) if isinstance(event, Done)]
    assert [event.again for event in more] == [True, False]
    with pytest.raises(RunError, match=r"other settings: length \(.*8.*, now .*9.*\)"):
        through(sweep(data, length={"steps": STEPS + 1}), out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(RunError, match="not empty, and no sweep"):
        through(sweep(data), tmp_path / "full")


@pytest.mark.slow
def test_kid_ranks_too_and_a_tuned_sampler_outlives_training(data: DataSet, tmp_path: Path) -> None:
    from sfumato.evaluation.features.seen import Features

    class Pixels:
        name, sha256, resize, width = "pixels", "0" * 64, "none", 64

        def __call__(self, images: torch.Tensor) -> Features:
            return Features(images.flatten(1).float())

    axes = read_axes(["lr=3e-3", "batch=8", "averages=0"])
    one = sweep(data, axes=axes, by="kid", pictures=50, length={"steps": 3})
    done = [event for event in run_sweep(one, tmp_path / "sweep", Pixels()) if isinstance(event, Done)]
    record = done[0].result.kid
    assert record is not None
    assert (record.terms.extractor, record.terms.real, record.terms.generated) == (
        "pixels",
        len(data.train),
        50,
    )
    run = tmp_path / "sweep" / "trials" / "001"
    set_sampler(run, SamplerSettings(name="ddim-late", steps=7, eta=0.5))
    longer = TrainSettings.from_json({**one.settings[0].train.to_json(), "steps": 4})
    for _ in train_run(data, RunSettings(**{**vars(one.settings[0]), "train": longer}), run):
        pass
    card = read_card(run / "sfumato.json")
    assert (card.training.steps, card.sampler.name, card.sampler.eta) == (4, "ddim-late", 0.5)


# the loss


@pytest.mark.parametrize("schedule", [Cosine(), Table.linear()], ids=["curve", "table"])
def test_the_common_loss_is_that_of_the_law_on_every_curve(schedule: Any) -> None:
    """Of N(0, s^2) the best possible is known: E|eps - eps^|^2 = alpha^2 s^2 / (alpha^2 s^2 + sigma^2)."""
    std = 0.5
    model = Model(exact.Knows(exact.gaussian(std)), schedule, V(), LogSigma())
    x0 = std * uniform_normals(200)
    found = eps_losses(model, x0, {}, 50)
    level = at(LOG_SNRS)
    best = (level.alpha * std) ** 2 / ((level.alpha * std) ** 2 + level.sigma**2)
    assert float(found.mean()) == pytest.approx(float(best.mean()), abs=4 * float(found.std()) / 200**0.5)
    assert torch.allclose(eps_losses(model, x0[:7], {}, 2), found[:7])


def uniform_normals(n: int) -> torch.Tensor:
    from sfumato.noise import Noise

    return Noise(tuple(range(n))).normal((1, 8, 8), "pictures")


# what is tried


def test_axes_are_options_of_train_in_their_kinds() -> None:
    assert read_axis("lr=1e-4,3e-4,1e-4") == Axis("lr", (1e-4, 3e-4))
    assert read_axis("width=tiny,small") == Axis("model", ("tiny", "small"))
    assert read_axis("--weight-decay=0,0.1") == Axis("weight_decay", (0.0, 0.1))
    assert read_axis("flip=true,no") == Axis("flip", (True, False))
    assert options({"lr": 1e-9, "model": "tiny", "flip": True, "learned_variance": False}) == [
        "--lr", "1e-09", "--model", "tiny", "--flip",
    ]  # fmt: skip


def test_every_option_that_can_be_tried_is_one_of_train() -> None:
    import typer

    from sfumato.cli import app
    from sfumato.tuning.space import option

    command: Any = typer.main.get_command(app)
    known = {name for parameter in command.commands["train"].params for name in parameter.opts}
    assert {option(name) for name in {**TRAIN, **RUN}} <= known


def test_combinations_are_all_once_or_so_many_drawn() -> None:
    axes = (Axis("lr", (1e-4, 1e-3, 1e-2)), Axis("dropout", (0.0, 0.1)), Axis("model", ("tiny", "small")))
    every = combinations(axes, None, 0)
    assert len(every) == len({tuple(one.values()) for one in every}) == 12
    assert combinations(axes, 5, 0) == every[:5]
    assert combinations(axes, 12, 1) != every
    with pytest.raises(SettingsError, match="--trials 0"):
        combinations(axes, 0, 0)


def test_the_usual_axes_hold_what_train_would_do(data: DataSet) -> None:
    from sfumato.training.recipes import pixels

    usual = pixels(data, train={"steps": 1})
    axes = {axis.name: axis.values for axis in usual_axes(data, "cpu")}
    assert set(axes) == {"lr", "model", "schedule", "dropout"}
    assert pytest.approx(usual.train.lr, rel=0.05) in axes["lr"]
    assert usual.model in axes["model"]
    assert usual.schedule in axes["schedule"]
    assert usual.dropout in axes["dropout"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--try", "lrr=1"], "did you mean lr"),
        (["--try", "lr"], "say it as NAME=VALUE"),
        (["--try", "lr=abc"], "'abc' is not a number"),
        (["--try", "batch=2.5"], "is not a whole number"),
        (["--try", "lr=1", "--try", "lr=2"], "says lr twice"),
        (["--try", "lr=-1"], "the trial lr -1 cannot be: a learning rate needs a peak above 0"),
        (["--try", "model=huge"], "the trial model huge cannot be: --model is one of tiny"),
        (["--metric", "fid"], "--metric is loss or kid"),
        (["--metric", "kid", "-n", "0"], "makes no pictures to rank by KID"),
        (["--features", "lite0"], "leave --features or the -n out"),
        (["--hold-out", "0"], "too few to rank by their loss"),
        (["--minutes", "1", "--steps", "2"], "the length of a run is one of"),
    ],
)
def test_mistakes_are_told_before_any_training(
    arguments: list[str], sentence: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["sweep", str(source), "--out", str(tmp_path / "out"), "--device", "cpu", "-n", "0", *arguments]
    assert cli.run(said) == 1
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out" / "trials").exists()


def result(number: int, losses: list[float], failed: str | None = None) -> Result:
    return Result(number=number, said={}, losses=tuple(losses), failed=failed)


def test_the_ranking_is_paired() -> None:
    spread = [0.0, 1.0, 2.0, 3.0]
    first, near, far = (
        result(n, [value + more for value in spread]) for n, more in ((1, 0.0), (2, 0.01), (3, 0.5))
    )
    gone = result(4, [], "not finite")
    places = ranked([gone, far, near, first], "loss")
    assert [place.result.number for place in places] == [1, 2, 3, 4]
    found = behind(near, first, "loss")
    assert found is not None
    assert found == pytest.approx((0.01, 0.01, 0.01))  # the spread over pictures is common to both
    assert not places[1].level
    noisy = result(5, [0.1, 0.9, 2.1, 2.95])
    assert ranked([first, noisy], "loss")[1].level
