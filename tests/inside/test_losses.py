"""Losses per level where they are known: the network is the ideal denoiser itself, or a constant."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from corpora.known import CURVE, knowing
from sfumato.data.dataset import DataSet
from sfumato.data.prepare import prepare
from sfumato.errors import SettingsError
from sfumato.files import Checkpoints
from sfumato.inside.ideal import Ideal
from sfumato.inside.loss_figure import loss_figure
from sfumato.inside.losses import Losses, Side, as_trained, levels_across, losses, trained_where
from sfumato.inside.overfit import memorised, overfit, reading
from sfumato.runs import Run
from sfumato.tables import Table
from sfumato.training.adaptive import Adaptive
from sfumato.training.levels import Stratified, Uniform


@pytest.fixture(scope="module")
def by_heart(run: Run, data: DataSet) -> Losses:
    """The losses of a network that is the ideal denoiser of its training pictures."""
    return losses(knowing(run, Ideal.of_training(data)), data, levels=9)


def _same(found: Side) -> None:
    torch.testing.assert_close(found.network, found.ideal, rtol=2e-3, atol=1e-5)


def test_a_network_that_knows_by_heart_is_at_the_bound(by_heart: Losses) -> None:
    assert by_heart.held is not None
    _same(by_heart.train)
    _same(by_heart.held)
    assert float(by_heart.train.mean[0]) < 1e-6  # hardly any noise: the picture is found again
    assert float(by_heart.held.mean[0]) > 100  # and a held-out one never


def test_it_is_told_to_have_learnt_by_heart(by_heart: Losses) -> None:
    share, error = memorised(by_heart) or (0.0, 0.0)
    assert share == pytest.approx(1, abs=1e-3)
    assert error < 1e-3
    ratio, spread = overfit(by_heart) or (0.0, 0.0)
    assert ratio > 1 + 10 * spread
    told = " ".join(reading(by_heart))
    assert "an overfit" in told
    assert "it has gone 1.00 ± 0.00" in told
    assert "within 10% of the least" in told
    assert "better than it on held-out" not in told


def test_told_by_class_the_bound_is_of_the_class(run: Run, pets: Run, data: DataSet) -> None:
    found = losses(knowing(pets, Ideal.of_training(data)), data, levels=5)
    assert found.held is not None
    _same(found.train)
    _same(found.held)
    untold = losses(knowing(run, Ideal.of_training(data)), data, levels=5)
    assert float(found.train.ideal.mean()) < float(untold.train.ideal.mean())


def test_with_flips_the_bound_is_of_both_sides(run: Run, data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"flip": True}))
    known = knowing(replace(run, path=tmp_path), Ideal.of_training(data, mirrored=True))
    found = losses(known, data, levels=5)
    _same(found.train)


def test_a_constant_has_the_loss_of_a_constant(run: Run, data: DataSet) -> None:
    """|dv|^2 = |0.3 - x0|^2 / sigma^2, without noise; held-out and training pictures are alike to it."""
    found = losses(knowing(run, lambda x, level: 0.0 * x + 0.3), data, levels=7)
    for side, rows in ((found.train, data.train), (found.held, data.held)):
        assert side is not None
        away = (data.images(rows).double() - 0.3).square().flatten(1).mean(1).sort().values
        expected = away[:, None] / found.level.sigma**2
        torch.testing.assert_close(side.network.sort(0).values, expected, rtol=1e-4, atol=0)
        assert side.mean.tolist() == pytest.approx(side.network.mean(0).tolist())
    share, error = memorised(found) or (9.0, 0.0)
    assert abs(share) < 4 * error
    assert "no overfit" in " ".join(reading(found))
    assert bool((found.train.mean > found.train.ideal.mean(0)).all())


def test_the_standard_errors_are_those_of_repetition(data: DataSet) -> None:
    """The quotients' errors, to first order, against 4,000 resamplings of the pictures."""
    level = CURVE.level(torch.tensor([0.2, 0.8], dtype=torch.float64))
    draw = torch.Generator().manual_seed(1)
    made = lambda n, mean: mean + 0.3 * torch.randn(n, 2, generator=draw, dtype=torch.float64)
    train, held = Side(made(80, 1.0), made(80, 0.4)), Side(made(60, 1.3), made(60, 3.0))
    whole = Losses(level, train, held, 80, True)
    shares, ratios = [], []
    for _ in range(4000):
        i, j = (torch.randint(0, n, (n,), generator=draw) for n in (80, 60))
        again = Losses(
            level, Side(train.network[i], train.ideal[i]), Side(held.network[j], held.ideal[j]), 80, True
        )
        shares.append((memorised(again) or (0, 0))[0])
        ratios.append((overfit(again) or (0, 0))[0])
    for found, many in ((memorised(whole), shares), (overfit(whole), ratios)):
        assert found is not None
        assert found[1] == pytest.approx(float(np.std(many)), rel=0.1)


def test_the_split_of_the_training_is_found_again(run: Run, data: DataSet, pictures: Path) -> None:
    other = prepare(pictures, hold_out=0.05)
    assert len(other.held) < len(data.held)
    found, same = as_trained(run, other)
    assert same
    assert found.train.tolist() == data.train.tolist()
    assert found.held.tolist() == data.held.tolist()
    stranger = replace(other, fingerprint="another")
    assert as_trained(run, stranger) == (stranger, False)
    told = reading(losses(knowing(run, lambda x, level: 0 * x), stranger, levels=2))
    assert told[0].startswith("The run was not trained on these very pictures")


def test_levels_are_even_in_log_snr() -> None:
    found = levels_across(CURVE, Uniform(), 11).log_snr
    torch.testing.assert_close(found.diff(), (found[-1] - found[0]).expand(10) / 10)
    ends = CURVE.level(torch.tensor([0.002, 0.998], dtype=torch.float64)).log_snr
    torch.testing.assert_close(found[[0, -1]], ends, rtol=0.02, atol=0.1)
    table = Table.linear(20)
    steps = table.time(levels_across(table, Stratified(), 50)) * 20
    torch.testing.assert_close(steps, steps.round())
    assert bool((steps.diff() > 0).all())


def test_what_settings_say_of_levels(run: Run, tmp_path: Path) -> None:
    said = {"train": {"steps": 1, "seed": 7, "levels": "uniform"}}
    (tmp_path / "settings.json").write_text(json.dumps(said))
    assert trained_where(replace(run, path=tmp_path)) == (Uniform(), 7)
    assert trained_where(run) == (Uniform(), 0)


def test_levels_that_learned_where_to_look_are_restored(run: Run, tmp_path: Path) -> None:
    """Time is cut into 100 bins; one with losses of 3 is drawn three times as often as one of 1."""
    (tmp_path / "settings.json").write_text(json.dumps({"train": {"steps": 1, "levels": "fitted"}}))
    known = replace(run, path=tmp_path)
    early, _ = trained_where(known)
    assert isinstance(early, Adaptive)
    for place in range(100):
        for _ in range(10):
            early.memory.add(place, 3.0 if place < 50 else 1.0)
    Checkpoints(tmp_path / "checkpoints").save(1, {early.name: early.tensors()}, {})
    where, seed = trained_where(known)
    t = CURVE.time(where(CURVE, range(4000), seed))
    assert float((t < 0.5).double().mean()) == pytest.approx(3 / 4, abs=0.003)
    even = levels_across(CURVE, Stratified(), 5).log_snr
    found = losses(knowing(known, lambda x, level: 0 * x), _small(tmp_path), levels=5, pictures=2)
    torch.testing.assert_close(found.level.log_snr, even, rtol=0.02, atol=0.1)


def _small(folder: Path) -> DataSet:
    np.savez(folder / "x.npz", images=np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8))
    return prepare(folder / "x.npz")


def test_json_and_figure(by_heart: Losses) -> None:
    told = json.loads(json.dumps(by_heart.to_json()))
    assert told["train"]["v_loss"] == by_heart.train.mean.tolist()
    assert told["points"] == len(by_heart.train.network)
    sums = np.add(told["x0_factor"], told["eps_factor"])
    assert sums == pytest.approx(np.ones(9))
    snr = np.divide(told["eps_factor"], told["x0_factor"])
    assert np.log(snr) == pytest.approx(told["log_snr"])
    above, below = loss_figure(by_heart).axes
    drawn = {str(line.get_label()): line.get_xydata() for line in above.lines}
    assert drawn["the network, held-out pictures"][:, 1] == pytest.approx(told["held_out"]["v_loss"])
    train, held = (np.array(told[side]["v_loss"]) for side in ("train", "held_out"))
    seen = train > 0
    assert below.lines[-1].get_ydata()[seen] == pytest.approx(held[seen] / train[seen])


def test_without_held_out_pictures(run: Run, pictures: Path) -> None:
    every = replace(prepare(pictures, hold_out=0), fingerprint="another")
    found = losses(knowing(run, lambda x, level: 0 * x), every, levels=3)
    assert found.held is None
    assert len(found.train.network) == 60
    assert "No overfit can be told" in " ".join(reading(found))
    assert len(loss_figure(found).axes) == 1


def test_other_pictures_are_refused(run: Run, pets: Run, data: DataSet, pictures: Path) -> None:
    with pytest.raises(SettingsError, match=r"pictures of shape \(1, 4, 4\) for a run of \(1, 8, 8\)"):
        losses(run, prepare(pictures, size=4))
    with pytest.raises(SettingsError, match="its classes are not those"):
        losses(pets, replace(data, label_names=("a", "b", "c")))
    with pytest.raises(SettingsError, match="at least 2 and 1"):
        losses(run, data, levels=1)
