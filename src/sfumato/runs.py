"""Runs: a folder that is a model, opened to sample.

    run = sfumato.load("runs/digits")
    pictures = run.sample(10, classes=list(range(10)))        # (10, 1, 28, 28) in [-1, 1]

What a picture is made of is a `Recipe`: a value that goes into the picture's file, so that it can be made
again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sfumato.card import Card
from sfumato.conditions.classes import Asked, Classes
from sfumato.denoiser import Denoiser
from sfumato.errors import RunError, SettingsError
from sfumato.guidance.bound import Clipped
from sfumato.guidance.mix import classifier_free
from sfumato.model import Model
from sfumato.noise import Noise
from sfumato.run_folder import open_folder, save
from sfumato.samplers import Adaptive, Walker, sampler, usual_steps
from sfumato.sampling import Step, prior
from sfumato.solvers.fresh import LearnedVariance
from sfumato.solvers.moves import Move
from sfumato.training.device import choose_device

log = logging.getLogger(__name__)

__all__ = ["Recipe", "Run", "load", "save"]

MOST = 1_000_000
"""The most pictures of one recipe."""


@dataclass(frozen=True)
class Recipe:
    """Everything that a set of pictures follows from, beside the model: one seed and one class for each."""

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
            return replace(self, steps=_at_least(1, steps if self.steps is None else self.steps, "steps"))
        if self.steps is not None:
            raise SettingsError(
                f"{self.steps} steps: an adaptive sampler chooses its own: leave --steps out, and say how "
                f"exact the pictures should be by --tolerance"
            )
        return replace(self, tolerance=how.tolerance) if isinstance(self.sampler, str) else self

    def parts(self) -> Iterator[Recipe]:
        """The batches, each a recipe of its own."""
        size = 1 if self.one_by_one else self.batch
        for start in range(0, len(self.seeds), size):
            yield self.take(range(start, min(start + size, len(self.seeds))))

    def take(self, rows: Sequence[int]) -> Recipe:
        """The recipe of some of the pictures."""
        classes = None if self.classes is None else tuple(self.classes[row] for row in rows)
        return replace(self, seeds=tuple(self.seeds[row] for row in rows), classes=classes)


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

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, () if the model has none."""
        return self.card.classes or ()

    def recipe(
        self,
        n: int | None = None,
        *,
        classes: Asked | Sequence[Asked | None] | None = None,
        steps: int | None = None,
        sampler: str | Walker | None = None,
        eta: float | int | None = None,
        tolerance: float | int | None = None,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        guidance: float | int | None = None,
        clip: bool | None = None,
        batch: int = 64,
        one_by_one: bool = False,
    ) -> Recipe:
        """What `sample` would do: what is not said is taken from the card. Raises SettingsError.

        `classes`: one for all, or one for each picture (None: "no class"). Picture i has the seed `seed` + i,
        or `seeds[i]`. `guidance` is classifier-free guidance's scale: 1 is the conditional model alone.
        `clip` keeps every x0-estimate in the images' range. `tolerance` goes with adaptive samplers, `steps`
        with all others.
        """
        each = None if classes is None or isinstance(classes, int | str) else list(classes)
        one = classes if classes is None or isinstance(classes, int | str) else None
        count = _count(n, None if each is None else len(each), None if seeds is None else len(seeds))
        own = self.card.sampler
        name = own.name if sampler is None else sampler
        recipe = Recipe(
            seeds=tuple(seeds) if seeds is not None else tuple(range(seed, seed + count)),
            classes=self._classes([one] * count if each is None else each),
            sampler=name,
            steps=steps,
            eta=None if eta is None else float(eta),
            guidance=1.0,
            clip=self._clip(clip),
            batch=_at_least(1, batch, "the batch"),
            one_by_one=one_by_one,
            tolerance=None if tolerance is None else float(tolerance),
        ).paced(own.steps if name == own.name else usual_steps(name) or own.steps)
        if isinstance(recipe.how().fresh, LearnedVariance) and not self.card.learned_variance:
            raise SettingsError(
                f"{self.path}: this model has not learned the variance of its steps: use the sampler ddpm"
            )
        if any(not -(2**63) <= s < 2**63 for s in recipe.seeds):
            raise SettingsError("seeds are whole numbers of at most 63 bits: give a smaller one")
        return replace(recipe, guidance=self._guidance(guidance, recipe.classes))

    def _classes(self, asked: Sequence[Asked | None]) -> tuple[int | None, ...] | None:
        if self.card.classes is None:
            if any(one is not None for one in asked):
                raise SettingsError(
                    f"{self.path}: this model was trained without classes, so none can be asked for"
                )
            return None
        known = Classes(self.card.classes, self.card.null_class)
        found = tuple(None if one is None else known.find(one) for one in asked)
        known.rows(found)
        return found

    def _clip(self, asked: bool | None) -> bool:
        image = self.card.image
        unit = (image.low, image.high) == (-1.0, 1.0)
        clip = (self.card.clip and unit) if asked is None else asked
        if clip:
            log.info("every estimate of x0 is clipped to [%g, %g], as trained", image.low, image.high)
        elif self.card.clip and asked is None:
            log.info("x0 is not clipped: the images' range [%g, %g] is not [-1, 1]", image.low, image.high)
        return clip

    def _guidance(self, asked: float | int | None, classes: tuple[int | None, ...] | None) -> float:
        usable = classes is not None and None not in classes and self.card.null_class
        scale = float(asked) if asked is not None else self.card.sampler.guidance if usable else 1.0
        if not math.isfinite(scale):
            raise SettingsError(f"guidance {scale}: give a finite number (1 is the conditional model alone)")
        if scale == 1 or usable:
            return scale
        if self.card.classes is None:
            raise SettingsError(
                f"guidance {scale:g} needs classes, and this model was trained without them: leave it out"
            )
        if not self.card.null_class:
            raise SettingsError(
                f'guidance {scale:g} needs a model that also knows "no class", and this one does not: '
                f"leave it out"
            )
        raise SettingsError(
            f"guidance {scale:g} needs a class for every picture: ask for classes, or leave it out"
        )

    def denoiser(self, recipe: Recipe) -> Denoiser:
        """The model with the recipe's classes, guidance and clipping bound."""
        if recipe.classes is None:
            denoise: Denoiser = self.model.given()
        else:
            known = Classes(self.classes, self.card.null_class)
            rows = known.rows(recipe.classes).to(self.device)
            denoise = self.model.given(classes=rows)
            if recipe.guidance != 1:
                nothing = known.rows([None] * len(rows)).to(self.device)
                denoise = classifier_free(denoise, self.model.given(classes=nothing), recipe.guidance)
        return Clipped(denoise, self.card.image.low, self.card.image.high) if recipe.clip else denoise

    def plan(self, recipe: Recipe) -> list[Move]:
        """The levels that the recipe visits, move by move."""
        return recipe.how().plan(self.model.schedule, recipe.steps)

    def make(self, recipe: Recipe) -> Tensor:
        """The recipe's pictures, (n, channels, height, width), float32 on the CPU, in the images' range.

        Each picture depends on its own seed and class alone: whatever the batch up to rounding (1e-5), and to
        the bit with `one_by_one`. Raises SettingsError for a plan the model cannot follow, RunError for a
        picture that is not finite.
        """
        return torch.cat([self._made(part) for part in recipe.parts()])

    def _made(self, recipe: Recipe) -> Tensor:
        x, evaluations = torch.empty(0), None
        for step in self.walk(recipe):
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
                f"{self.path}: the picture of seed {seed} is not finite: use more steps, another sampler "
                f"or less guidance"
            )
        return x.cpu().clamp(self.card.image.low, self.card.image.high)

    def walk(self, recipe: Recipe) -> Iterator[Step]:
        """The recipe's pictures step by step, all in one batch: for previews, films and early exits."""
        how, schedule, noise = recipe.how(), self.model.schedule, Noise(recipe.seeds)
        x = prior(how.start(schedule, recipe.steps), self.card.image.shape, noise).to(self.device)
        return how.walk(self.denoiser(recipe), x, schedule, recipe.steps, noise)

    def sample(
        self,
        n: int | None = None,
        *,
        classes: Asked | Sequence[Asked | None] | None = None,
        steps: int | None = None,
        sampler: str | Walker | None = None,
        eta: float | int | None = None,
        tolerance: float | int | None = None,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        guidance: float | int | None = None,
        clip: bool | None = None,
        batch: int = 64,
        one_by_one: bool = False,
    ) -> Tensor:
        """n pictures (1, or as many as classes or seeds): `make` of the `recipe` of these words."""
        return self.make(
            self.recipe(
                n,
                classes=classes,
                steps=steps,
                sampler=sampler,
                eta=eta,
                tolerance=tolerance,
                seed=seed,
                seeds=seeds,
                guidance=guidance,
                clip=clip,
                batch=batch,
                one_by_one=one_by_one,
            )
        )


def looked(evaluations: Tensor) -> str:
    """How often a model was asked about each picture, in words."""
    least, most = int(evaluations.min()), int(evaluations.max())
    mean = float(evaluations.double().mean())
    return f"evaluations a picture: {least} to {most}, {mean:.1f} on average"


def _at_least(least: int, value: int, what: str) -> int:
    if value < least:
        raise SettingsError(f"{what} cannot be {value}: give a whole number from {least}")
    return value


def _count(n: int | None, classes: int | None, seeds: int | None) -> int:
    """How many pictures, if all that says so agrees."""
    said = {what: k for what, k in (("n", n), ("classes", classes), ("seeds", seeds)) if k is not None}
    if len(set(said.values())) > 1:
        words = ", ".join(f"{what}: {k}" for what, k in said.items())
        raise SettingsError(
            f"how many pictures? they do not agree ({words}): give one class and one seed for each"
        )
    count = next(iter(said.values()), 1)
    if not 1 <= count <= MOST:
        raise SettingsError(f"{count} pictures: give a number from 1 to {MOST:,}")
    return count


def load(path: Path | str, device: str = "auto", weights: str = "ema") -> Run:
    """Opens a run folder, or a folder that diffusers wrote, to sample from it; see `run_folder.open_folder`.

    Raises RunError, ModelFileError or SettingsError: one sentence that says what is wrong.
    """
    where = choose_device(device)
    stored = open_folder(Path(path), weights)
    stored.model.to(where)
    return Run(Path(path), stored.card, stored.model, where, weights, stored.sha256)
