"""Changing a picture by its condition, with or without prompt-to-prompt; see `editing.prompt_to_prompt`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato.cli.edits.easel import Easel, Result
from sfumato.cli.edits.starts import bench_of, conditional, numbers
from sfumato.cli.edits.was import Was, taken_back
from sfumato.conditions.schema import Wish
from sfumato.conditions.tokens import Tokenizer
from sfumato.denoiser import Denoiser
from sfumato.editing.first_steps import FirstSteps
from sfumato.editing.invert import Unseen
from sfumato.editing.job import Bench, Job
from sfumato.editing.prompt_to_prompt import PromptToPrompt, Words, both, weighed, words
from sfumato.errors import SettingsError
from sfumato.guidance.bound import Clipped
from sfumato.guidance.mix import classifier_free
from sfumato.level import Levels
from sfumato.noise import Noise
from sfumato.plans import descend


@dataclass(frozen=True)
class Change:
    """What was asked for; see `cli.edits.attributes.change`."""

    strength: float
    was: Was
    keep_words: float
    keep_places: float
    weigh: tuple[str, ...]

    def drawn(self, easel: Easel) -> Result:
        """The picture, changed."""
        return Result(torch.cat([self._part(easel, bench_of(easel, part)) for part in easel.recipe.parts()]))

    def _part(self, easel: Easel, b: Bench) -> Tensor:
        x, levels = taken_back(easel, b, b.run.denoiser(self.was.recipe(b)), self.strength)
        if not (self.keep_words or self.keep_places or self.weigh):
            return b.finished(Job(b.denoise, x, descend(levels)))
        rows = range(len(x))
        two = replace(b, recipe=b.recipe.take([*rows, *rows]), noise=Noise(2 * b.noise.seeds))
        return two.finished(both(Unseen(self._guided(b, two, levels)), x, levels))

    def _guided(self, b: Bench, two: Bench, levels: Levels) -> Denoiser:
        """The pairs inside the recipe's guidance and bound."""
        old, new = (conditional(b, one.wishes()) for one in (self.was.recipe(b), b.recipe))
        share = self.keep_words or (1.0 if self.weigh else 0.0)
        cross, places = FirstSteps.of(levels, share), FirstSteps.of(levels, self.keep_places)
        denoise: Denoiser = PromptToPrompt(old, new, self._words(b), cross, places)
        if b.recipe.guidance != 1:
            said = two.recipe.negatives or (None,) * len(two.recipe.seeds)
            nothing = conditional(b, [Wish(prompt=negative) for negative in said])
            denoise = classifier_free(denoise, nothing, b.recipe.guidance)
        image = b.run.card.image
        return Clipped(denoise, image.low, image.high) if b.recipe.clip else denoise

    def _words(self, b: Bench) -> Words | None:
        """The two captions, word by word. Raises SettingsError for a model that does not read words."""
        if not (self.keep_words or self.weigh):
            return None
        text, now = b.run.conditions.text, (b.recipe.prompts or (None,))[0]
        if not isinstance(text, Tokenizer) or now is None:
            raise SettingsError(
                "--keep-words and --weigh are about the words of a --prompt: they need one, and a model with "
                "a text encoder of its own"
            )
        old, new = text.rows([self.was.prompt or now, now]).tolist()
        aligned = words(old, new)
        for said in self.weigh:
            word, _, factor = said.rpartition("=")
            at = places_of(text, word, now)
            aligned = weighed(aligned, at, numbers(factor, "--weigh")[0])
        return aligned


def places_of(text: Tokenizer, word: str, prompt: str) -> list[int]:
    """Where a word's tokens stand in the row of a prompt. Raises SettingsError where they do not."""
    tokens, said = text.encode(word), text.encode(prompt)[: text.length - 2]
    for start in range(len(said) - len(tokens) + 1):
        if tokens and said[start : start + len(tokens)] == tokens:
            return list(range(start + 1, start + 1 + len(tokens)))
    raise SettingsError(f"--weigh {word!r}: the prompt {prompt!r} does not hold this word")
