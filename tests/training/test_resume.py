"""A5: a run that was cut goes on bit for bit, however it was cut; the test bites if something is missing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from torch import Tensor

from corpora.told import ABC
from sfumato.data.batches import Batches
from sfumato.data.dataset import Batch, DataSet
from sfumato.errors import RunError
from sfumato.files import Checkpoints
from sfumato.model import Model
from sfumato.training.settings import Habits, TrainSettings
from sfumato.training.state import Counters, State
from sfumato.training.trainer import Training
from sfumato.training.validation import HeldOut
from sfumato.training.vault import Disk

STEPS = 60
SETTINGS = TrainSettings(
    steps=STEPS, batch=6, accumulate=2, lr=3e-3, warmup=5, validate=15, averages=4, weight_decay=0.05
)


class Cut(Exception):
    """The process dies here."""


@dataclass
class Logged:
    """A stream that writes down which samples it was asked for, and may die in the middle of a step."""

    batches: Batches
    dies_at: int | None = None
    seen: list[tuple[int, str]] = field(default_factory=list)

    def each(self, chunks: Iterable[Sequence[int]], *, workers: int = 0, ahead: int = 4) -> Iterator[Batch]:
        for batch in self.batches.each(chunks, workers=workers, ahead=ahead):
            if self.dies_at is not None and self.dies_at in batch.positions:
                raise Cut
            self.seen += zip(batch.positions, batch.names, strict=True)
            yield batch


def digest(tensors: dict[str, dict[str, Tensor]]) -> str:
    out = hashlib.sha256()
    for group in sorted(tensors):
        for name in sorted(tensors[group]):
            out.update(f"{group}/{name}".encode())
            out.update(tensors[group][name].detach().contiguous().numpy().tobytes())
    return out.hexdigest()


@dataclass
class Result:
    digest: str
    losses: dict[int, float]
    samples: list[tuple[int, str]]
    looks: dict[int, float]


class Runner:
    """Trains in a folder, in as many sittings as there are cuts."""

    def __init__(self, model: Callable[..., Model], data: DataSet, folder: Path) -> None:
        self.model, self.data, self.folder = model, data, folder

    def train(
        self,
        cuts: Sequence[int] = (),
        settings: TrainSettings = SETTINGS,
        workers: Sequence[int] = (0,),
        save_every: Sequence[int] = (7,),
        dies_at: int | None = None,
        restore: Callable[[State], None] | None = None,
    ) -> Result:
        losses: dict[int, float] = {}
        looks: dict[int, float] = {}
        samples: dict[int, str] = {}
        state: State | None = None
        for sitting, cut in enumerate([*cuts, None]):
            batch = self.data.held_out()
            stream = Logged(Batches(self.data, 0), dies_at if sitting == 0 else None)
            training = Training(
                self.model(),
                stream,
                settings,
                telling=ABC,
                held=HeldOut(batch.images, ABC.told(batch, 0)),
                vault=Disk(Checkpoints(self.folder / "checkpoints"), settings, self.data.fingerprint),
                habits=Habits(
                    workers=workers[sitting % len(workers)], save_every=save_every[sitting % len(save_every)]
                ),
            )
            state = training.state
            if restore is not None and training.resumed:
                restore(state)
            steps = training.steps()
            try:
                if cut != 0:
                    for step in steps:
                        losses[step.step] = step.loss
                        if step.validation is not None:
                            looks[step.step] = step.validation.loss
                        if step.step == cut:
                            break
            except Cut:
                pass
            finally:
                steps.close()  # pyright: ignore[reportAttributeAccessIssue]
            samples |= dict(stream.seen)
        assert state is not None
        return Result(digest(state.tensors()), losses, sorted(samples.items()), looks)


@pytest.fixture
def runner(model: Callable[..., Model], data: DataSet, tmp_path: Path) -> Callable[[str], Runner]:
    return lambda name: Runner(model, data, tmp_path / name)


def same(a: Result, b: Result) -> bool:
    return (a.digest, a.losses, a.samples, a.looks) == (b.digest, b.losses, b.samples, b.looks)


@pytest.mark.slow
def test_cut_anywhere_and_resumed_bit_for_bit(runner: Callable[[str], Runner]) -> None:
    """One epoch is 32 pictures, 5 1/3 steps. A cut loses what was not saved: it is done again, alike."""
    whole = runner("whole").train()
    assert len(whole.losses) == STEPS
    assert [position for position, _ in whole.samples] == list(range(6 * STEPS))
    cases: list[tuple[str, dict]] = [
        ("before anything", {"cuts": [0]}),
        ("after one step", {"cuts": [1]}),
        ("in an epoch", {"cuts": [9]}),
        ("at an epoch's edge", {"cuts": [16]}),
        ("right after a save", {"cuts": [21]}),
        ("in the middle of a step", {"cuts": [STEPS], "dies_at": 6 * 30 + 4}),
        ("at the last step", {"cuts": [STEPS - 1]}),
        ("when complete", {"cuts": [STEPS]}),
        (
            "three times, other workers and intervals",
            {"cuts": [5, 23, 24], "workers": [0, 2, 1, 3], "save_every": [2, 5, 11]},
        ),
    ]  # fmt: skip
    for name, how in cases:
        assert same(runner(name).train(**how), whole), name
    with_workers = runner("workers").train(workers=[2])
    assert same(with_workers, whole)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["ema", "optimiser", "position", "power", "step"])
def test_the_comparison_bites(runner: Callable[[str], Runner], change: str) -> None:
    """If a resume forgot one of these, the test above would fail."""
    settings = replace(SETTINGS, steps=16)

    def forget(state: State) -> None:
        counters = state.counters
        if change == "ema":
            state.average.copy_(state.weights.vector)
        elif change == "power":
            state.powers[0.05].copy_(state.weights.vector)
        elif change == "optimiser":
            state.optimiser.state.clear()
        elif change == "position":
            counters.position = 0
        else:
            counters.step = 0

    whole = runner("whole").train(settings=settings)
    assert same(runner("right").train([8], settings), whole)
    assert not same(runner("wrong").train([8], settings, restore=forget), whole)


@pytest.mark.parametrize("change", [{"optimiser": "sgld"}, {"precision": "bf16"}, {"accumulate": 1}])
def test_other_ways_of_training_resume_alike(runner: Callable[[str], Runner], change: dict) -> None:
    settings = replace(SETTINGS, steps=12, **change)
    whole = runner("whole").train(settings=settings)
    assert same(runner("cut").train([5], settings), whole)


def test_another_run_is_refused_by_name(runner: Callable[[str], Runner]) -> None:
    settings = replace(SETTINGS, steps=4)
    runner("run").train(settings=settings)
    with pytest.raises(
        RunError, match=r"begun with other settings: batch \(6, now 8\), lr \(0.003, now 0.1\)"
    ):
        runner("run").train(settings=replace(settings, batch=8, lr=0.1))


def test_a_run_may_be_prolonged(runner: Callable[[str], Runner]) -> None:
    """It goes on from its last step at the pace of its new length, bit for bit wherever it is cut."""
    short, long = replace(SETTINGS, steps=8), replace(SETTINGS, steps=16)
    whole = runner("whole")
    first = whole.train(settings=short)
    then = whole.train(settings=long)
    assert list(first.losses) == list(range(1, 9))
    assert list(then.losses) == list(range(9, 17))
    cut = runner("cut")
    cut.train(settings=short)
    assert cut.train([11], settings=long).digest == then.digest
    assert not whole.train(settings=short).losses
    assert len(list((whole.folder / "averages").glob("step-00000016-*"))) == 2


def test_a_broken_newest_checkpoint_is_passed_over(runner: Callable[[str], Runner]) -> None:
    settings = replace(SETTINGS, steps=16)
    whole = runner("whole").train(settings=settings)
    cut = runner("cut")
    cut.train([15], settings)
    newest = Checkpoints(cut.folder / "checkpoints").all()
    path = newest[-1].path / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    assert cut.train([], settings).digest == whole.digest


def test_counters_round_trip_and_refuse() -> None:
    counters = Counters(step=3, position=24, seconds=1.5)
    counters.trend.see(3, 0.25)
    assert Counters.from_json(counters.to_json()) == counters
    with pytest.raises(RunError, match="not readable"):
        Counters.from_json({"step": 3, "steps": 4})
