"""The tuner finds the sampler that is known to be the best, says by how much, and its choice is lived by."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mathematics.oracles import flow_map
from sfumato import cli, plans
from sfumato.card import SamplerSettings, read_card
from sfumato.data.prepare import prepare
from sfumato.errors import RunError, SettingsError
from sfumato.evaluation.features.seen import Features
from sfumato.folders.default_sampler import set_sampler
from sfumato.level import Level
from sfumato.noise import Noise
from sfumato.provenance import read_origin
from sfumato.runs import Run, load
from sfumato.samplers import Sampler
from sfumato.sampling import prior
from sfumato.solvers.fresh import Ancestral
from sfumato.solvers.multistep import Multistep
from sfumato.tables import Table
from sfumato.tuning.asked import Asked, of_data, wishes_of
from sfumato.tuning.candidates import (
    Candidate,
    affordable,
    evaluations,
    steps_for,
    with_noise,
    without_noise,
)
from sfumato.tuning.halving import halve, rounds
from sfumato.tuning.kept import RECORD, keep, read_history, restore
from sfumato.tuning.sampler import Question, present, tune
from sfumato.tuning.verdict import Tuning
from tuning import exact

FEW = tuple(
    Candidate(f"{base}{grid}")
    for base in ("ddim", "vab", "dpmpp-2m", "v-ab2", "deis", "unipc", "heun")
    for grid in ("", "-trailing", "-late-to-least")
)
DDIM = SamplerSettings(name="ddim", steps=12, guidance=1.0)


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Tuning]:
    """Unit Gaussian data: there v is 0 everywhere, so solvers that average v are exact in any steps but for
    the last move, which turns by the angle of the least noise."""
    run = exact.run(tmp_path_factory.mktemp("unit") / "run", exact.gaussian(), DDIM)
    return run, tune(Question(run, 6, pictures=9, fine=30, counts=(3, 6), candidates=FEW))


def test_the_solver_that_is_exact_on_this_law_wins(unit: tuple[Run, Tuning]) -> None:
    _, found = unit
    best, now = found.verdict.winner, found.verdict.present
    assert best is not None
    assert now is not None
    how = best.candidate.how()
    assert how is not None
    assert isinstance(how.solver, Multistep)
    assert how.solver.of == "v"
    assert best.figure.value < 1e-3
    assert now.candidate == Candidate("ddim")
    assert now.steps == 6
    assert now.figure.low > 50 * best.figure.high
    assert found.better
    gain = found.verdict.gain
    assert gain is not None
    assert gain.value == pytest.approx(best.figure.value - now.figure.value)
    assert [line.evaluations for line in found.rows] == [3, 6, 12]  # and what the default takes
    assert "is better than ddim" in found.sentence()


@pytest.mark.slow
def test_the_winner_of_a_mixture_is_nearly_the_best_by_the_true_distance(tmp_path: Path) -> None:
    """Truth: Runge-Kutta on the flow itself, from other seeds than the race's; every candidate is tried."""
    law, budget = exact.mixture(), 8
    run = exact.run(tmp_path / "run", law, DDIM)
    found = tune(Question(run, budget, pictures=36, fine=60, counts=(budget,), candidates=FEW))
    asked, rows = Asked(run, seed=1000), range(24)
    started = Level.of(1e-3, (1 - 1e-6) ** 0.5)  # where nothing is decided yet: pure noise has no sigma/alpha
    x = prior(started, (exact.SIZE,), Noise(tuple(1000 + i for i in rows))).double()
    truth = flow_map(law, x, started, Level.of(1.0, 1e-4), 400).clamp(-1, 1)

    def off(candidate: Candidate) -> float:
        steps = affordable(run, candidate, budget)
        made = None if steps is None else asked.pictures(candidate, steps, rows)
        if made is None:
            return float("inf")
        return float((made.reshape(24, -1).double() - truth).square().mean().sqrt())

    best = found.verdict.winner
    assert best is not None
    true = {one: off(one) for one, _, _ in found.finalists} | {Candidate("ddim"): off(Candidate("ddim"))}
    assert found.better == (true[best.candidate] < true[Candidate("ddim")])
    assert true[best.candidate] < 1.3 * min(true.values())
    assert true[best.candidate] < 0.5 * true[Candidate("ddim")]


def test_no_change_where_the_default_is_as_good(tmp_path: Path) -> None:
    run = exact.run(tmp_path / "run", exact.gaussian(), SamplerSettings(name="vab", steps=6))
    found = tune(
        Question(run, 6, pictures=8, fine=30, counts=(6,), candidates=(Candidate("vab"), Candidate("ddim")))
    )
    assert not found.better
    assert found.sentence().startswith("no change")


class Pixels:
    """Eyes that see the numbers themselves, eight times as large: KID then knows how wide they are."""

    name, sha256, resize, width = "pixels", "0" * 64, "none", exact.SIZE

    def __call__(self, images: Tensor) -> Features:
        return Features(8 * images.flatten(1).float())


@pytest.mark.slow
def test_by_likeness_samplers_with_noise_race_too(tmp_path: Path) -> None:
    """The law is the fine solution's, so fine pictures of other seeds are at no distance from it."""
    run = exact.run(tmp_path / "run", exact.gaussian(0.4), DDIM)
    some = (Candidate("ddim"), Candidate("vab"), Candidate("dpmpp-2m"))
    found = tune(
        Question(run, 4, "kid", extractor=Pixels(), pictures=64, fine=24, counts=(4,), candidates=some)
    )
    best, now, gain = found.verdict.winner, found.verdict.present, found.verdict.gain
    assert best is not None
    assert now is not None
    assert (found.unit, found.by_law) == ("KID-pixels", True)
    assert found.tried > 10
    assert found.fine.figure.low <= 0 <= found.fine.figure.high
    assert now.figure.low > 0  # four steps of ddim are too narrow
    assert gain is not None
    assert gain.value < 0
    assert "not finite" not in " ".join(found.lines())


def test_real_pictures_are_told_as_they_are_known(tmp_path: Path) -> None:
    from corpora import small

    images = (np.arange(12)[:, None, None] * np.ones((12, 8, 8)) * 20).astype(np.uint8)
    labels = {"labels": np.arange(12) % 3, "label_names": np.array(small.CLASSES)}
    np.savez(tmp_path / "pets.npz", images=images, **labels)
    data = prepare(tmp_path / "pets.npz", cache=tmp_path / "cache")
    run = small.make(tmp_path / "run", small.card(classes=small.CLASSES))
    pictures, wishes = of_data(run, data, 8, seed=1)
    assert pictures.shape == (8, 1, 8, 8)
    of = ((pictures[:, 0, 0, 0] + 1) * 127.5 / 20).round().long()
    assert [wish.label for wish in wishes] == (of % 3).tolist()
    assert len({*of.tolist()}) == 8
    plain = small.make(tmp_path / "other", small.card(classes=("a", "b")))
    with pytest.raises(SettingsError, match="its classes are not those"):
        of_data(plain, data, 8, seed=1)


# equal numbers of evaluations


@pytest.mark.parametrize(
    "name", ["vab", "heun-log-snr", "dpmpp-2s", "dpm-fast", "pndm", "dpm-solver-3-trailing"]
)
def test_the_budget_is_of_evaluations(name: str) -> None:
    how, table = Candidate(name).how(), Table.linear()
    assert how is not None
    found = [(most, steps_for(how, table, most)) for most in (10, 17, 25)]
    assert any(steps is not None for _, steps in found)
    for most, steps in found:
        if steps is not None:
            assert most - 2 <= evaluations(how, table, steps) <= most
            assert evaluations(how, table, steps + 1) > most


def test_several_looks_a_step_are_fewer_steps() -> None:
    how, twice = Candidate("vab").how(), Candidate("flow-midpoint").how()
    assert how is not None
    assert twice is not None
    assert steps_for(how, Table.cosine(), 10) == 10
    assert steps_for(twice, Table.cosine(), 10) in (5, 6)


def test_candidates_are_each_sampler_once_and_none_goes_up_again() -> None:
    flowing, noisy = without_noise(), with_noise([Candidate("vab-late")], learned_variance=False)
    for some in (flowing, noisy):
        samplers = [one.how() for one in some]
        assert len(set(samplers)) == len(samplers)
        assert not any(how is None or how.route in (plans.churn, plans.annealed) for how in samplers)
    assert Candidate("vab") in flowing
    assert Candidate("vab-late-to-least") in flowing
    assert Candidate("ddim-karras") not in flowing or Candidate("euler") not in flowing
    assert Candidate("vab-late", 0.5) in noisy
    assert Candidate("ddpm") in noisy
    assert Candidate("ddpm-learned") not in noisy
    assert Candidate("dpm-adaptive").how() is None


def test_halving_looks_at_each_picture_once_and_keeps_the_best() -> None:
    looked: list[tuple[int, int]] = []

    def look(one: int, rows: range) -> Tensor:
        looked.extend((one, row) for row in rows)
        return torch.tensor([one + 0.1 * (row % 2) if one else float("inf") for row in rows])

    kept = halve(range(10), look, lambda seen: float(seen.mean()), rounds(2, 18))
    assert rounds(2, 18) == [2, 6, 18]
    assert next(iter(kept)) == 1
    assert len(set(looked)) == len(looked)
    assert len([row for one, row in looked if one == 1]) == 18
    assert len(kept[1].seen) == 18
    assert not any(row > 1 for one, row in looked if one == 0)  # infinite: out at once


# the default, afterwards


@pytest.mark.slow
def test_the_winner_becomes_the_default_and_the_old_one_comes_back(
    unit: tuple[Run, Tuning], capsys: pytest.CaptureFixture[str]
) -> None:
    run, found = unit
    best = found.verdict.winner
    assert best is not None
    files = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    keep(run, found, guidance=None)
    own = read_card(run.path / "sfumato.json").sampler
    assert own == SamplerSettings(name=best.candidate.name, steps=best.steps)
    changed = {path for path, was in files.items() if path.read_bytes() != was}
    assert changed == {run.path / "sfumato.json"}
    (entry,) = read_history(run.path).tunings
    assert (entry.before, entry.after) == (DDIM, own)
    assert json.loads((run.path / RECORD).read_text())["tunings"][0]["found"]["better"]
    out = run.path / "new.png"
    assert cli.run(["sample", str(run.path), "-n", "2", "--out", str(out), "--device", "cpu"]) == 0
    made = read_origin(out)
    assert (made.sampler, made.steps) == (own.name, own.steps)
    assert cli.run(["tune-sampler", str(run.path), "--restore"]) == 0
    assert "ddim, 12 steps" in capsys.readouterr().out
    assert read_card(run.path / "sfumato.json").sampler == DDIM
    assert cli.run(["replay", str(out), "--device", "cpu"]) == 0  # the picture's own recipe, not the default
    assert "identical" in capsys.readouterr().out
    with pytest.raises(SettingsError, match="no tuning to take back"):
        restore(run.path)


@pytest.mark.parametrize(
    ("said", "means"),
    [
        (
            SamplerSettings(name="ddim-late-to-least", steps=4, eta=0.5),
            Sampler(Multistep(order=1), Ancestral(0.5), plans.ToLeast(plans.late)),
        ),
        (
            SamplerSettings(name="vab-fast", steps=4),
            Sampler(Multistep("v", "bounded", 3), grid=plans.fast),
        ),
    ],
)
def test_every_candidate_survives_being_stored(
    said: SamplerSettings, means: Sampler, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = exact.run(tmp_path / "run", exact.gaussian(), DDIM).path
    set_sampler(path, said)
    run = load(path, "cpu")
    assert run.card.sampler == said
    recipe = run.recipe(2)
    assert recipe.how() == means
    assert (recipe.steps, recipe.eta) == (said.steps, said.eta)
    assert run.recipe(2, sampler="ddim").eta is None  # the default's eta is the default's alone
    out = tmp_path / "new.png"
    assert cli.run(["sample", str(path), "-n", "2", "--out", str(out), "--device", "cpu"]) == 0
    set_sampler(path, DDIM)
    assert cli.run(["replay", str(out), "--device", "cpu"]) == 0
    assert "identical" in capsys.readouterr().out


def test_a_card_without_eta_reads_as_it_did() -> None:
    assert SamplerSettings().model_dump(mode="json") == {"name": "vab", "steps": 20, "guidance": 1.0}
    assert SamplerSettings(eta=0.0).model_dump()["eta"] == 0.0


def test_a_run_that_is_in_use_keeps_its_default(tmp_path: Path) -> None:
    import os
    import platform

    from sfumato.files import lock

    path = exact.run(tmp_path / "run", exact.gaussian(), DDIM).path
    with lock(path), pytest.raises(RunError, match=f"in use by process {os.getpid()} on {platform.node()}"):
        set_sampler(path, SamplerSettings())
    assert read_card(path / "sfumato.json").sampler == DDIM


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--metric", "fid"], "--metric is error or kid"),
        (["--features", "inception"], "--features is of --metric kid"),
        (["--table", "5,x"], "--table is numbers of evaluations"),
        (["--steps", "0"], "--steps 0"),
        (["--steps", "100", "--fine", "150"], "--fine 150: give a whole number from 200"),
        (["-n", "3"], "-n 3"),
        (["--class", "cat"], "trained without classes"),
        (["--restore"], "no tuning to take back"),
        (["--out", "x.txt"], "is written as x.json"),
    ],
)
def test_mistakes_are_said_in_a_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = exact.run(tmp_path / "run", exact.gaussian(), DDIM).path
    assert cli.run(["tune-sampler", str(path), "--device", "cpu", *arguments]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_a_default_that_has_no_such_number_of_evaluations_has_a_stand_in(tmp_path: Path) -> None:
    run = exact.run(tmp_path / "run", exact.gaussian(), SamplerSettings(name="dpm-adaptive"))
    assert present(run, 5) == (Candidate("vab"), 5)


def test_wishes_are_each_class_with_each_prompt_in_turns(tmp_path: Path) -> None:
    from corpora import small

    run = small.make(tmp_path / "run", small.card(classes=small.CLASSES))
    assert [wish.label for wish in wishes_of(run)] == [0, 1, 2]
    assert [wish.label for wish in wishes_of(run, ["ox", "0"])] == [2, 0]
    recipe = Asked(run, wishes_of(run), guidance=2.0, seed=5).recipe(Candidate("ddim", 0.5), 3, range(2, 4))
    assert (recipe.classes, recipe.seeds, recipe.guidance) == ((2, 0), (7, 8), 2.0)
    assert (recipe.sampler, recipe.eta, recipe.steps) == ("ddim", 0.5, 3)
