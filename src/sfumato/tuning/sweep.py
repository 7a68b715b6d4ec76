"""A small search for the settings of a run, at equal time for each trial.

    OUT/sweep.json          what is tried: the same command goes on from there
    OUT/trials/001/ ...     a run folder for each trial
    OUT/table.md            the ranking
    OUT/results.json        the same with every figure
    OUT/curves.png          the losses on their way
    OUT/winner.json         the winner's settings, and the command that trains with them

Trials run one after the other. Each resumes as its run does, so a sweep that was stopped or killed goes on
where it was.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from sfumato.data.dataset import DataSet
from sfumato.errors import RunError, SettingsError
from sfumato.evaluation.feature_set import FeatureSet
from sfumato.evaluation.features.extractor import Extractor
from sfumato.evaluation.features.store import features_of
from sfumato.evaluation.metrics import check
from sfumato.evaluation.sets import of_dataset
from sfumato.files import lock, read_json, write_json
from sfumato.files.atomic import write_atomic
from sfumato.inside.figure import write_figure
from sfumato.noise import permutation
from sfumato.training.recipes import RunSettings
from sfumato.training.settings import Habits
from sfumato.training.step import TrainStep
from sfumato.tuning.ranking import By, Place, legend, ranked, table, to_json, winner
from sfumato.tuning.space import Axis, Value, combinations, options, settings_of
from sfumato.tuning.sweep_figure import sweep_figure
from sfumato.tuning.trial import Bench, Result, read_result, run_trial

PLAN, TRIALS = "sweep.json", "trials"
REAL = 2000
"""The most training pictures that KID compares with."""


@dataclass(frozen=True)
class Sweep:
    """What is searched: the axes, how many of their combinations (None: all, or a dozen), how long each trial
    is (`minutes`, `steps` or `images`, one of them), by what they are ranked, and `pictures` for KID (0: no
    KID). `source` and `options` are the data and its options as `sfumato train` is told them."""

    data: DataSet
    axes: tuple[Axis, ...]
    length: Mapping[str, float | int]
    trials: int | None = None
    by: By = "loss"
    pictures: int = 500
    seed: int = 0
    device: str = "cpu"
    source: str = ""
    options: tuple[str, ...] = ()
    every: tuple[dict[str, Value], ...] = field(init=False)
    settings: tuple[RunSettings, ...] = field(init=False)

    def __post_init__(self) -> None:
        every = tuple(combinations(self.axes, self.trials, self.seed))
        settings = tuple(settings_of(self.data, one, self.length, self.seed, self.device) for one in every)
        object.__setattr__(self, "every", every)
        object.__setattr__(self, "settings", settings)
        if self.by == "loss" and len(self.data.held) < 2:
            raise SettingsError(
                f"{self.data.name}: {len(self.data.held)} pictures are held out, too few to rank by their "
                "loss: give a larger --hold-out, or --metric kid"
            )
        if self.by == "kid" and not self.pictures:
            raise SettingsError("-n 0 makes no pictures to rank by KID: leave it out, or --metric loss")
        if self.pictures:
            check(("kid",), len(self.data.train), self.pictures)

    def to_json(self) -> dict[str, Any]:
        """What decides the trials' figures."""
        return {
            "format": 1,
            "data": self.data.fingerprint,
            "held_out": len(self.data.held),
            "length": dict(self.length),
            "axes": [[axis.name, *axis.values] for axis in self.axes],
            "pictures": self.pictures,
            "seed": self.seed,
            "trials": len(self.every),
        }

    def check_folder(self, out: Path) -> None:
        """Raises RunError where OUT holds another sweep, or something else; more trials may follow."""
        path = out / PLAN
        if not path.exists():
            if out.exists() and any(one.name != "lock.json" for one in out.iterdir()):
                raise RunError(f"{out}: not empty, and no sweep: choose another --out")
            return
        found = read_json(path)
        before = cast(Mapping[str, Any], found) if isinstance(found, Mapping) else {}
        now = self.to_json()
        differs = [name for name in now if name != "trials" and now[name] != before.get(name)]
        if differs:
            said = ", ".join(f"{name} ({before.get(name)}, now {now[name]})" for name in differs)
            raise RunError(
                f"{out}: a sweep that was begun with other settings: {said}; give the same ones to go on, or "
                "another --out"
            )


class Going(NamedTuple):
    """A step of a trial that trains."""

    number: int
    step: TrainStep


class Done(NamedTuple):
    """A trial that is judged; `again`: it was so before."""

    result: Result
    again: bool


def run_sweep(
    sweep: Sweep,
    out: Path,
    extractor: Extractor | None = None,
    habits: Habits = Habits(),  # noqa: B008 (frozen)
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda words: None,
) -> Generator[Going | Done, None, list[Place] | None]:
    """Runs what is not done yet and writes the ranking; its value is that, or None where it was stopped.

    Raises RunError for a folder of another sweep, SettingsError where every trial failed.
    """
    with ExitStack() as stack:
        stack.enter_context(lock(out))
        sweep.check_folder(out)
        write_json(out / PLAN, sweep.to_json())
        bench: Bench | None = None
        results: list[Result] = []
        for number, (said, settings) in enumerate(zip(sweep.every, sweep.settings, strict=True), 1):
            if stop():
                return None
            folder = out / TRIALS / f"{number:03d}"
            found = read_result(folder)
            again = found is not None
            if found is None:
                bench = bench or _bench(sweep, extractor, tell)
                for_trial = run_trial(number, said, settings, folder, bench, habits, stop)
                found = yield from _going(number, for_trial)
            if found is None:
                return None
            results.append(found.model_copy(update={"said": said}))  # in its order, which files do not keep
            yield Done(results[-1], again)
        return write_ranking(sweep, results, out)


def _going(
    number: int, steps: Generator[TrainStep, None, Result | None]
) -> Generator[Going, None, Result | None]:
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return cast("Result | None", end.value)
        yield Going(number, step)


def _bench(sweep: Sweep, extractor: Extractor | None, tell: Callable[[str], None]) -> Bench:
    """What trials are judged on; the real pictures are drawn by the seed and looked at once."""
    if extractor is None or not sweep.pictures:
        return Bench(sweep.data, seed=sweep.seed)
    train = sweep.data.train
    rows = [int(train[i]) for i in permutation(len(train), sweep.seed, "sweep real").tolist()]
    real = of_dataset(sweep.data, rows[:REAL])
    tell(f"{extractor.name} looks at {real.count} training pictures")
    seen = FeatureSet(real, features_of(real, extractor), extractor)
    told = tuple(rows[i % len(rows)] for i in range(sweep.pictures))
    return Bench(sweep.data, seen, told, sweep.seed)


def write_ranking(sweep: Sweep, results: Sequence[Result], out: Path) -> list[Place]:
    """Writes the table, all figures, the curves and the winner; gives the ranking."""
    places = ranked(results, sweep.by)
    text = "\n".join([*table(places, sweep.by), "", *legend(places, sweep.by)]) + "\n"
    write_atomic(out / "table.md", [text.encode()])
    write_json(out / "results.json", to_json(places, sweep.by))
    write_figure(out / "curves.png", sweep_figure(places))
    first = winner(places, sweep.by)
    write_json(
        out / "winner.json",
        {
            "format": 1,
            "trial": first.number,
            "run": f"{TRIALS}/{first.number:03d}",
            "said": first.said,
            "command": command(sweep, first),
            "settings": sweep.settings[first.number - 1].to_json(),
        },
    )
    return places


def command(sweep: Sweep, result: Result) -> str:
    """The command that trains with the settings of a trial for as long, into RUN."""
    length = [part for name, value in sweep.length.items() for part in (f"--{name}", f"{value:g}")]
    seed = [] if "seed" in result.said or not sweep.seed else ["--seed", str(sweep.seed)]
    words = ["sfumato", "train", sweep.source, "--out", "RUN", *length, *options(result.said)]
    return shlex.join([*words, *seed, *sweep.options])
