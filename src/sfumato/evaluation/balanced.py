"""Balanced sampling: as many pictures of every class from a model that makes some of them rarely.

The model draws, the run's classifier (`sfumato train-classifier`) says what each picture is, and surplus ones
are left out: rejection sampling, which changes the shares of the classes and nothing within a class, as far
as the classifier is right. What is kept is a list of seeds, so each picture is the one that its seed gives
anyway, and can be made again from its file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from sfumato.data.ingest import Progress
from sfumato.errors import RunError, SettingsError
from sfumato.evaluation.shares import Share
from sfumato.folders.classifier import StoredClassifier
from sfumato.guidance.classifier import logits
from sfumato.guides.classifier import opened
from sfumato.level import CLEAN
from sfumato.runs import MOST, Recipe, Run

SURE = 0.5
"""A picture counts as of a class that is at least this probable: likelier than all others together."""
SURPLUS = 50
"""So many times what is wanted is drawn before it is given up."""


@dataclass(frozen=True)
class Balanced:
    """recipe: of the pictures that are kept, class by class, `each` of every class of `names`. found: how
    many pictures of each class were drawn, the surplus included; unsure: how many were of none."""

    recipe: Recipe
    names: tuple[str, ...]
    each: int
    found: tuple[int, ...]
    unsure: int

    @property
    def classes(self) -> tuple[int, ...]:
        """Of the recipe's pictures, as the classifier judges."""
        return tuple(i for i in range(len(self.names)) for _ in range(self.each))

    def lines(self) -> Iterator[str]:
        """For people: what was drawn for it."""
        drawn = sum(self.found) + self.unsure
        yield f"kept {self.each} of each class of {drawn:,} drawn; the classifier found among these"
        for name, count in zip(self.names, self.found, strict=True):
            yield f"  {name[:24]:<24}{count:>7}  {Share(count, drawn)}"
        if self.unsure:
            yield f"  {'of none, surely':<24}{self.unsure:>7}  {Share(self.unsure, drawn)}"


def balanced(run: Run, recipe: Recipe, each: int, told: Progress | None = None) -> Balanced:
    """`each` pictures of every class that the run's classifier knows, like the recipe's first picture, with
    its seed and those that follow.

    told: (kept, wanted) on the way. Raises RunError for a run without a classifier, SettingsError where a
    class is not found often enough among 50 times as many pictures as are wanted.
    """
    stored = _classifier(run)
    names = stored.card.classes
    if not 1 <= each <= MOST // len(names) // SURPLUS:
        raise SettingsError(f"-n {each}: give a number from 1 to {MOST // len(names) // SURPLUS:,}")
    kept: list[list[int]] = [[] for _ in names]
    found, unsure, seed = [0] * len(names), 0, recipe.seeds[0]
    wanted, end = each * len(names), seed + SURPLUS * each * len(names)
    while sum(map(len, kept)) < wanted:
        if seed >= end:
            _give_up(run, names, found, each, end - recipe.seeds[0])
        part = _of_seeds(recipe, range(seed, min(seed + recipe.batch, end)))
        for one, label in zip(part.seeds, _judged(run, stored, part), strict=True):
            unsure += label is None
            if label is not None:
                found[label] += 1
                kept[label] += [one] if len(kept[label]) < each else []
        seed = part.seeds[-1] + 1
        if told is not None:
            told(sum(map(len, kept)), wanted)
    seeds = [one for group in kept for one in group]
    return Balanced(_of_seeds(recipe, seeds), names, each, tuple(found), unsure)


def _classifier(run: Run) -> StoredClassifier:
    stored = opened(run.path, run.device)
    if stored.card.image.shape != run.card.image.shape or (run.card.image.low, run.card.image.high) != (
        -1,
        1,
    ):
        raise RunError(f"{run.name}: its classifier judges other pictures than it makes: train it again")
    return stored


def _of_seeds(recipe: Recipe, seeds: Sequence[int]) -> Recipe:
    """The recipe's first picture with these seeds."""
    return replace(recipe.take([0] * len(seeds)), seeds=tuple(seeds))


@torch.no_grad()
def _judged(run: Run, stored: StoredClassifier, recipe: Recipe) -> list[int | None]:
    """The class of each of the recipe's pictures, None where the classifier is not sure."""
    pictures = run.make(recipe).to(run.device)
    probable = logits(stored.network, pictures, CLEAN).softmax(1).cpu()
    best, labels = probable.max(1)
    return [label if sure >= SURE else None for label, sure in zip(labels.tolist(), best.tolist())]


def _give_up(run: Run, names: Sequence[str], found: Sequence[int], each: int, drawn: int) -> None:
    rare = ", ".join(f"{count} of {name}" for name, count in zip(names, found) if count < each)
    raise SettingsError(
        f"{run.name}: among {drawn:,} pictures its classifier finds only {rare}, not {each}: ask for fewer "
        "with -n, or train the classifier on balanced classes (sfumato train-classifier --balance 0)"
    )
