"""Prompt-to-prompt: another caption, the same composition (Hertz et al. 2022).

Where a word is drawn stands in the maps of attention from the picture's places to the caption's tokens. Two
pictures are made side by side from the same noise, one by the old caption and one by the new, and for the
first share of the steps the new one looks where the old one looked: a word put in another's place inherits
its map, an added word has its own, and a word's map may be made stronger or weaker. The maps between the
places themselves may be kept as well, which also holds the shape of things where only a class changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.editing.first_steps import FirstSteps
from sfumato.editing.job import Job
from sfumato.editing.local_blend import Places
from sfumato.errors import SettingsError
from sfumato.level import Level, Levels
from sfumato.networks.probe import probing
from sfumato.plans import descend
from sfumato.predictions import Estimate


@dataclass(frozen=True, eq=False)
class Words:
    """How the tokens of an old caption stand for those of a new one.

    mapper: (N, M): the part of old token i's map that new token j is given. kept: (M,), 1 where the new map
    is such an old one, 0 where it stays the new one's own. weight: (M,), by which the maps are multiplied.
    gone: (N,) and come: (M,), 1 for the words of the one caption that are not in the other; what is weighed
    comes too.
    """

    mapper: Tensor
    kept: Tensor
    weight: Tensor
    gone: Tensor
    come: Tensor

    def edited(self, old: Tensor, new: Tensor) -> Tensor:
        """The new caption's maps (B, heads, T, M) where the old one's are (B, heads, T, N): equations of
        section 3.2 of the paper, all three at once. As there, rows need not add up to 1 afterwards."""
        kept, weight, mapper = (value.to(new) for value in (self.kept, self.weight, self.mapper))
        return weight * (kept * (old @ mapper) + (1 - kept) * new)


def words(old: Sequence[int], new: Sequence[int]) -> Words:
    """The tokens of two captions, as rows of equal length, aligned.

    What is in both keeps its map. A stretch in another's place shares its maps: one by one if both are
    equally long, else each old map is spread evenly over the new stretch. What is added keeps its own. The
    last token, which also fills the rows, is no word.
    """
    mapper, kept = torch.zeros(len(old), len(new)), torch.zeros(len(new))
    gone, come = (torch.tensor([float(token != row[-1]) for token in row]) for row in (old, new))
    for kind, i, i_end, j, j_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            gone[i:i_end], come[j:j_end] = 0, 0
        if kind not in ("equal", "replace"):
            continue
        if i_end - i == j_end - j:
            mapper[range(i, i_end), range(j, j_end)] = 1
        else:
            mapper[i:i_end, j:j_end] = 1 / (j_end - j)
        kept[j:j_end] = 1
    return Words(mapper, kept, torch.ones(len(new)), gone, come)


def weighed(aligned: Words, tokens: Sequence[int], factor: float | int) -> Words:
    """The same with the maps of some of the new caption's tokens, by their places, times a factor."""
    weight, come = aligned.weight.clone(), aligned.come.clone()
    weight[list(tokens)] *= factor
    come[list(tokens)] = 1
    return replace(aligned, weight=weight, come=come)


@dataclass(frozen=True, eq=False)
class _Old:
    """The probe that keeps the maps of the old picture, in the order in which the network meets them."""

    places: tuple[str, ...]
    maps: list[Tensor]

    def __call__(self, place: str, value: Tensor) -> Tensor:
        self.maps.append(value)
        return value


@dataclass(frozen=True, eq=False)
class _New:
    """The probe that shows the new picture where the old one looked; its maps to words that it is not shown
    by stay its own. Both pictures' maps to words are `heard`."""

    places: tuple[str, ...]
    words: Words | None
    maps: Iterator[Tensor]
    heard: Callable[[Tensor, Tensor], None]

    def __call__(self, place: str, value: Tensor) -> Tensor:
        old = next(self.maps)
        if place == "self":
            return old
        new = value if self.words is None else self.words.edited(old, value)
        self.heard(old, new)
        return new


@dataclass(frozen=True, eq=False)
class PromptToPrompt:
    """A denoiser of pairs, rows 0 .. B-1 by `old` and rows B .. 2B-1 by `new`, of one network.

    cross: while it holds, the new maps to the caption follow `words`. places: while it holds, the new maps
    between the places are the old ones. local: where the words that are gone and come are, for a
    `LocalBlend` around it. It goes inside guidance, around the conditional denoisers. Raises SettingsError
    for an odd batch.
    """

    old: Denoiser
    new: Denoiser
    words: Words | None
    cross: FirstSteps
    places: FirstSteps
    local: tuple[Places, Places] | None = None

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        if len(x) % 2 or level.alpha.ndim:
            raise SettingsError(f"prompt-to-prompt makes pairs at one level: {len(x)} rows are no pairs")
        words = self.words if self.cross.holds(level) else None
        crossed = words is not None or self.local is not None
        watched = (*(["cross"] if crossed else []), *(["self"] if self.places.holds(level) else []))
        maps: list[Tensor] = []

        def heard(*looks: Tensor) -> None:
            for place, look in zip(self.local or (), looks):
                place.hear(look.detach(), (x.shape[-2], x.shape[-1]))

        old, new = x.chunk(2)
        before = [None, None] if seen is None else [_half(seen, i) for i in range(2)]
        with probing(_Old(watched, maps)):
            first = self.old(old, level, before[0])
        with probing(_New(watched, words, iter(maps), heard)):
            second = self.new(new, level, before[1])
        return Estimate.of(x, level, x0=torch.cat([first.x0, second.x0]))

    def take(self, rows: Sequence[int]) -> PromptToPrompt:
        """For whole pairs: some rows of the first half, then the same of the second."""
        half = list(rows[: len(rows) // 2])
        return replace(self, old=self.old.take(half), new=self.new.take(half))

    def check(self, level: Level) -> None:
        self.old.check(level)
        self.new.check(level)


def _half(seen: Estimate, which: int) -> Estimate:
    x, x0 = seen.x.chunk(2)[which], seen.x0.chunk(2)[which]
    return Estimate.of(x, seen.level, x0=x0)


def both(pairs: Denoiser, x: Tensor, levels: Levels) -> Job:
    """Makes both pictures of each pair from the noise x (B, C, H, W) and keeps the new ones."""
    return Job(pairs, torch.cat([x, x]), descend(levels), finish=lambda made: made.chunk(2)[1])
