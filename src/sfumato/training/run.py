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

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from sfumato.card import Card, TrainingSettings, WeightsSettings, build
from sfumato.conditions.schema import Wish
from sfumato.data.batches import Batches
from sfumato.data.dataset import DataSet
from sfumato.errors import RunError
from sfumato.files import Checkpoints, clean_temporaries, lock, read_json, write_json
from sfumato.folders.default_sampler import keeping_sampler
from sfumato.folders.run import save
from sfumato.folders.text import ENCODER, TOKENIZER, copy_frozen
from sfumato.learned import Learned
from sfumato.records.schedules import describe_schedule, schedule_hash
from sfumato.runs import Run
from sfumato.schedules import Schedule
from sfumato.training.crew import ALONE, Crew
from sfumato.training.figures import write_grid, write_loss
from sfumato.training.learned_schedule import value_of
from sfumato.training.logs import LOG, Log, Tracker, read_log, values
from sfumato.training.recipes import RunSettings
from sfumato.training.settings import Habits
from sfumato.training.step import TrainStep
from sfumato.training.told import Told, fingerprint, told
from sfumato.training.trainer import Training
from sfumato.training.validation import HeldOut
from sfumato.training.vault import Disk

SETTINGS, ASKED = "settings.json", "asked.json"
_COLUMNS = 8
_SAMPLE_STEPS = 25


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
    ) -> None:
        self.data, self.settings, self.out, self.crew = data, settings, out, crew
        self.trackers, self.sample_share = tuple(trackers), sample_share
        self.told = _told(settings, data, out, crew.leads)
        self.card = keeping_sampler(out, settings.card(data, self.told))
        train = settings.train
        checkpoints = Checkpoints(out / "checkpoints", habits.keep)
        held: HeldOut | None = None
        if train.validate and len(data.held):
            batch = data.held_out(512)
            held = HeldOut(batch.images, self.told.telling.told(batch, train.seed))
        self.fingerprint = fingerprint(settings.wanted, data)
        self.training = Training(
            build(self.card, train.seed),
            Batches(data, train.seed, settings.augment, settings.balance),
            train,
            telling=self.told.telling,
            held=held,
            vault=Disk(checkpoints, train, self.fingerprint, crew.leads),
            habits=habits,
            crew=crew,
            stop=stop,
            objective=settings.objective(self.card),
            companions=settings.companions(self.card),
        )
        self._sampled_at, self._sample_cost = time.monotonic(), 0.0

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
                log.write(step)
                for tracker in self.trackers:
                    tracker.write(values(step), step.step)
                if step.saved and step.step:
                    step = self._exported(step)
                if step.step and not self.training.stopped and (step.last or self._time_to_sample(step)):
                    self.picture(log)
                yield step
            if self.training.stopped and self.training.counters.step:
                self.export()

    def _exported(self, step: TrainStep) -> TrainStep:
        try:
            self.export()
        except RunError as error:
            if step.last:
                raise
            return replace(step, notices=(*step.notices, f"the folder's model is not renewed: {error}"))
        return step

    def export(self) -> Card:
        """Renews the folder's model: the averaged weights, and the raw ones beside them."""
        c, state = self.training.counters, self.training.state
        train = self.settings.train
        average, schedule = self._averages()
        moved: dict[str, object] = {}
        if isinstance(schedule, Learned):
            moved = {"schedule": describe_schedule(schedule), "schedule_hash": schedule_hash(schedule)}
        card = self.card.but(
            **moved,
            weights=WeightsSettings(kind="ema", horizon=state.ema.horizon),
            training=TrainingSettings(
                images_seen=c.position, steps=c.step, seconds=c.seconds, seed=train.seed
            ),
        )
        text = self.told.conditions.text
        return save(self.out, self.training.model, card, average, keep_raw=True, text=text)

    def _averages(self) -> tuple[dict[str, Tensor], Schedule]:
        """The averaged weights and the schedule that they were trained on; those of the best look once a run
        has stopped for want of a better one."""
        schedule = self.training.model.schedule
        state, trend = self.training.state, self.training.counters.trend
        patience = self.settings.train.patience
        if patience and trend.since >= patience and isinstance(self.training.vault, Disk):
            best = self.training.vault.checkpoints.best()
            if best is not None:
                kept = self.training.vault.checkpoints.load(best)[0]
                return kept["ema"], value_of(kept["schedule"]) if "schedule" in kept else schedule
        return state.weights.named(state.average), schedule

    def _time_to_sample(self, step: TrainStep) -> bool:
        """The first grid's cost is guessed: a picture asked once costs a third of training on it."""
        if not self.sample_share:
            return False
        speed = max(step.images_per_second, 1e-6)
        cost = self._sample_cost or len(self._rows()) * _SAMPLE_STEPS / 3 / speed
        return time.monotonic() - self._sampled_at > max(10.0, cost / self.sample_share)

    def _rows(self) -> list[str | None]:
        """The classes of a grid, one a picture: 4 rows or more with every class, as long as they are few."""
        names: list[str | None] = list(self.card.classes or ())
        if not names or self._tells_more:
            return [None] * min(32, len(self.data.train))
        return [names[i % len(names)] for i in range(len(names) * max(1, 40 // len(names)))][:64]

    @property
    def _tells_more(self) -> bool:
        """Whether the model is told more than a class: a grid then shows what it makes of real wishes."""
        card = self.card
        return card.attributes is not None or card.text is not None or card.picture is not None

    def _known(self, count: int) -> tuple[tuple[Wish, ...], Tensor | None]:
        """What is known of held-out pictures, and of others where there are too few."""
        rows = [*self.data.held.tolist(), *self.data.train.tolist()][:count]
        return self.told.telling.known(self.data.take(rows), self.settings.train.seed)

    def picture(self, log: Log) -> None:
        """Draws a grid of samples with the averaged weights, and the loss so far; `stop` ends it early."""
        began = time.monotonic()
        images = self._samples()
        if images is not None:
            classes = len(self.card.classes or ())
            path = self.out / "samples" / f"step-{self.training.counters.step:08d}.png"
            write_grid(path, images, classes if 2 <= classes <= 16 else _COLUMNS)
        log.flush()
        write_loss(self.out / "loss.png", read_log(self.out / LOG))
        self._sampled_at = time.monotonic()
        self._sample_cost = self._sampled_at - began

    def _samples(self) -> Tensor | None:
        training, rows = self.training, self._rows()
        text = self.told.conditions.text
        run = Run(self.out, self.card, training.model, training.lesson.device, "ema", "", text)
        asked: dict[str, Any] = {"classes": rows if self.card.classes else None}
        picture: Tensor | None = None
        if self._tells_more:
            wishes, picture = self._known(len(rows))
            (self.out / "samples").mkdir(exist_ok=True)
            write_json(self.out / "samples" / ASKED, [asdict(wish) for wish in wishes])
            several = {"classes": [w.label for w in wishes], "prompt": [w.prompt for w in wishes]}
            asked = {**several, "set": [w.values for w in wishes]}
        recipe = run.recipe(len(rows), **asked, steps=_SAMPLE_STEPS)
        training.model.eval()
        try:
            with training.averaged():
                x: Tensor | None = None
                for step in run.walk(recipe, picture):
                    if self.crew.size == 1 and training.stop():
                        return None
                    x = step.x
                return x
        finally:
            training.model.train()


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
        )
        yield from run.steps()
