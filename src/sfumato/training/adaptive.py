"""Levels drawn where the loss needs them, found out while training, and counted so that the loss means what
it meant.

The time axis is cut into bins; each remembers its losses. A level is drawn by the bins' shares and its loss
weighed by (even density) / (own density), so only the noise of the gradient changes, not its mean. What is
remembered is a function of the batches alone and changes between steps only: resumed runs, accumulated parts
and several processes draw the same levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.level import Level
from sfumato.model import Model
from sfumato.schedules import Schedule
from sfumato.tables import Table
from sfumato.training.levels import Stratified, Where, at_share
from sfumato.training.objectives import Trial

BINS = 100
"""Fewer on a table of fewer steps: each has a node."""
_ENOUGH = 10
"""Losses that every bin must have seen before any level is drawn more often."""
_EVEN = 0.001
"""The share that is always drawn evenly, so that no bin is forgotten."""


@runtime_checkable
class Memory(Protocol):
    """What is kept of each bin's losses, and how much of the training it asks for."""

    def add(self, place: int, loss: float) -> None: ...

    def wish(self) -> Tensor:
        """How often each bin would be drawn, (bins,) float64, up to a factor."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, as it is; writing to these tensors changes it."""
        ...


class SecondMoment:
    """sqrt(E loss^2) over the ten last losses, which makes the variance of the mean loss least (Nichol &
    Dhariwal 2021, section 3.4, eq. 18)."""

    def __init__(self, bins: int) -> None:
        self.kept = torch.zeros(bins, _ENOUGH, dtype=torch.float64)
        self.count = torch.zeros(bins, dtype=torch.int64)

    def add(self, place: int, loss: float) -> None:
        self.kept[place, int(self.count[place]) % _ENOUGH] = loss
        self.count[place] += 1

    def wish(self) -> Tensor:
        return self.kept.square().mean(1).sqrt()

    def tensors(self) -> dict[str, Tensor]:
        return {"kept": self.kept, "count": self.count}


class MeanLoss:
    """A running mean of the loss over about the hundred last: each stretch of time is made to cost alike, the
    adaptive noise schedule of Kingma & Gao (2023, appendix C)."""

    def __init__(self, bins: int, over: int = 100) -> None:
        self.over = over
        self.mean = torch.zeros(bins, dtype=torch.float64)
        self.count = torch.zeros(bins, dtype=torch.int64)

    def add(self, place: int, loss: float) -> None:
        self.count[place] += 1
        self.mean[place] += (loss - float(self.mean[place])) / min(self.over, int(self.count[place]))

    def wish(self) -> Tensor:
        return self.mean.clamp(min=0)

    def tensors(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "count": self.count}


class Adaptive:
    """Levels by what their losses were: a `Where` that learns. Even until every bin has seen ten losses.

    `memory` makes the memory of a number of bins: `SecondMoment`, `MeanLoss`.
    """

    name = "levels"

    def __init__(self, memory: Callable[[int], Memory]) -> None:
        self._make, self._draw = memory, Stratified()
        self.even: Where = self._draw
        self._seen = torch.zeros(0, 2)
        self._remember(BINS)

    def _remember(self, bins: int) -> None:
        self.memory = self._make(bins)
        self._bins = bins
        self._settle()

    def __call__(self, schedule: Schedule, positions: Sequence[int], seed: int) -> Level:
        u = self._draw.shares(positions, seed)
        place = (torch.searchsorted(self._edges, u, right=True) - 1).clamp(0, self._bins - 1)
        inside = (u - self._edges[place]) / (self._edges[place + 1] - self._edges[place])
        return at_share(schedule, (place + inside) / self._bins)

    def weights(self, schedule: Schedule, level: Level) -> Tensor:
        """(even density) / (own density), exactly: on a table by the nodes' own probabilities."""
        t = schedule.time(level).clamp(0, 1)
        if isinstance(schedule, Table):
            node = (t * schedule.steps).round().clamp(min=1)
            share = self._below(node / schedule.steps) - self._below((node - 1) / schedule.steps)
            return 1 / (schedule.steps * share)
        place = self._place(schedule, level)
        return 1 / self._bins / (self._edges[place + 1] - self._edges[place])

    def _below(self, t: Tensor) -> Tensor:
        """The probability of a time below t."""
        at = t * self._bins
        place = at.floor().long().clamp(0, self._bins - 1)
        return self._edges[place] + (at - place) * (self._edges[place + 1] - self._edges[place])

    def _place(self, schedule: Schedule, level: Level) -> Tensor:
        """The bin of a level; a node of a table stands for the time just before it."""
        t = schedule.time(level)
        if isinstance(schedule, Table):
            t = t - 0.5 / schedule.steps
        return (t * self._bins).floor().long().clamp(0, self._bins - 1)

    def begin(self, model: Model, batch: int, device: torch.device) -> None:
        schedule = model.schedule
        self._remember(min(BINS, schedule.steps) if isinstance(schedule, Table) else BINS)
        self._seen = torch.zeros(batch, 2, device=device)

    def watch(self, trial: Trial, losses: Tensor, places: Sequence[int]) -> Tensor | None:
        if trial.schedule is None:
            raise ValueError("levels that learn need trials that know their schedule")
        bins = self._place(trial.schedule, trial.level) + 1  # 0: not seen by this process
        rows = torch.tensor(list(places), device=self._seen.device)
        self._seen[rows] = torch.stack([bins.to(losses), losses.detach()], 1).to(self._seen)
        return None

    def shared(self) -> list[Tensor]:
        return [self._seen]

    def learn(self) -> None:
        for place, loss in self._seen.tolist():
            self.memory.add(int(place) - 1, loss)
        self.forget()
        self._settle()

    def forget(self) -> None:
        self._seen.zero_()

    def tensors(self) -> dict[str, Tensor]:
        return self.memory.tensors()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        for name, value in self.memory.tensors().items():
            value.copy_(tensors[name])
        self.forget()
        self._settle()

    def _settle(self) -> None:
        """The cumulated shares of the bins, from what is remembered now."""
        share = torch.full((self._bins,), 1 / self._bins, dtype=torch.float64)
        wish = self.memory.wish()
        if int(self.memory.tensors()["count"].min()) >= _ENOUGH and float(wish.sum()) > 0:
            share = (1 - _EVEN) * wish / wish.sum() + _EVEN * share
        self._edges = torch.cat([share.new_zeros(1), share.cumsum(0)])
        self._edges[-1] = 1.0
