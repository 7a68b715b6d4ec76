"""Training with conditions: what is told matters, missing values are hidden ones, resuming is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from corpora import told
from sfumato.data.dataset import DataSet
from sfumato.data.prepare import prepare
from sfumato.errors import RunError, SettingsError
from sfumato.files import Checkpoints
from sfumato.runs import Run, load
from sfumato.training.recipes import RunSettings, pixels
from sfumato.training.run import FolderRun, train_run
from sfumato.training.settings import Habits
from sfumato.training.told import Wanted, columns_left, text_wanted

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    root = tmp_path_factory.mktemp("bright")
    return prepare(told.bright(root / "pictures"), multiple=4, hold_out=0.1, cache=root / "cache")


def settings(data: DataSet, steps: int, **more: Any) -> RunSettings:
    train = {"steps": steps, "batch": 32, "ema": 0.98, "lr": 4e-3, "warmup": 10, "validate": 0, "patience": 0}
    return pixels(data, dropout=0.0, train=train | more.pop("train", {}), **more)


@pytest.fixture(scope="module")
def run(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Told a caption and a number, for some seconds."""
    out = tmp_path_factory.mktemp("run")
    said = settings(data, 300, attributes=["light"])
    assert said.text == "own"
    assert said.attributes == ("light:number",)
    for _ in train_run(data, said, out, habits=Habits("cpu", 0), sample_share=0.0):
        pass
    return load(out, "cpu")


def halves(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return pictures[..., :4].flatten(1).mean(1), pictures[..., 4:].flatten(1).mean(1)


@pytest.mark.slow
def test_what_is_told_is_drawn(run: Run) -> None:
    """The brightness follows the number and the dark side the caption, each told alone or both."""
    lights = [0.1] * 8 + [0.9] * 8
    made = run.sample(set=[{"light": light} for light in lights], steps=10)
    dim, bright = made[:8].flatten(1).mean(1), made[8:].flatten(1).mean(1)
    assert float(bright.mean() - dim.mean()) > 0.3  # 0.8 x 100/255 x 2 is 0.63
    left, right = halves(run.sample(16, prompt="dark on the left", steps=10))
    assert float((right - left).mean()) > 0.3  # 80/255 x 2 is 0.63
    left, right = halves(run.sample(16, prompt="dark on the right", set={"light": 0.5}, steps=10))
    assert float((left - right).mean()) > 0.3


@pytest.mark.slow
def test_guidance_strengthens_what_it_names(run: Run) -> None:
    """Of two conditions only the one with a scale of its own moves further."""
    asked: dict[str, Any] = {"prompt": "dark on the left", "set": {"light": 0.5}, "steps": 10, "clip": False}
    plain, more = (halves(run.sample(16, **asked, guidance=g)) for g in (1.0, {"text": 3.0}))
    assert float(((more[1] - more[0]) - (plain[1] - plain[0])).mean()) > 0.03


@pytest.mark.slow
def test_a_negative_prompt_moves_away(run: Run) -> None:
    left, right = halves(run.sample(16, negative="dark on the right", guidance=3, steps=10))
    assert float((right - left).mean()) > 0.3


def test_missing_values_are_the_hidden_ones(data: DataSet, tmp_path: Path) -> None:
    """A picture without a column or a caption is told exactly what one is told whose was hidden."""
    training = FolderRun(data, settings(data, 1, attributes=["light"]), tmp_path, habits=Habits("cpu", 0))
    lacking = [row for row in range(len(data.names)) if "light" not in data.columns[row]]
    assert len(lacking) > 3
    telling = training.told.telling
    cond = telling.told(data.take(lacking), 0)
    hidden = telling.conditions.hidden(cond, {"light": torch.ones(len(lacking), dtype=torch.bool)})
    assert torch.equal(cond["vector"], hidden["vector"])
    silent = [row for row in range(len(data.names)) if data.captions and not data.captions[row]]
    cond = telling.told(data.take(silent), 0)
    hidden = telling.conditions.hidden(cond, {"text": torch.ones(len(silent), dtype=torch.bool)})
    assert torch.equal(cond["tokens"], hidden["tokens"])
    assert training.told.conditions.names == ("light", "text")


def test_resuming_is_exact(data: DataSet, tmp_path: Path) -> None:
    """With a text encoder and attributes: the losses of a run that was cut are those of one that was not."""
    said = settings(data, 4, attributes=["light"], train={"batch": 8})

    def losses(out: Path, stop_after: int | None = None) -> list[str]:
        found: list[str] = []
        stop: Callable[[], bool] = lambda: stop_after is not None and len(found) >= stop_after
        habits = Habits("cpu", 0, save_every=1)
        for step in train_run(data, said, out, habits=habits, stop=stop, sample_share=0.0):
            found.append(step.loss.hex())
        return found

    whole = losses(tmp_path / "whole")
    assert losses(tmp_path / "cut", 2) + losses(tmp_path / "cut") == whole
    a, b = (load(tmp_path / name, "cpu") for name in ("whole", "cut"))
    mine, theirs = a.model.weights(), b.model.weights()
    assert any(name.startswith("text.") for name in mine)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    latest = Checkpoints(tmp_path / "cut" / "checkpoints").latest()
    assert latest is not None
    groups, _ = Checkpoints(tmp_path / "cut" / "checkpoints").load(latest)
    for group in ("weights", "ema", "power-0.05"):
        assert any(name.startswith("text.") for name in groups[group])
    raw = load(tmp_path / "cut", "cpu", weights="raw").model.weights()
    assert any(not torch.equal(raw[name], mine[name]) for name in mine if name.startswith("text."))


def test_a_changed_column_is_another_run(data: DataSet, tmp_path: Path) -> None:
    said = settings(data, 1, attributes=["light"])
    for _ in train_run(data, said, tmp_path, habits=Habits("cpu", 0), sample_share=0.0):
        pass
    other = replace(
        data, columns=tuple({**row, "light": "0.5"} if i == 3 else row for i, row in enumerate(data.columns))
    )
    with pytest.raises(RunError, match="the pictures"):
        list(train_run(other, said, tmp_path, habits=Habits("cpu", 0)))
    with pytest.raises(RunError, match="text"):
        list(train_run(data, replace(said, text="none"), tmp_path, habits=Habits("cpu", 0)))


def test_what_is_told_is_decided_from_the_data(data: DataSet) -> None:
    text, why = text_wanted("auto", data)
    assert text == "own"
    assert "have a caption" in str(why)
    few = replace(data, captions=tuple(texts if i < 5 else () for i, texts in enumerate(data.captions or ())))
    text, why = text_wanted("auto", few)
    assert text == "none"
    assert "--text own" in str(why)
    assert text_wanted("auto", replace(data, captions=None)) == ("none", None)
    assert "light (number)" in str(columns_left(data, []))
    assert columns_left(data, ["light:number"]) is None
    assert any("light (number)" in reason for reason in settings(data, 1).reasons)
    plain = settings(data, 1, text="none")
    assert plain.train.drop == 0
    assert settings(data, 1).train.drop == 0.1
    assert plain.differences({**plain.to_json()}) == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"attributes": ["lihgt"]}, "did you mean light"),
        ({"pooled": True}, "--text FOLDER"),
        ({"task": "sharpen"}, "--task is one of"),
        ({"task": "inpaint", "picture": "outline"}, "not both"),
    ],
)
def test_what_cannot_be_told_is_one_sentence(data: DataSet, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        settings(data, 1, **asked).card(data)
    bare = replace(data, captions=None)
    with pytest.raises(SettingsError, match="no captions"):
        settings(bare, 1, text="own").card(bare)


def test_a_task_shows_a_picture(data: DataSet, tmp_path: Path) -> None:
    """One model for two tasks: told which by a label, shown the hint, trained, sampled and opened again."""
    said = settings(data, 2, task="inpaint,edges", text="none", train={"batch": 8})
    for _ in train_run(data, said, tmp_path, habits=Habits("cpu", 0), sample_share=0.0):
        pass
    run = load(tmp_path, "cpu")
    assert run.card.picture is not None
    assert run.card.picture.task == "inpaint,edges"
    assert run.conditions.names == ("picture", "task")
    hint = torch.zeros(1, 2, 8, 8)
    hint[:, 1] = 1
    made = run.sample(2, picture=hint, set={"task": "edges"}, steps=2)
    assert made.shape == (2, 1, 8, 8)
    assert Wanted(task="inpaint").picture == ""
