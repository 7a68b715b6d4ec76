"""One trial of a sweep: a run of its own, trained and then judged like every other.

OUT/trials/003/                the run's folder
OUT/trials/003/result.json     what came of it, once it is judged
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from sfumato.data.dataset import DataSet
from sfumato.errors import RunError
from sfumato.evaluation.feature_set import FeatureSet
from sfumato.evaluation.features.store import features_of
from sfumato.evaluation.mean import Mean
from sfumato.evaluation.metrics import measure
from sfumato.evaluation.record import Record
from sfumato.evaluation.sets import of_run
from sfumato.files import read_json, write_json
from sfumato.records.part import Part
from sfumato.records.sentence import sentence
from sfumato.runs import Run, load
from sfumato.training.average import Snapshot
from sfumato.training.errors import TrainingError
from sfumato.training.recipes import RunSettings
from sfumato.training.run import train_run
from sfumato.training.settings import Habits
from sfumato.training.snapshots import read_snapshots
from sfumato.training.step import TrainStep
from sfumato.tuning.loss import eps_losses
from sfumato.tuning.space import Value

RESULT = "result.json"
HELD = 256
"""The most held-out pictures of a trial's loss, and of a point of its curve a quarter of that."""


class Result(Part):
    """What came of a trial. losses: of each held-out picture, on the common scale; kid: where it was asked
    for; curve: (part of the training, loss) on the way. `failed`: why there is none of this."""

    format: Literal[1] = 1
    number: int
    said: dict[str, Value]
    steps: int = 0
    seconds: float = 0.0
    parameters: int = 0
    losses: tuple[float, ...] = Field(default=(), max_length=HELD)
    kid: Record | None = None
    curve: tuple[tuple[float, float], ...] = ()
    failed: str | None = None

    @property
    def loss(self) -> Mean | None:
        """The held-out loss with its standard error over pictures."""
        return Mean.of(torch.tensor(self.losses, dtype=torch.float64)) if len(self.losses) > 1 else None


@dataclass(frozen=True)
class Bench:
    """What all trials are judged on: held-out pictures of the data and, for KID, `real` ones of its training
    pictures (None: no KID). As many are drawn as there are `rows`, each told what that row's picture is."""

    data: DataSet
    real: FeatureSet | None = None
    rows: tuple[int, ...] = ()
    seed: int = 0
    batch: int = 64


def read_result(folder: Path) -> Result | None:
    """What came of the trial in this folder, None where it is not judged yet. Raises RunError."""
    path = folder / RESULT
    if not path.exists():
        return None
    try:
        return Result.model_validate_json(json.dumps(read_json(path)), strict=True)
    except ValidationError as error:
        raise RunError(
            f"{path}: no result of a trial ({sentence(error)}): remove it, and it is judged again"
        ) from None


def run_trial(
    number: int,
    said: dict[str, Value],
    settings: RunSettings,
    folder: Path,
    bench: Bench,
    habits: Habits,
    stop: Callable[[], bool],
) -> Generator[TrainStep, None, Result | None]:
    """Trains the trial, or goes on with it, judges it and keeps the result; None where it was stopped."""
    last: TrainStep | None = None
    try:
        steps = train_run(bench.data, settings, folder, habits=habits, stop=stop, sample_share=0.0)
        for last in steps:
            yield last
    except TrainingError as error:
        result = Result(number=number, said=said, failed=str(error))
        write_json(folder / RESULT, result.model_dump(mode="json"))
        return result
    if not (last.last if last is not None else not stop()):
        return None
    result = judged(number, said, folder, bench, habits.device, settings.train.averages)
    write_json(folder / RESULT, result.model_dump(mode="json"))
    return result


def judged(
    number: int, said: dict[str, Value], folder: Path, bench: Bench, device: str, averages: int
) -> Result:
    """The result of a trial that is trained."""
    run, data = load(folder, device), bench.data
    held = data.held_out(HELD) if len(data.held) else None
    losses: list[float] = []
    curve: list[tuple[float, float]] = []
    if held is not None:
        cond = run.conditions.rows(run.conditions.wishes(held))
        losses = eps_losses(run.model, held.images, cond, bench.batch).tolist()
        few = slice(0, HELD // 4)
        some = {name: value[few] for name, value in cond.items()}
        curve = _curve(folder, run, held.images[few], some, averages, bench.batch)
    if not all(map(math.isfinite, losses)):
        return Result(number=number, said=said, failed="its held-out loss is not finite")
    card = run.card.training
    return Result(
        number=number,
        said=said,
        steps=card.steps,
        seconds=card.seconds,
        parameters=sum(p.numel() for p in run.model.parameters()),
        losses=tuple(losses),
        kid=_kid(load(folder, device), bench) if bench.real is not None else None,
        curve=tuple(point for point in curve if math.isfinite(point[1])),
    )


def _kid(run: Run, bench: Bench) -> Record | None:
    if bench.real is None:
        return None
    wishes = run.conditions.wishes(bench.data.take(bench.rows))
    asked: dict[str, Any] = {
        "classes": [wish.label for wish in wishes],
        "prompt": [wish.prompt for wish in wishes],
        "set": [wish.values for wish in wishes],
    }
    drawn = of_run(run, len(wishes), bench.seed, batch=bench.batch, **asked)
    seen = features_of(drawn, bench.real.extractor, bench.batch)
    return measure(("kid",), bench.real, FeatureSet(drawn, seen, bench.real.extractor))[0]


def _curve(
    folder: Path, run: Run, x0: Tensor, cond: dict[str, Tensor], averages: int, batch: int
) -> list[tuple[float, float]]:
    """The loss of the averages that training kept on its way, by the narrowest; changes the run's weights."""
    kept: dict[int, Snapshot] = {}
    for snapshot in read_snapshots(folder):
        there = kept.get(snapshot.step)
        if there is None or snapshot.sigma_rel < there.sigma_rel:
            kept[snapshot.step] = snapshot
    points: list[tuple[float, float]] = []
    for i, step in enumerate(sorted(kept), 1):
        with torch.no_grad():
            for name, p in run.model.named_parameters():
                if name in kept[step].weights:
                    p.copy_(kept[step].weights[name])
        points.append((i / averages, float(eps_losses(run.model, x0, cond, batch).mean())))
    return points
