"""A training run in its folder: settings, checkpoints, log, samples, and at every save a model that can be
sampled.

    RUN/settings.json       everything that decides the run's numbers
    RUN/log.jsonl           one line a step
    RUN/checkpoints/        what a run goes on from
    RUN/averages/           snapshots from which averages of any width are rebuilt
    RUN/samples/            grids on the way, and what their pictures were told beside a class
    RUN/loss.png            the curve so far
and the model itself (see `folders.run`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from sfumato.assembled import build
from sfumato.card import Card, TrainingSettings, WeightsSettings
from sfumato.data.batches import Batches
from sfumato.data.dataset import DataSet
from sfumato.errors import RunError, SettingsError
from sfumato.files import Checkpoints, clean_temporaries, lock, read_json, write_json
from sfumato.folders.default_sampler import keeping_sampler
from sfumato.folders.run import save
from sfumato.folders.text import ENCODER, TOKENIZER, copy_frozen
from sfumato.learned import Learned
from sfumato.records.schedules import describe_schedule, schedule_hash
from sfumato.runs import Run
from sfumato.schedules import Schedule
from sfumato.training.crew import ALONE, Crew
from sfumato.training.device import choose_device
from sfumato.training.drawing import Drawing
from sfumato.training.figures import write_loss
from sfumato.training.judge import Judge
from sfumato.training.learned_schedule import value_of
from sfumato.training.logs import LOG, Log, Tracker, read_log, values
from sfumato.training.preview import Preview
from sfumato.training.recipes import RunSettings
from sfumato.training.settings import Habits
from sfumato.training.state import Counters
from sfumato.training.step import TrainStep
from sfumato.training.told import Told, fingerprint, told
from sfumato.training.trainer import Training
from sfumato.training.validation import HeldOut
from sfumato.training.vault import Disk

SETTINGS = "settings.json"
Judging = Callable[[Drawing, RunSettings], Judge]
"""Makes the judge of a run's metrics (`evaluation.during.judging`)."""


def check_folder(out: Path, settings: RunSettings, data: DataSet, restart: bool = False) -> bool:
    """Whether RUN holds a run to go on with. Raises RunError if it is another one, naming what differs."""
    path = out / SETTINGS
    if restart and out.exists() and any(p.name != "lock.json" for p in out.iterdir()):
        raise RunError(
            f"{out}: not empty, so no run is begun anew here: remove it first, or choose another --out"
        )
    if not path.exists():
        return False
    before = read_json(path)
    known = cast(Mapping[str, Any], before) if isinstance(before, Mapping) else {}
    differs = settings.differences(known)
    if known.get("data") != fingerprint(settings.wanted, data):
        differs.append("the pictures")
    if differs:
        raise RunError(
            f"{out}: this run was begun with other settings: {', '.join(differs)}; give the same ones to "
            f"continue "
            "it, or another --out to begin anew"
        )
    return True


class FolderRun:
    """A run in its folder. Iterate over `steps()`; only the leader of a crew writes."""

    def __init__(
        self,
        data: DataSet,
        settings: RunSettings,
        out: Path,
        *,
        habits: Habits = Habits(),  # noqa: B008 (frozen)
        crew: Crew = ALONE,
        stop: Callable[[], bool] = lambda: False,
        trackers: Sequence[Tracker] = (),
        sample_share: float = 0.03,
        judging: Judging | None = None,
    ) -> None:
        self.data, self.settings, self.out, self.crew = data, settings, out, crew
        self.trackers = tuple(trackers)
        self.told = _told(settings, data, out, crew.leads)
        self.card = keeping_sampler(out, settings.card(data, self.told))
        train = settings.train
        checkpoints = Checkpoints(out / "checkpoints", habits.keep)
        held: HeldOut | None = None
        if train.validate and len(data.held):
            batch = data.held_out(512)
            held = HeldOut(batch.images, self.told.telling.told(batch, train.seed))
        self.fingerprint = fingerprint(settings.wanted, data)
        device = choose_device(habits.device, crew.local_rank)
        model, text = build(self.card, train.seed).to(device), self.told.conditions.text
        run = Run(out, self.card, model, device, "ema", "", text)
        drawing = Drawing(run, data, self.told.telling, train.seed, crew, stop)
        self.preview = Preview(drawing, sample_share)
        if settings.metrics and judging is None:
            raise SettingsError(
                "metrics are found by a judge: give train_run judging=evaluation.during.judging()"
            )
        self.training = Training(
            model,
            Batches(data, train.seed, settings.augment, settings.balance),
            train,
            telling=self.told.telling,
            held=held,
            judge=judging(drawing, settings) if judging is not None and settings.metrics else None,
            vault=Disk(checkpoints, train, self.fingerprint, crew.leads),
            habits=habits,
            crew=crew,
            stop=stop,
            objective=settings.objective(self.card),
            companions=settings.companions(self.card),
        )

    @property
    def resumed(self) -> bool:
        return self.training.resumed

    def steps(self) -> Iterator[TrainStep]:
        """Trains; see `Training.steps`. At every save the folder's model is renewed."""
        if not self.crew.leads:
            yield from self.training.steps()
            return
        with ExitStack() as stack:
            said = {"data": self.fingerprint, "reasons": list(self.settings.reasons)}
            write_json(self.out / SETTINGS, self.settings.to_json() | said)
            log = Log(self.out / LOG, self.training.counters.position)
            stack.callback(log.close)
            for tracker in self.trackers:
                stack.callback(tracker.close)
            for step in self.training.steps():
                if step.saved and step.step:
                    step = self._exported(step)
                log.write(step)
                for tracker in self.trackers:
                    tracker.write(values(step), step.step)
                due = step.last or self.preview.due(step.images_per_second)
                if step.step and not self.training.stopped and due:
                    self.picture(log)
                yield step
            if self.training.stopped and self.training.counters.step:
                self.export()

    def _exported(self, step: TrainStep) -> TrainStep:
        try:
            held = self.export().training.steps
        except RunError as error:
            if step.last:
                raise
            return replace(step, notices=(*step.notices, f"the folder's model is not renewed: {error}"))
        if held == step.step:
            return step
        best = f"the folder holds the weights of step {held}, the best look"
        return replace(step, notices=(*step.notices, best))

    def export(self) -> Card:
        """Renews the folder's model: the averaged weights, and the raw ones beside them."""
        average, schedule, c = self._chosen()
        horizon, seed = self.training.state.ema.horizon, self.settings.train.seed
        moved: dict[str, object] = {}
        if isinstance(schedule, Learned):
            moved = {"schedule": describe_schedule(schedule), "schedule_hash": schedule_hash(schedule)}
        card = self.card.but(
            **moved,
            weights=WeightsSettings(kind="ema", horizon=horizon),
            training=TrainingSettings(images_seen=c.position, steps=c.step, seconds=c.seconds, seed=seed),
        )
        text = self.told.conditions.text
        return save(self.out, self.training.model, card, average, keep_raw=True, text=text)

    def _chosen(self) -> tuple[dict[str, Tensor], Schedule, Counters]:
        """The averaged weights, the schedule that they were trained on and how far that went. They are those
        of the best look once a run has stopped for want of a better one, and at the end of a run whose best
        is chosen by a metric."""
        training, by = self.training, self.settings.train.best_by
        done = training.looking.tired or (training.share >= 1 and by != "loss")
        schedule = training.model.schedule
        best = training.vault.checkpoints.best() if done and isinstance(training.vault, Disk) else None
        if best is None or not isinstance(training.vault, Disk):
            return training.state.weights.named(training.state.average), schedule, training.counters
        kept, counters = training.vault.load(best)
        return kept["ema"], value_of(kept["schedule"]) if "schedule" in kept else schedule, counters

    def picture(self, log: Log) -> None:
        """Draws a grid of samples with the averaged weights, and the loss so far; `stop` ends it early."""
        with self.training.averaged():
            self.preview.draw(self.training.counters.step)
        log.flush()
        write_loss(self.out / "loss.png", read_log(self.out / LOG))


def _told(settings: RunSettings, data: DataSet, out: Path, leads: bool) -> Told:
    """The conditions of a run: what reads captions is the folder's own, if it is there already. The leader
    puts a copy of a frozen encoder there."""
    text = settings.text
    if text in ("none", "own"):
        return told(settings.wanted, data, out / TOKENIZER if (out / TOKENIZER).is_dir() else None)
    source = Path(text)
    if leads and not ((out / ENCODER).is_dir() and (out / TOKENIZER).is_dir()):
        told(settings.wanted, data)  # refuses what is no encoder, before it is copied
        copy_frozen(source, out)
    return told(settings.wanted, data, frozen=out if leads or not source.is_dir() else None)


def train_run(
    data: DataSet,
    settings: RunSettings,
    out: Path,
    *,
    habits: Habits = Habits(),  # noqa: B008 (frozen)
    crew: Crew = ALONE,
    stop: Callable[[], bool] = lambda: False,
    trackers: Callable[[], Sequence[Tracker]] = tuple,
    sample_share: float = 0.03,
    judging: Judging | None = None,
    restart: bool = False,
) -> Iterator[TrainStep]:
    """Trains in the folder `out`, which is then a model to sample from, or goes on with the run that is
    there.

    Holds the folder's lock. Raises RunError if another process trains there or the settings are not those
    that the run was begun with, TrainingError if the losses stay infinite, DataError if the data fails.
    """
    with ExitStack() as stack:
        if crew.leads:
            stack.enter_context(lock(out))
            clean_temporaries(out)
        check_folder(out, settings, data, restart and crew.leads)
        run = FolderRun(
            data,
            settings,
            out,
            habits=habits,
            crew=crew,
            stop=stop,
            trackers=trackers() if crew.leads else (),
            sample_share=sample_share,
            judging=judging,
        )
        yield from run.steps()
