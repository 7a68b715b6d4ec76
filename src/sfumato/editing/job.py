"""Job: a task on pictures, ready to be walked.

A task is a function of a denoiser, a picture, the levels of a grid, the noise and its own few numbers; it
returns a Job. It knows no network, so it runs on an exact denoiser as on a run:

    b = bench(run, run.recipe(4, classes=3))
    pictures = b.finished(img2img(b.denoise, picture, b.levels, b.noise, strength=0.6))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.editing.tiles import Tiled, Tiling
from sfumato.errors import SettingsError
from sfumato.level import Levels
from sfumato.noise import Noise
from sfumato.records.facts import ImageSettings
from sfumato.runs import Recipe, Run
from sfumato.samplers import Sampler, Walker
from sfumato.sampling import After, Step, walk
from sfumato.schedules import Schedule
from sfumato.solvers.moves import Move


def unchanged(x: Tensor) -> Tensor:
    """The finish of a task that does nothing to its pictures."""
    return x


@dataclass(frozen=True, eq=False)
class Job:
    """A task ready to be walked: whom to ask, where to start, and which way to go.

    x: (B, C, H, W), at plan[0].here. after: called with (x, level, i) when move i has reached `level`.
    finish: what is done to the finished pictures, for example putting known pixels back.
    """

    denoise: Denoiser
    x: Tensor
    plan: list[Move]
    after: After | None = None
    finish: Callable[[Tensor], Tensor] = unchanged


def counted(how: Walker) -> Sampler:
    """The sampler, if its steps are counted. Raises SettingsError for one that chooses them on the way."""
    if not isinstance(how, Sampler):
        raise SettingsError(
            "an adaptive sampler chooses its own levels, and an edit says which to visit: choose vab, ddim, "
            "ddpm or another with steps"
        )
    return how


def descending(how: Walker, schedule: Schedule, steps: int | None) -> Levels:
    """The levels of a sampler's grid. Raises SettingsError for one that goes up and down on a way of its own,
    since an edit has its own way too."""
    sampler = counted(how)
    if steps is None:
        raise SettingsError("how many steps? An edit needs their number")
    levels = sampler.grid(schedule, steps)
    if any(float(move.there.angle) >= float(move.here.angle) for move in sampler.route(levels)):
        raise SettingsError(
            "this sampler has a way of its own (up and down again), and so has an edit: choose one that "
            "descends, such as vab, heun, ddim or ddpm"
        )
    return levels


def perform(job: Job, how: Walker, noise: Noise) -> Iterator[Step]:
    """Walks a job step by step with the sampler's solver and new noise; see `sampling.walk`. `finish` is left
    to the caller. Raises SettingsError for an adaptive sampler."""
    sampler = counted(how)
    return walk(job.denoise, job.x, job.plan, sampler.solver, noise, sampler.fresh, job.after)


def finished(job: Job, how: Walker, noise: Noise) -> Tensor:
    """The end of a job, finished: (B, C, H, W). A job without moves is its x."""
    x = job.x
    for step in perform(job, how, noise):
        x = step.x
    return job.finish(x)


@dataclass(frozen=True, eq=False)
class Bench:
    """What a task is given by a run and a recipe: the conditioned and guided denoiser, the sampler, the
    levels of its grid, and the noise, one stream for each picture of the recipe."""

    run: Run
    recipe: Recipe
    denoise: Denoiser
    how: Sampler
    levels: Levels
    noise: Noise

    def rows(self, picture: Tensor) -> Tensor:
        """One picture (C, H, W), or as many as the recipe has, on the run's device: (B, C, H, W). Raises
        SettingsError for what is no picture in the run's range."""
        check_range(picture, self.run.card.image)
        return self.each(picture)

    def each(self, x: Tensor) -> Tensor:
        """The same of noise, whose range is its own."""
        many = x if x.ndim == 4 else x[None]
        return many.expand(len(self.noise), *many.shape[1:]).to(self.run.device)

    def over(self, size: tuple[int, int], condition: Tensor | None = None) -> Bench:
        """The bench of a canvas (height, width): itself where that is the model's size; for a larger one its
        denoiser sees tiles of the model's size, which share half their side. condition: (B, C, height,
        width), for networks that take one. Raises SettingsError for a smaller canvas."""
        image = self.run.card.image
        tile = image.height, image.width
        if size == tile:
            return self
        tiling = Tiling(size, tile, min(tile) // 2)
        many = self.recipe.take([*range(len(self.noise))] * len(tiling.corners))
        seen = None if condition is None else tiling.cut(condition).flatten(0, 1)
        return replace(self, denoise=Tiled(self.run.denoiser(many, seen), tiling, len(self.noise)))

    def finished(self, job: Job) -> Tensor:
        """The job's pictures, on the CPU and within the images' range: known pixels are kept to the bit.
        Raises RunError for a picture that is not finite."""
        x = job.x
        for step in perform(job, self.how, self.noise):
            x = step.x
        return job.finish(self.run.finished(x, self.recipe).to(job.x.device)).cpu()


def bench(run: Run, recipe: Recipe, picture: Tensor | None = None) -> Bench:
    """The bench of a run for the pictures of one recipe, all in one batch. `picture` (B, C, H, W) is the
    condition of networks that take one. Raises SettingsError for a sampler that no edit can use."""
    levels = descending(recipe.how(), run.model.schedule, recipe.steps)
    denoise = run.denoiser(recipe, picture)
    return Bench(run, recipe, denoise, counted(recipe.how()), levels, Noise(recipe.seeds))


def check_range(picture: Tensor, image: ImageSettings) -> None:
    """Raises SettingsError unless these are floating-point pictures (..., C, H, W) within the image's range
    (up to rounding)."""
    low, high = image.low, image.high
    slack = 1e-3 * (high - low)
    if picture.ndim not in (3, 4) or picture.shape[-3] != image.channels or not picture.is_floating_point():
        raise SettingsError(
            f"a picture for this model is of floats in the shape ({image.channels}, H, W), not "
            f"{str(picture.dtype).removeprefix('torch.')} in {tuple(picture.shape)}"
        )
    if not bool(((picture >= low - slack) & (picture <= high + slack)).all()):
        seen = picture.detach().double()
        raise SettingsError(
            f"a picture for this model goes from {low:g} to {high:g}, and this one from "
            f"{float(seen.min()):g} to {float(seen.max()):g}: scale it"
        )
