"""Training with a judge of samples: no number changes; it chooses the best, ends a run and survives a cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from crew_member import Planted, make_data, make_model
from PIL import Image
from test_crew import run_two

from corpora.told import ABC
from sfumato.data.batches import Batches
from sfumato.data.dataset import DataSet
from sfumato.errors import RunError, SettingsError
from sfumato.files import Checkpoints, read_json
from sfumato.model import Model
from sfumato.plans import descend, trailing
from sfumato.sampling import sample
from sfumato.training.figures import write_loss
from sfumato.training.judge import Judge
from sfumato.training.logs import line, values
from sfumato.training.settings import Habits, TrainSettings
from sfumato.training.step import TrainStep
from sfumato.training.trainer import Training
from sfumato.training.validation import HeldOut
from sfumato.training.vault import Disk

SETTINGS = TrainSettings(
    steps=12, batch=6, lr=3e-3, warmup=2, validate=4, averages=1, metrics_every=12, best_by="mean"
)


@dataclass
class Drawn:
    """The mean and the spread of four pictures that the model draws. `stops_at`: of this look, after the
    first of two pairs, the run is asked to stop."""

    model: Model
    stops_at: int | None = None
    asked: bool = False
    looks: int = 0
    terms: str = "four pictures"
    rising: Mapping[str, bool] = field(default_factory=lambda: {"mean": False, "spread": True})

    def look(self) -> Mapping[str, float] | None:
        assert not self.model.training
        plan, told = descend(trailing(self.model.schedule, 3)), {"classes": torch.tensor([0, 1])}
        pairs: list[torch.Tensor] = []
        for seed in (0, 2):
            if self.asked:
                return None
            pairs.append(sample(self.model.given(**told), (1, 8, 8), plan, seeds=(seed, seed + 1)))
            self.asked = self.looks == self.stops_at
        self.looks += 1
        x = torch.cat(pairs)
        return {"mean": float(x.mean()), "spread": float(x.std())}

    def stop(self) -> bool:
        return self.asked


def begin(
    model: Model, data: DataSet, settings: TrainSettings, folder: Path, judge: Judge | None, **more: object
) -> Training:
    batch = data.held_out()
    return Training(
        model,
        Batches(data, 0),
        settings,
        telling=ABC,
        held=HeldOut(batch.images, ABC.told(batch, 0)),
        judge=judge,
        vault=Disk(Checkpoints(folder / "checkpoints"), settings, data.fingerprint),
        habits=Habits(workers=0, save_every=5),
        **more,  # pyright: ignore[reportArgumentType]
    )


def weights(training: Training) -> torch.Tensor:
    return torch.cat([training.state.weights.vector, training.state.average])


def test_a_judge_changes_no_number(model: Callable[..., Model], data: DataSet, tmp_path: Path) -> None:
    without = replace(SETTINGS, metrics_every=0, best_by="loss")
    plain = begin(model(), data, without, tmp_path / "plain", None)
    bare = list(plain.steps())
    judged_model = model()
    judged = begin(judged_model, data, SETTINGS, tmp_path / "judged", Drawn(judged_model))
    steps = list(judged.steps())
    assert [s.loss for s in steps] == [s.loss for s in bare]
    assert [s.validation for s in steps] == [s.validation for s in bare]
    assert torch.equal(weights(judged), weights(plain))
    assert [s.step for s in steps if s.figures] == [2, 4, 6, 8, 10, 12]


def test_looks_come_every_so_many_images_and_at_the_end(
    model: Callable[..., Model], data: DataSet, tmp_path: Path
) -> None:
    """16 images are 2 2/3 steps of 6: the look is at the first step past each 16."""
    planted = Planted([3.0] * 99)
    settings = replace(SETTINGS, steps=7, metrics_every=16, best_by="loss")
    steps = list(begin(model(), data, settings, tmp_path, planted).steps())
    assert [s.step for s in steps if s.figures] == [3, 6, 7]
    assert all(s.figures == {"kid": 3.0, "recall": -3.0} for s in steps if s.figures)
    assert values(steps[2])["metrics/kid"] == 3.0
    assert line(steps[2])["metrics/recall"] == -3.0
    assert "metrics/kid" not in line(steps[3])


@pytest.mark.parametrize("by", ["kid", "recall"])
def test_the_best_checkpoint_is_the_one_that_the_metric_chose(
    model: Callable[..., Model], data: DataSet, tmp_path: Path, by: str
) -> None:
    """Recall is planted as -kid: of the one less is better, of the other more."""
    settings = replace(SETTINGS, best_by=by)
    planted = Planted([5.0, 3.0, 4.0, 2.0, float("nan"), 6.0])
    training = begin(model(), data, settings, tmp_path, planted)
    steps = list(training.steps())
    assert [s.step for s in steps if s.best] == [2, 4, 8]
    assert all(s.saved for s in steps if s.best)
    best = Checkpoints(tmp_path / "checkpoints").best()
    assert best is not None
    assert best.step == 8
    assert training.counters.judged.best == 2.0


def test_early_stopping_by_a_metric_and_not_by_the_loss(
    model: Callable[..., Model], data: DataSet, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, steps=200, best_by="kid", patience=3, validate=1)
    planted = Planted([5.0, 4.0, 4.5, 4.0, 4.1, 1.0])
    steps = list(begin(model(), data, settings, tmp_path, planted).steps())
    assert steps[-1].step == 10  # the fifth look; the best one was the second
    assert steps[-1].last
    assert steps[-1].saved
    assert steps[-1].notices == ("no better kid since step 4: stopping early",)
    kept = list(begin(model(), data, settings, tmp_path, planted).steps())
    assert kept == []  # it has ended, and says so when it is started again


def sittings(
    folder: Path, stops_at: list[int | None], cuts: list[int]
) -> tuple[Training, dict[int, TrainStep]]:
    """A run in several sittings: each ends in the middle of a look (`stops_at`) or after a step (`cuts`)."""
    taken: dict[int, TrainStep] = {}
    for at, cut in zip([*stops_at, None], [*cuts, 0], strict=True):
        fresh = make_model()
        judge = Drawn(fresh, at)
        training = begin(fresh, make_data(), SETTINGS, folder, judge, stop=judge.stop)
        steps = training.steps()
        for step in steps:
            taken[step.step] = step
            if step.step == cut:
                break
        steps.close()  # pyright: ignore[reportAttributeAccessIssue]
    return training, taken


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Training, dict[int, TrainStep]]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, *sittings(folder, [], [])


def seen(taken: Mapping[int, TrainStep]) -> list[tuple[object, ...]]:
    return [(n, s.loss, s.grad_norm, s.figures, s.validation, s.best) for n, s in sorted(taken.items())]


@pytest.mark.parametrize(
    ("stops_at", "cuts"),
    [
        ([1], [0]),  # in the middle of the second look
        ([0, 0, 2], [0, 0, 0]),  # twice in the first, then in one of the last
        ([None, 0], [7, 0]),  # after a step that was not saved, then in the look of step 8
        ([5], [0]),  # in the last look of all
    ],
)
def test_cut_in_a_look_and_resumed_bit_for_bit(
    whole: tuple[Path, Training, dict[int, TrainStep]],
    tmp_path: Path,
    stops_at: list[int | None],
    cuts: list[int],
) -> None:
    folder, uncut, all_of_it = whole
    assert len(all_of_it) == 12
    again, taken = sittings(tmp_path, stops_at, cuts)
    assert seen(taken) == seen(all_of_it)
    assert torch.equal(weights(again), weights(uncut))
    assert again.counters.judged == uncut.counters.judged
    assert again.counters.trend == uncut.counters.trend
    marks = [read_json(where / "checkpoints" / "best.json") for where in (folder, tmp_path)]
    assert marks[0]["step"] == marks[1]["step"]  # pyright: ignore


def test_a_step_whose_look_was_cut_is_told_once_it_is_complete(
    model: Callable[..., Model], data: DataSet, tmp_path: Path
) -> None:
    fresh = model()
    judge = Drawn(fresh, 0)
    first = begin(fresh, data, SETTINGS, tmp_path, judge, stop=judge.stop)
    assert [s.step for s in first.steps()] == [1]
    last = Checkpoints(tmp_path / "checkpoints").latest()
    assert last is not None
    assert last.step == 2  # its update is not lost
    fresh = model()
    then = next(iter(begin(fresh, data, SETTINGS, tmp_path, Drawn(fresh)).steps()))
    assert (then.step, bool(then.figures)) == (2, True)


def test_figures_of_other_terms_are_not_compared(
    model: Callable[..., Model], data: DataSet, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, steps=5, best_by="kid")
    next(iter(begin(model(), data, settings, tmp_path, Planted([1.0] * 9)).steps()))
    other = replace(Planted([1.0] * 9), terms="kid by another extractor")
    with pytest.raises(RunError, match="judged by planted, and would now be by kid by another extractor"):
        begin(model(), data, settings, tmp_path, other)
    with pytest.raises(SettingsError, match="--best-by fid is not looked at: choose loss, kid, recall"):
        begin(model(), data, replace(settings, best_by="fid"), tmp_path / "b", Planted([]))
    with pytest.raises(SettingsError, match="--best-by kid needs --metrics-every"):
        replace(settings, metrics_every=0)
    with pytest.raises(SettingsError, match="--metrics-every must not be negative"):
        replace(settings, metrics_every=-1)


def test_the_figure_has_a_panel_for_each_metric(tmp_path: Path) -> None:
    log = [{"step": n, "images": 8 * n, "loss": 1 / n} for n in range(1, 9)]
    write_loss(tmp_path / "plain.png", log)
    looks = [entry | {"metrics/kid": 0.1, "metrics/recall": 0.5} for entry in log[::4]]
    write_loss(tmp_path / "judged.png", [*log, *looks])
    with Image.open(tmp_path / "plain.png") as plain, Image.open(tmp_path / "judged.png") as judged:
        assert judged.size[0] == plain.size[0]
        assert judged.size[1] == pytest.approx(plain.size[1] * 7.5 / 4.5, abs=2)


@pytest.mark.slow
def test_processes_decide_by_the_same_figures(tmp_path: Path) -> None:
    """The second process's judge says something else: the leader's figures count, and both stop together."""
    for code, errors in run_two(tmp_path, steps=40, judged=True):
        assert code == 0, errors
    last = Checkpoints(tmp_path / "checkpoints").latest()
    assert last is not None
    assert last.step == 12  # looks at 4, 8 and 12: the first was the best, by a patience of two
