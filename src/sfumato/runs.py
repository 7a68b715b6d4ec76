"""Runs: a folder that is a model, opened to sample.

    run = sfumato.load("runs/digits")
    pictures = run.sample(10, classes=list(range(10)))        # (10, 1, 28, 28) in [-1, 1]

What a picture is made of is a `Recipe`: a value that goes into the picture's file, so that it can be made
again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.card import Card
from sfumato.conditions.also import Also, joined
from sfumato.conditions.attributes import Said
from sfumato.conditions.classes import Asked
from sfumato.conditions.schema import Conditions, Reader
from sfumato.data.bundled import called, model_path
from sfumato.denoiser import Denoiser
from sfumato.errors import RunError, SettingsError
from sfumato.folders.run import open_folder, save
from sfumato.guidance.bound import check_threshold
from sfumato.guidance.rescale import check_rescale
from sfumato.guided import Scale, check_told, clips, denoiser, interval_of, scales_of
from sfumato.guides.beside import named_clip, named_weaker
from sfumato.guides.classifier import Judged, judged
from sfumato.guides.clip import Pull
from sfumato.model import Model
from sfumato.noise import Noise
from sfumato.recipe import MOST, Recipe, at_least, some, spread
from sfumato.samplers import Walker, usual_steps
from sfumato.sampling import Step, looked, prior
from sfumato.solvers.fresh import LearnedVariance
from sfumato.solvers.moves import Move
from sfumato.training.device import choose_device

log = logging.getLogger(__name__)

__all__ = ["MOST", "Recipe", "Run", "load", "save"]


@dataclass(frozen=True)
class Run:
    """An opened run. The model never changes, so several threads may sample from it at once."""

    path: Path
    card: Card
    model: Model
    device: torch.device
    weights: str
    sha256: str
    """Of the weights."""
    text: Reader | None = None
    """What reads captions, of a model that is told them."""

    @property
    def name(self) -> str:
        """What a command is given to mean it: a bundled model's name, or the folder."""
        return called(self.path)

    @property
    def conditions(self) -> Conditions:
        """What the model can be told."""
        return self.card.conditions(self.text)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, () if the model has none."""
        return self.card.classes or ()

    def recipe(
        self,
        n: int | None = None,
        *,
        classes: Asked | Sequence[Asked | None] | None = None,
        prompt: str | Sequence[str | None] | None = None,
        negative: str | Sequence[str | None] | None = None,
        set: Mapping[str, Said | None] | Sequence[Mapping[str, Said | None]] | None = None,
        also: Sequence[Also] = (),
        steps: int | None = None,
        sampler: str | Walker | None = None,
        eta: float | int | None = None,
        tolerance: float | int | None = None,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        guidance: Scale | None = None,
        interval: Sequence[float | int] | None = None,
        rescale: float | int = 0.0,
        threshold: float | int | None = None,
        classifier_guidance: float | int = 0.0,
        autoguide: Path | str | None = None,
        autoguide_scale: float | int = 2.0,
        autoguide_weights: str = "ema",
        clip_model: Path | str | None = None,
        clip_guidance: float | int = 1.0,
        cutouts: int = 0,
        clip: bool | None = None,
        batch: int = 64,
        one_by_one: bool = False,
    ) -> Recipe:
        """What `sample` would do: what is not said is taken from the card. Raises SettingsError.

        `classes`, `prompt`, `negative`, `set`: one for all, or one for each picture (None: not told); `also`
        is AND and NOT. Picture i has the seed `seed` + i, or `seeds[i]`. `guidance` is classifier-free, 1 the
        conditional model alone, or {"text": 5}, of single conditions; `interval` is where it guides, in
        sigma/alpha, `rescale` the share by which it keeps the contrast, `threshold` a quantile. `clip` keeps
        x0 in range. `classifier_guidance` is of the run's own classifier, `clip_guidance` of `clip_model`,
        `autoguide` a weaker run, or this one by `autoguide_weights`.
        """
        count, told = spread(n, seeds, classes=classes, prompts=prompt, negatives=negative, settings=set)
        judge, pulled = self._beside(told, count, classifier_guidance, (clip_model, clip_guidance, cutouts))
        try:
            wishes = self.conditions.asked(count, told["classes"], told["prompts"], told["settings"])
            negatives = [self.conditions.prompt(one) for one in told["negatives"] or ()]
        except SettingsError as error:
            raise SettingsError(f"{self.name}: {error}") from None
        own = self.card.sampler
        name, eta = (own.name, own.eta if eta is None else eta) if sampler is None else (sampler, eta)
        recipe = Recipe(
            seeds=tuple(seeds) if seeds is not None else tuple(range(seed, seed + count)),
            classes=None if self.card.classes is None else tuple(wish.label for wish in wishes),
            prompts=some(wish.prompt for wish in wishes),
            negatives=some(negatives),
            values=some(wish.values or None for wish in wishes),
            sampler=name,
            steps=steps,
            eta=None if eta is None else float(eta),
            guidance=1.0,
            interval=None if interval is None else interval_of(interval),
            rescale=float(rescale),
            threshold=None if threshold is None else float(threshold),
            judged=judge,
            weaker=named_weaker(autoguide, autoguide_scale, self.card, autoguide_weights),
            pulled=pulled,
            clip=clips(self.card.image, self.card.clip, clip),
            batch=at_least(1, batch, "the batch"),
            one_by_one=one_by_one,
            tolerance=None if tolerance is None else float(tolerance),
        ).paced(own.steps if name == own.name else usual_steps(name) or own.steps)
        return self._guided(self._drawable(recipe), guidance, also)

    def _beside(
        self,
        told: dict[str, list[Any] | None],
        n: int,
        scale: float | int,
        clip: tuple[Path | str | None, float | int, int],
    ) -> tuple[Judged | None, Pull | None]:
        """The run's classifier and a CLIP, where they guide. What the model itself knows nothing of, classes
        or captions, they alone are told."""
        shape, (folder, strength, cutouts) = self.card.image.shape, clip
        judge = judged(self.path, told["classes"] or [None] * n, scale, shape) if scale else None
        texts = told["prompts"] or [None] * n
        pulled = named_clip(folder, texts, strength, shape, cutouts)
        if judge is not None and self.card.classes is None:
            told["classes"] = None
        if pulled is not None and self.card.text is None:
            told["prompts"] = None
        return judge, pulled

    def _drawable(self, recipe: Recipe) -> Recipe:
        """The recipe, if this model can follow it."""
        if isinstance(recipe.how().fresh, LearnedVariance) and not self.card.learned_variance:
            raise SettingsError(
                f"{self.name}: this model has not learned the variance of its steps: use the sampler ddpm"
            )
        check_rescale(recipe.rescale)
        if recipe.threshold is not None:
            check_threshold(recipe.threshold)
        return recipe

    def _guided(self, recipe: Recipe, asked: Scale | None, also: Sequence[Also]) -> Recipe:
        """The recipe with its scales of guidance, and what stands beside its conditions."""
        conditions, n = self.conditions, len(recipe.seeds)
        known, others = {*conditions.names}, recipe.negatives or (None,) * n
        further = joined(conditions, also)
        able = bool(further) or all(
            bool(conditions.says(wish) & known) or other is not None
            for wish, other in zip(recipe.wishes(), others, strict=True)
        )
        common, named = scales_of(conditions, asked, self.card.sampler.guidance, able)
        check_told(conditions, recipe, further, named)
        if any(other is not None for other in others) and named.get("text", common) == 1:
            raise SettingsError("a negative prompt works through guidance: give a --guidance above 1")
        mixed = {common, *named.values()} != {1.0} or recipe.weaker is not None or further
        alone = recipe.interval is not None and recipe.judged is None and recipe.pulled is None
        if not mixed and (alone or recipe.rescale):
            raise SettingsError(
                "an interval and a rescale are of guidance: give a --guidance, or leave them out"
            )
        return replace(recipe, guidance=common, scales=named, also=further)

    def denoiser(
        self, recipe: Recipe, picture: Tensor | None = None, told_all: Denoiser | None = None
    ) -> Denoiser:
        """The model with the recipe's conditions, guidance and bound. `picture`, (B, C, H, W) or one for all,
        is the aligned picture that the model is shown; without it, none is. `told_all` is guided in place of
        the model that is told everything."""
        return denoiser(self.model, self.conditions, recipe, self.card.image, picture, self.device, told_all)

    def plan(self, recipe: Recipe) -> list[Move]:
        """The levels that the recipe visits, move by move."""
        return recipe.how().plan(self.model.schedule, recipe.steps)

    def make(self, recipe: Recipe, picture: Tensor | None = None) -> Tensor:
        """The recipe's pictures, (n, channels, height, width), float32 on the CPU, in the images' range.

        Each picture depends on its own seed and conditions alone: whatever the batch up to rounding (1e-5),
        and to the bit with `one_by_one`. `picture`, (n, C, H, W) or one for all, is what the model is shown.
        Raises SettingsError for a plan the model cannot follow, RunError for a picture that is not finite.
        """
        made: list[Tensor] = []
        for part in recipe.parts():
            at = sum(len(one) for one in made)
            own = picture if picture is None or len(picture) == 1 else picture[at : at + len(part.seeds)]
            made.append(self._made(part, own))
        return torch.cat(made)

    def _made(self, recipe: Recipe, picture: Tensor | None) -> Tensor:
        x, evaluations = torch.empty(0), None
        for step in self.walk(recipe, picture):
            x, evaluations = step.x, step.evaluations
        if evaluations is not None:
            log.info("%s", looked(evaluations))
        return self.finished(x, recipe)

    def finished(self, x: Tensor, recipe: Recipe) -> Tensor:
        """The end of a walk as pictures: on the CPU and within the images' range. Raises RunError for NaN."""
        whole = x.flatten(1).isfinite().all(dim=1)
        if not bool(whole.all()):
            seed = recipe.seeds[int((~whole).nonzero()[0])]
            raise RunError(
                f"{self.name}: the picture of seed {seed} is not finite: use more steps, another sampler "
                f"or less guidance"
            )
        return x.cpu().clamp(self.card.image.low, self.card.image.high)

    def walk(self, recipe: Recipe, picture: Tensor | None = None) -> Iterator[Step]:
        """The recipe's pictures step by step, all in one batch: for previews, films and early exits."""
        how, schedule, noise = recipe.how(), self.model.schedule, Noise(recipe.seeds)
        x = prior(how.start(schedule, recipe.steps), self.card.image.shape, noise).to(self.device)
        return how.walk(self.denoiser(recipe, picture), x, schedule, recipe.steps, noise)

    def sample(
        self,
        n: int | None = None,
        *,
        picture: Tensor | None = None,
        classes: Asked | Sequence[Asked | None] | None = None,
        prompt: str | Sequence[str | None] | None = None,
        negative: str | Sequence[str | None] | None = None,
        set: Mapping[str, Said | None] | Sequence[Mapping[str, Said | None]] | None = None,
        also: Sequence[Also] = (),
        steps: int | None = None,
        sampler: str | Walker | None = None,
        eta: float | int | None = None,
        tolerance: float | int | None = None,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        guidance: Scale | None = None,
        interval: Sequence[float | int] | None = None,
        rescale: float | int = 0.0,
        threshold: float | int | None = None,
        classifier_guidance: float | int = 0.0,
        autoguide: Path | str | None = None,
        autoguide_scale: float | int = 2.0,
        autoguide_weights: str = "ema",
        clip_model: Path | str | None = None,
        clip_guidance: float | int = 1.0,
        cutouts: int = 0,
        clip: bool | None = None,
        batch: int = 64,
        one_by_one: bool = False,
    ) -> Tensor:
        """n pictures (1, or as many as classes, prompts, settings or seeds): `make` of the `recipe` of these
        words."""
        recipe = self.recipe(
            n,
            classes=classes,
            prompt=prompt,
            negative=negative,
            set=set,
            also=also,
            steps=steps,
            sampler=sampler,
            eta=eta,
            tolerance=tolerance,
            seed=seed,
            seeds=seeds,
            guidance=guidance,
            interval=interval,
            rescale=rescale,
            threshold=threshold,
            classifier_guidance=classifier_guidance,
            autoguide=autoguide,
            autoguide_scale=autoguide_scale,
            autoguide_weights=autoguide_weights,
            clip_model=clip_model,
            clip_guidance=clip_guidance,
            cutouts=cutouts,
            clip=clip,
            batch=batch,
            one_by_one=one_by_one,
        )
        return self.make(recipe, picture)


def load(path: Path | str, device: str = "auto", weights: str = "ema") -> Run:
    """Opens a run folder, a model of the package by its name ("emoji"), or a folder that diffusers wrote, to
    sample from it; see `folders.run.open_folder`.

    Raises RunError, ModelFileError or SettingsError: one sentence that says what is wrong.
    """
    where, folder = choose_device(device), model_path(path)
    stored = open_folder(folder, weights)
    stored.model.to(where)
    return Run(folder, stored.card, stored.model, where, weights, stored.sha256, stored.text)
