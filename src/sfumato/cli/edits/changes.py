"""Changing a picture by its condition, with or without prompt-to-prompt; see `editing.prompt_to_prompt`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato.cli.edits.easel import Easel, Result
from sfumato.cli.edits.starts import bench_of, conditional
from sfumato.cli.edits.was import Was, taken_back
from sfumato.conditions.attributes import number
from sfumato.conditions.tokens import Tokenizer
from sfumato.denoiser import Denoiser
from sfumato.editing.first_steps import FirstSteps, check_share
from sfumato.editing.invert import Unseen
from sfumato.editing.job import Bench, Job
from sfumato.editing.local_blend import LocalBlend, Places
from sfumato.editing.prompt_to_prompt import PromptToPrompt, Words, both, weighed, words
from sfumato.errors import SettingsError
from sfumato.level import Levels
from sfumato.noise import Noise
from sfumato.plans import descend
from sfumato.runs import Recipe


@dataclass(frozen=True)
class Change:
    """What was asked for; see `cli.edits.attributes.change`."""

    strength: float
    was: Was
    keep_words: float
    keep_places: float
    weigh: tuple[str, ...]
    keep_rest: float | None = None

    def __post_init__(self) -> None:
        check_share(self.keep_words, "--keep-words")
        check_share(self.keep_places, "--keep-places")
        if self.keep_rest is not None and not 0 <= self.keep_rest < 1:
            raise SettingsError(f"--keep-rest {self.keep_rest:g}: give a share from 0 to below 1, as 0.3")
        for one in self.weigh:
            factor_of(one)

    def drawn(self, easel: Easel) -> Result:
        """The picture, changed. Raises SettingsError where nothing is said of what it was or shall be."""
        if not (self.was.told or easel.conditioned):
            raise SettingsError("change into what? Say it with --class, --set or --prompt")
        if self._paired and easel.recipe.also:
            raise SettingsError(
                "--keep-words, --keep-places, --keep-rest and --weigh are about one prompt: leave --and and "
                "--not out"
            )
        words = self._words(easel)
        parts = [self._part(easel, bench_of(easel, part), words) for part in easel.recipe.parts()]
        return Result(torch.cat(parts))

    @property
    def _paired(self) -> bool:
        """Whether the picture as it was is drawn beside the new one."""
        return bool(self.keep_words or self.keep_places or self.weigh) or self.keep_rest is not None

    def _part(self, easel: Easel, b: Bench, words: Words | None) -> Tensor:
        was = self.was.recipe(b)
        x, levels = taken_back(easel, b, b.run.denoiser(was), self.strength)
        if not self._paired:
            return b.finished(Job(b.denoise, x, descend(levels)))
        pair = both_of(was, b.recipe)
        two = replace(b, recipe=pair, noise=Noise(pair.seeds))
        return two.finished(both(Unseen(self._pairs(b, was, pair, levels, words)), x, levels))

    def _pairs(self, b: Bench, was: Recipe, pair: Recipe, levels: Levels, words: Words | None) -> Denoiser:
        """The pairs inside the recipe's guidance and bound."""
        share = self.keep_words or (1.0 if self.weigh else 0.0)
        local = None
        if words is not None and self.keep_rest is not None:
            local = Places(words.gone, self.keep_rest), Places(words.come, self.keep_rest)
        pairs = PromptToPrompt(
            conditional(b, was.wishes()),
            conditional(b, b.recipe.wishes()),
            words,
            FirstSteps.of(levels, share),
            FirstSteps.of(levels, self.keep_places),
            local,
        )
        guided = b.run.denoiser(pair, told_all=pairs)
        return guided if local is None else LocalBlend(guided, *local)

    def _words(self, easel: Easel) -> Words | None:
        """The two captions, word by word. Raises SettingsError for a model that does not read words."""
        if not (self.keep_words or self.weigh or self.keep_rest is not None):
            return None
        text, now = easel.run.conditions.text, (easel.recipe.prompts or (None,))[0]
        if not isinstance(text, Tokenizer) or now is None:
            raise SettingsError(
                "--keep-words, --keep-rest and --weigh are about the words of a --prompt: they need one, and "
                "a model with a text encoder of its own"
            )
        old, new = text.rows([self.was.prompt or now, now]).tolist()
        aligned = words(old, new)
        for said in self.weigh:
            word, factor = factor_of(said)
            aligned = weighed(aligned, places_of(text, word, now), factor)
        return aligned


def factor_of(said: str) -> tuple[str, float]:
    """ "red=2": the word, and how many times it counts. Raises SettingsError."""
    word, _, factor = said.rpartition("=")
    times = number(factor)
    if not word or times is None:
        raise SettingsError(f"--weigh {said!r}: say it as WORD=NUMBER, as in {word or said}=2")
    return word, times


def both_of(old: Recipe, new: Recipe) -> Recipe:
    """The recipe of pairs: the pictures of the one, then those of the other, which says all else."""
    n = len(new.seeds)
    nobody: tuple[None, ...] = (None,) * n
    after = lambda a, b: None if a is None and b is None else (*(a or nobody), *(b or nobody))
    pair = new.take([*range(n), *range(n)])
    judged, pulled = pair.judged, pair.pulled
    if judged is not None:
        first = (nobody, nobody) if old.judged is None else (old.judged.classes, old.judged.names)
        judged = replace(
            judged, classes=(*first[0], *judged.classes[n:]), names=(*first[1], *judged.names[n:])
        )
    if pulled is not None:
        texts = ("",) * n if old.pulled is None else old.pulled.texts
        pulled = replace(pulled, texts=(*texts, *pulled.texts[n:]))
    return replace(
        pair,
        classes=after(old.classes, new.classes),
        prompts=after(old.prompts, new.prompts),
        negatives=after(old.negatives, new.negatives),
        values=after(old.values, new.values),
        judged=judged,
        pulled=pulled,
    )


def places_of(text: Tokenizer, word: str, prompt: str) -> list[int]:
    """Where a word's tokens stand in the row of a prompt. Raises SettingsError where they do not."""
    tokens, said = text.encode(word), text.encode(prompt)[: text.length - 2]
    for start in range(len(said) - len(tokens) + 1):
        if tokens and said[start : start + len(tokens)] == tokens:
            return list(range(start + 1, start + 1 + len(tokens)))
    raise SettingsError(f"--weigh {word!r}: the prompt {prompt!r} does not hold this word")
