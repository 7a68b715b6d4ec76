"""What training takes and what it gives: a stream of samples, and one report a step."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from sfumato.data.dataset import Batch
from sfumato.training.validation import Validation


@runtime_checkable
class Stream(Protocol):
    """Samples by their position in an endless stream (`data.Batches`)."""

    def each(
        self, chunks: Iterable[Sequence[int]], *, workers: int = 0, ahead: int = 4
    ) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class TrainStep:
    """One step: what it cost and what it did.

    step: updates made so far; images: samples used so far. loss: mean over the batch; grad_norm: before
    clipping. share: part of the budget used, 0 .. 1. skipped: nothing was learned, the numbers were not
    finite. last: the run is over and saved. figures: what the judge found, by name. best: no look so far was
    better. notices: sentences for people.
    """

    step: int
    images: int
    loss: float
    grad_norm: float
    lr: float
    seconds: float
    share: float
    skipped: bool = False
    saved: bool = False
    last: bool = False
    images_per_second: float = 0.0
    validation: Validation | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    best: bool = False
    notices: tuple[str, ...] = ()

    def numbers(self) -> dict[str, float | int]:
        """What was known of it before any look: `TrainStep(**numbers)` is that step again."""
        names = ("step", "images", "loss", "grad_norm", "lr", "seconds", "share")
        return {name: getattr(self, name) for name in names}


def closable(batches: Iterator[Batch]) -> Generator[Batch, None, None]:
    """The same batches by a generator, whose `close` ends the threads that read ahead."""
    yield from batches
