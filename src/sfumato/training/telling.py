"""What a model in training is told of its samples, and what is hidden from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from sfumato.conditions.schema import Conditions, Wish
from sfumato.data.dataset import Batch
from sfumato.noise import Noise
from sfumato.training.tasks import Task

LABEL = "task"
"""The attribute by which a model of several tasks is told which one a sample is for."""


@dataclass(frozen=True)
class Telling:
    """The conditions of a model, and the task that makes the pictures it is shown, if there is one."""

    conditions: Conditions = field(default_factory=Conditions)
    task: Task | None = None

    def known(self, batch: Batch, seed: int) -> tuple[tuple[Wish, ...], Tensor | None]:
        """What is known of these samples, and the pictures to show beside them. Pictures that are no part of
        a stream count from 0."""
        positions = batch.positions or range(len(batch))
        if self.task is None:
            shown = self.conditions.shown is not None
            return self.conditions.wishes(batch), batch.picture if shown else None
        labels = {LABEL: self.task.label(positions, seed)} if self.task.labels else None
        return self.conditions.wishes(batch, labels), self.task.picture(batch.images, positions, seed)

    def told(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """The same as the network takes it."""
        return self.conditions.rows(*self.known(batch, seed))

    def hidden(
        self, cond: Mapping[str, Tensor], drop: float, positions: Sequence[int], seed: int
    ) -> dict[str, Tensor]:
        """The same with some conditions not told, for guidance (Ho & Salimans 2022).

        A share `drop` of the samples is told nothing. Where there are several conditions, of twice that share
        each one is hidden by the toss of a coin, so that any part of them can be asked for and weighed alone.
        """
        names = self.conditions.names
        if not names:
            return dict(cond)
        noise = Noise.of(seed, "drop", places=positions)
        draw = noise.uniform((), "drop")
        which = dict.fromkeys(names, draw < drop)
        if len(names) > 1:
            some = (draw >= drop) & (draw < 3 * drop)
            coins = noise.uniform((len(names),), "each") < 0.5
            which = {name: which[name] | (some & coins[:, i]) for i, name in enumerate(names)}
        return self.conditions.hidden(cond, which)
