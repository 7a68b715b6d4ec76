"""A recipe: everything that a set of pictures follows from, beside the model. It is plain JSON at heart, goes
into the pictures' files, and makes them again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from sfumato.conditions.also import Also
from sfumato.conditions.attributes import Value
from sfumato.conditions.schema import Wish
from sfumato.errors import SettingsError
from sfumato.guides.classifier import Judged
from sfumato.guides.clip import Pull
from sfumato.guides.weaker import Weaker
from sfumato.noise import whole
from sfumato.samplers import Adaptive, Walker, sampler

T = TypeVar("T")
MOST = 1_000_000
"""The most pictures of one recipe."""


@dataclass(frozen=True)
class Recipe:
    """One seed for each picture, and one class, prompt and set of attributes where the model is told them.

    Entry i of `classes`, `prompts`, `negatives` and `values` is of picture i: None, or a name that is not
    there, is not told. `also`, AND and NOT, is told of all of them. `guidance` is the scale of all conditions
    but a picture, `scales` those of some by name in its place. `interval` is where it guides, low <
    sigma/alpha <= high. `rescale` and `threshold` hold back what strong guidance overdoes (see
    `guidance.rescale` and `guidance.bound`). `judged` and `weaker` guide by the run's classifier and by a
    weaker run, `pulled` by a CLIP.
    """

    seeds: tuple[int, ...]
    classes: tuple[int | None, ...] | None
    sampler: str | Walker
    steps: int | None
    """None where the sampler chooses them on the way."""
    eta: float | None
    guidance: float
    clip: bool
    batch: int = 64
    one_by_one: bool = False
    tolerance: float | None = None
    """Of an adaptive sampler."""
    prompts: tuple[str | None, ...] | None = None
    negatives: tuple[str | None, ...] | None = None
    values: tuple[Mapping[str, Value] | None, ...] | None = None
    also: tuple[Also, ...] = ()
    scales: Mapping[str, float] = field(default_factory=dict)
    interval: tuple[float, float] | None = None
    rescale: float = 0.0
    threshold: float | None = None
    judged: Judged | None = None
    weaker: Weaker | None = None
    pulled: Pull | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", tuple(whole(seed) for seed in self.seeds))
        if any(not -(2**63) <= seed < 2**63 for seed in self.seeds):
            raise SettingsError("seeds are whole numbers of at most 63 bits: give a smaller one")

    def how(self) -> Walker:
        """The sampler itself."""
        if isinstance(self.sampler, str):
            return sampler(self.sampler, self.eta, self.tolerance)
        if self.eta is not None or self.tolerance is not None:
            raise SettingsError(
                "eta and tolerance go with a sampler by name: a Sampler object says itself how much noise is "
                "new, an Adaptive one its tolerance"
            )
        return self.sampler

    def paced(self, steps: int) -> Recipe:
        """The same with its steps, these if it does not say; an adaptive sampler's with its tolerance."""
        how = self.how()
        if not isinstance(how, Adaptive):
            return replace(self, steps=at_least(1, steps if self.steps is None else self.steps, "steps"))
        if self.steps is not None:
            raise SettingsError(
                f"{self.steps} steps: an adaptive sampler chooses its own: leave --steps out, and say how "
                f"exact the pictures should be by --tolerance"
            )
        return replace(self, tolerance=how.tolerance) if isinstance(self.sampler, str) else self

    def wishes(self) -> tuple[Wish, ...]:
        """What is told of each picture."""
        n = len(self.seeds)
        nobody: tuple[None, ...] = (None,) * n
        each = zip(self.classes or nobody, self.values or nobody, self.prompts or nobody, strict=True)
        return tuple(Wish(label, values or {}, prompt) for label, values, prompt in each)

    def mark(self, *more: object) -> str:
        """Eight letters that tell this recipe, and whatever else is said, from any other, for the names of
        files; how it is cut into batches does not count."""
        said = repr((replace(self, batch=1, one_by_one=False), more))
        return hashlib.sha256(said.encode()).hexdigest()[:8]

    def parts(self) -> Iterator[Recipe]:
        """The batches, each a recipe of its own."""
        size = 1 if self.one_by_one else self.batch
        for start in range(0, len(self.seeds), size):
            yield self.take(range(start, min(start + size, len(self.seeds))))

    def take(self, rows: Sequence[int]) -> Recipe:
        """The recipe of some of the pictures."""
        return replace(
            self,
            seeds=tuple(self.seeds[row] for row in rows),
            classes=None if self.classes is None else tuple(self.classes[row] for row in rows),
            prompts=None if self.prompts is None else tuple(self.prompts[row] for row in rows),
            negatives=None if self.negatives is None else tuple(self.negatives[row] for row in rows),
            values=None if self.values is None else tuple(self.values[row] for row in rows),
            judged=None if self.judged is None else self.judged.take(rows),
            pulled=None if self.pulled is None else self.pulled.take(rows),
        )


def at_least(least: int, value: int, what: str) -> int:
    """The value. Raises SettingsError for one that is too small."""
    if value < least:
        raise SettingsError(f"{what} cannot be {value}: give a whole number from {least}")
    return value


def spread(
    n: int | None, seeds: Sequence[int] | None, **said: object
) -> tuple[int, dict[str, list[Any] | None]]:
    """How many pictures are asked for, and what is said of each of them: None where nothing is said.

    A text, a number or a table is said of all; any other sequence of each. Raises SettingsError where lengths
    do not agree.
    """
    listed: dict[str, list[Any] | None] = {
        what: list(value)
        for what, value in said.items()
        if isinstance(value, Sequence) and not isinstance(value, str)
    }
    counts = {what: len(value) for what, value in listed.items() if value is not None}
    counts |= {
        what: k for what, k in (("n", n), ("seeds", None if seeds is None else len(seeds))) if k is not None
    }
    if len({*counts.values()}) > 1:
        words = ", ".join(f"{what}: {k}" for what, k in counts.items())
        raise SettingsError(
            f"how many pictures? they do not agree ({words}): give one of each for every picture"
        )
    count = next(iter(counts.values()), 1)
    if not 1 <= count <= MOST:
        raise SettingsError(f"{count} pictures: give a number from 1 to {MOST:,}")
    every: dict[str, list[Any] | None] = {
        what: None if value is None else [value] * count for what, value in said.items()
    }
    return count, every | listed


def some(said: Iterable[T | None]) -> tuple[T | None, ...] | None:
    """All of it, or None where nothing is said of any picture."""
    held = tuple(said)
    return held if any(one is not None for one in held) else None
