"""What learns beside the model, from the same batches: a discriminator, a history of losses, a schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.model import Model
from sfumato.training.objectives import Objective, Sum, Trial


@runtime_checkable
class Companion(Protocol):
    """Learns beside the model and is saved with it, so that a resumed run goes on bit for bit.

    In every step it `watch`es each part of the batch, then what is `shared` is summed over the processes, and
    then it `learn`s or, where the step was left out, `forget`s. All of it is a function of the batch, so
    every process has the same companion, and `watch` changes nothing that the next part of the batch would
    see.
    """

    @property
    def name(self) -> str:
        """Of its tensors in a checkpoint."""
        ...

    def begin(self, model: Model, batch: int, device: torch.device) -> None:
        """Called once, before anything else: the model, the pictures of a whole step, and where it trains."""
        ...

    def watch(self, trial: Trial, losses: Tensor, places: Sequence[int]) -> Tensor | None:
        """Sees a part of the batch: what the model said, its losses (B,) before any weighting by level, and
        the pictures' places in the whole step's batch. A loss of its own, (B,), is back-propagated with the
        model's and divided by the batch in the same way."""
        ...

    def shared(self) -> list[Tensor]:
        """What the parts have added up to; summed over the processes in place."""
        ...

    def learn(self) -> None:
        """The step was good: take what was shared to heart."""
        ...

    def forget(self) -> None:
        """The step was left out: drop what was shared."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """All that it knows, by name."""
        ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Back to what `tensors` said."""
        ...


def companions_in(objective: Objective) -> tuple[Companion, ...]:
    """The terms of an objective that learn themselves."""
    parts = [part for _, part in objective.parts] if isinstance(objective, Sum) else [objective]
    return tuple(part for part in parts if isinstance(part, Companion))


def settled(objective: Objective) -> Objective:
    """The objective without its terms that learn themselves, by which held-out pictures are judged; all of it
    where there is no other term."""
    if not isinstance(objective, Sum):
        return objective
    still = tuple(part for part in objective.parts if not isinstance(part[1], Companion))
    return Sum(still) if still and len(still) < len(objective.parts) else objective
