"""Metrics during training: what the log says is what the folder's own samples have, and the command tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from sfumato.cli.train import train
from sfumato.data.prepare import prepare
from sfumato.errors import SettingsError
from sfumato.evaluation.during import judging
from sfumato.evaluation.features.extractor import open_extractor
from sfumato.evaluation.kernel import kid
from sfumato.evaluation.sets import of_dataset, of_tensor
from sfumato.files import read_json
from sfumato.noise import permutation
from sfumato.runs import load
from sfumato.training.logs import LOG, read_log
from sfumato.training.recipes import pixels
from sfumato.training.run import train_run

pytestmark = pytest.mark.slow

APP = typer.Typer()
APP.command()(train)
SAMPLES = 50


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 small grey pictures in two classes."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(70):
        folder = root / ("cats" if i % 2 else "dogs")
        folder.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 120 + 100 * (i % 2), (8, 8)).astype(np.uint8)).save(
            folder / f"{i}.png"
        )
    return root


def call(pictures: Path, out: Path, *more: str) -> Any:
    said = ["--size", "8", "--model", "tiny", "--batch", "8", "--steps", "3", "--validate", "3"]
    where = ["--device", "cpu", "--cache", str(out.parent / "cache"), "--sample-share", "0"]
    return CliRunner().invoke(APP, [str(pictures), "--out", str(out), *said, *where, *more])


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("runs") / "mine"
    result = call(pictures, out, "--metrics", "kid,is", "--metrics", "fid", "--metric-samples", str(SAMPLES))
    assert result.exit_code == 0, result.output
    return out, result.output


def test_the_cost_is_said_first_and_the_figures_then(run: tuple[Path, str]) -> None:
    out, said = run
    cost = "metrics kid, is, fid every 4,000 images: 50 samples of 20 steps cost about as much as training on"
    assert f"{cost} 333 images (8%), and then lite0 looks at each" in said
    assert said.index(cost) < said.index("step 3  kid")
    last = read_log(out / LOG)[-1]
    assert last["step"] == 3
    assert {name for name in last if name.startswith("metrics/")} == {
        "metrics/kid",
        "metrics/is",
        "metrics/fid",
    }
    settings = read_json(out / "settings.json")
    assert isinstance(settings, dict)
    assert (settings["metrics"], settings["extractor"], settings["metric_samples"]) == (
        ["kid", "is", "fid"],
        "lite0",
        SAMPLES,
    )


def test_the_figure_is_that_of_the_folders_own_samples(run: tuple[Path, str], pictures: Path) -> None:
    """By another way: the folder is opened, sampled by its users' door, and measured."""
    out, _ = run
    data = prepare(pictures, size=8, cache=out.parent / "cache", multiple=4)
    rows = data.train[permutation(len(data.train), 0, "metrics")[:SAMPLES].numpy()]
    opened, extractor = load(out, "cpu"), open_extractor("lite0")
    classes = data.take(rows).classes
    assert classes is not None
    drawn = of_tensor(opened.sample(classes=classes.tolist(), seed=0), "again")
    seen = [
        torch.cat([extractor(x).pooled for x in some.batches(25)]) for some in (of_dataset(data, rows), drawn)
    ]
    assert read_log(out / LOG)[-1]["metrics/kid"] == pytest.approx(kid(*seen).value, rel=1e-3)


def test_a_run_without_them_takes_the_same_steps(
    run: tuple[Path, str], pictures: Path, tmp_path: Path
) -> None:
    assert call(pictures, tmp_path / "plain").exit_code == 0
    figures = [
        [(entry["loss"], entry["grad_norm"], entry.get("held_out/loss")) for entry in read_log(out / LOG)]
        for out in (run[0], tmp_path / "plain")
    ]
    assert figures[0] == figures[1]
    weights = [dict(load(out, "cpu").model.named_parameters()) for out in (run[0], tmp_path / "plain")]
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--metrics", "kids"], "no metric 'kids': choose from kid, fid"),
        (["--metrics", "kid", "--metric-samples", "10"], "kid needs at least 50 generated pictures"),
        (["--metrics", "clip-score"], "clip-score is not to be had on the way by lite0"),
        (["--metrics", "sfid", "--metric-samples", "50"], "sfid is not to be had on the way by lite0"),
        (["--metrics", "kid", "--features", "lite9"], "choose one of lite0"),
        (["--metrics", "kid", "--best-by", "fid"], "--best-by is one of loss, kid, not 'fid'"),
        (["--best-by", "kid"], "--best-by kid needs --metrics-every"),
        (["--metrics-every", "100"], "--metrics says what is looked at"),
        (["--features", "inception"], "--features and --metric-samples are of --metrics"),
        (["--features-weights", "x.pth"], "--features-weights is of --metrics"),
    ],
)
def test_mistakes_are_one_sentence(pictures: Path, tmp_path: Path, options: list[str], words: str) -> None:
    result = call(pictures, tmp_path / "run", *options)
    assert isinstance(result.exception, SettingsError), result.output
    assert words in str(result.exception)
    assert "\n" not in str(result.exception)


def test_in_python_a_judge_is_given(pictures: Path, tmp_path: Path) -> None:
    """And a run whose best is chosen by a metric ends as its best self, here its first of two looks."""
    data = prepare(pictures, size=8, cache=tmp_path / "cache")
    train = {"steps": 2, "batch": 8, "metrics_every": 8, "best_by": "recall", "validate": 0}
    settings = pixels(data, model="tiny", train=train, metrics=("recall",), metric_samples=SAMPLES)
    with pytest.raises(SettingsError, match="give train_run judging="):
        list(train_run(data, settings, tmp_path / "run"))
    steps = list(train_run(data, settings, tmp_path / "run", judging=judging(), sample_share=0.0))
    assert [len(step.figures) for step in steps] == [1, 1]
    best = max(range(2), key=lambda i: (steps[i].figures["recall"], -i)) + 1
    assert load(tmp_path / "run", "cpu").card.training.steps == best
    told = f"the folder holds the weights of step {best}, the best look"
    assert (told in steps[-1].notices) == (best == 1)
    assert (told in read_log(tmp_path / "run" / LOG)[-1].get("notices", ())) == (best == 1)
