"""What the pictures of a tuning are told, and drawing them by any sampler from the same noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from sfumato.conditions.attributes import Said
from sfumato.conditions.classes import Asked as AskedClass
from sfumato.conditions.schema import Wish
from sfumato.data.dataset import DataSet
from sfumato.errors import RunError, SettingsError
from sfumato.guided import Scale
from sfumato.noise import permutation
from sfumato.runs import Recipe, Run
from sfumato.tuning.candidates import Candidate


@dataclass(frozen=True)
class Asked:
    """Picture i has the seed `seed` + i and is told entry i of `wishes`, over and over. `guidance` None is
    the run's own."""

    run: Run
    wishes: tuple[Wish, ...] = (Wish(),)
    guidance: Scale | None = None
    seed: int = 0
    batch: int = 64

    def recipe(self, candidate: Candidate, steps: int, rows: range) -> Recipe:
        """How these pictures are made by a candidate."""
        wishes = [self.wishes[row % len(self.wishes)] for row in rows]
        return self.run.recipe(
            len(rows),
            classes=[wish.label for wish in wishes],
            prompt=[wish.prompt for wish in wishes],
            set=[wish.values for wish in wishes],
            seeds=[self.seed + row for row in rows],
            sampler=candidate.name,
            eta=candidate.eta,
            steps=steps,
            guidance=self.guidance,
            batch=self.batch,
        )

    def pictures(self, candidate: Candidate, steps: int, rows: range) -> Tensor | None:
        """The pictures, (n, C, H, W) in the images' range; None where one of them is not finite."""
        try:
            return self.run.make(self.recipe(candidate, steps, rows))
        except RunError:
            return None


def wishes_of(
    run: Run,
    classes: Sequence[AskedClass] = (),
    prompts: Sequence[str] = (),
    values: Mapping[str, Said | None] | None = None,
) -> tuple[Wish, ...]:
    """What a user asks for, in turns: each class with each prompt. Without classes, all of the model's.

    Raises SettingsError for what the model cannot be told.
    """
    every: list[AskedClass | None] = [*classes] or [*range(len(run.classes))] or [None]
    pairs = [(label, prompt) for prompt in (list(prompts) or [None]) for label in every]
    return run.conditions.asked(
        len(pairs),
        [label for label, _ in pairs],
        [prompt for _, prompt in pairs] if prompts else None,
        [values] * len(pairs) if values else None,
    )


def of_data(run: Run, data: DataSet, most: int, seed: int) -> tuple[Tensor, tuple[Wish, ...]]:
    """At most so many pictures of a data set, drawn by the seed, (n, C, H, W) in the images' range, and what
    is known of each. Raises SettingsError for pictures or classes that are not the run's."""
    image = run.card.image
    if data.shape != image.shape:
        raise SettingsError(f"{data.name}: pictures of {data.shape} for a run of {image.shape}")
    if run.card.classes is not None and data.label_names != run.card.classes:
        raise SettingsError(f"{data.name}: its classes are not those that {run.name} was trained on")
    every = [*data.train.tolist(), *data.held.tolist()]
    rows = [every[i] for i in islice(permutation(len(every), seed, "tuning").tolist(), most)]
    unit = data.images(rows)
    return image.low + (unit + 1) / 2 * (image.high - image.low), run.conditions.wishes(data.take(rows))
