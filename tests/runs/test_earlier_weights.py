"""A run's earlier checkpoints, as weights to sample with and to be guided away from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from corpora import small
from sfumato import cli
from sfumato.assembled import build
from sfumato.errors import SettingsError
from sfumato.files import Checkpoints
from sfumato.provenance import read_origin
from sfumato.runs import load, save


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints, whose averages are two other models of its card."""
    folder = tmp_path_factory.mktemp("earlier") / "run"
    card = small.card()
    save(folder, build(card, 1), card)
    checkpoints = Checkpoints(folder / "checkpoints")
    for step in (100, 200):
        named = {name: t.detach().clone() for name, t in build(card, step).named_parameters()}
        checkpoints.save(step, {"ema": named}, {})
    return folder


def test_the_average_of_a_kept_step_is_opened(run: Path) -> None:
    of = build(small.card(), 100).weights()
    found = load(run, "cpu", "step:100").model.weights()
    assert found.keys() == of.keys()
    assert all(torch.equal(found[name], of[name]) for name in of)


def test_a_step_that_is_not_kept_names_those_that_are(run: Path, tmp_path: Path) -> None:
    for said in ("step:300", "step:x"):
        with pytest.raises(SettingsError, match="choose step:100, step:200"):
            load(run, "cpu", said)
    card = small.card()
    save(tmp_path / "bare", build(card, 1), card)
    with pytest.raises(SettingsError, match="keeps no checkpoints"):
        load(tmp_path / "bare", "cpu", "step:1")


def test_a_run_is_guided_away_from_what_it_was(run: Path, tmp_path: Path) -> None:
    """The same as by that checkpoint saved as a run of its own, and made again with the same weights."""
    out, weak = tmp_path / "x.png", tmp_path / "weak"
    save(weak, build(small.card(), 100), small.card())
    how = {"steps": 2, "autoguide_scale": 1.5}
    found = load(run, "cpu").sample(1, **how, autoguide=run, autoguide_weights="step:100")
    assert torch.equal(found, load(run, "cpu").sample(1, **how, autoguide=weak))
    words = ["sample", str(run), "-n", "1", "--steps", "2", "--autoguide", str(run)]
    assert cli.run([*words, "--autoguide-weights", "step:100", "--out", str(out)]) == 0
    said = read_origin(out).weaker
    assert said is not None
    assert said.weights == "step:100"
    assert cli.run(["replay", str(out)]) == 0
