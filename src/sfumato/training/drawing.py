"""Pictures that a model draws while it is trained: for previews and for its judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sfumato.conditions.schema import Wish
from sfumato.data.dataset import DataSet
from sfumato.recipe import Recipe
from sfumato.runs import Run
from sfumato.training.crew import Crew
from sfumato.training.telling import Telling


@dataclass(frozen=True)
class Drawing:
    """A run that is going on, as a run to sample from: with the weights that its model has just now.

    data, telling: what it learns from and what it is told. `seed` is the run's. `stop`: whether the run was
    asked to end; one process alone then draws no further.
    """

    run: Run
    data: DataSet
    telling: Telling
    seed: int
    crew: Crew
    stop: Callable[[], bool]

    def known(self, rows: Sequence[int]) -> tuple[tuple[Wish, ...], Tensor | None]:
        """What is known of these rows of the data, and the pictures to show beside them."""
        return self.telling.known(self.data.take(rows), self.seed)

    def recipe(self, wishes: Sequence[Wish], **how: Any) -> Recipe:
        """One picture for each wish, `how` as in `Run.recipe`."""
        asked = {
            "classes": [wish.label for wish in wishes],
            "prompt": [wish.prompt for wish in wishes],
            "set": [wish.values for wish in wishes],
        }
        return self.run.recipe(len(wishes), **asked, **how)

    def pictures(self, recipe: Recipe, shown: Tensor | None = None) -> Iterator[Tensor]:
        """The recipe's pictures batch by batch, (B, C, H, W) on the model's device; `shown` are those that it
        is shown, one each. Fewer where the run is asked to stop."""
        first = 0
        for part in recipe.parts():
            last = first + len(part.seeds)
            x: Tensor | None = None
            for step in self.run.walk(part, None if shown is None else shown[first:last]):
                if self.crew.size == 1 and self.stop():
                    return
                x = step.x
            if x is not None:
                yield x
            first = last
