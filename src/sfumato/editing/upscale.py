"""Pictures from a run that was trained for a task: made larger, coloured, sharpened, drawn from outlines."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sfumato.editing.job import Bench, Job, bench
from sfumato.errors import SettingsError
from sfumato.noise import Noise
from sfumato.operators import downsample
from sfumato.plans import descend
from sfumato.runs import Recipe, Run
from sfumato.sampling import prior
from sfumato.training.hints import Hint, Upscale, noised
from sfumato.training.tasks import Hinted, task_named
from sfumato.training.telling import LABEL


def trained(run: Run) -> Hinted | None:
    """The task, or the tasks, that a run was trained for; None without any."""
    said = run.card.picture
    if said is None or not said.task:
        return None
    return task_named(said.task, run.card.image.shape)


def for_task(run: Run, recipe: Recipe, name: str) -> Recipe:
    """The recipe that tells a run of several tasks which one it is for."""
    if LABEL not in run.conditions.attributes.names:
        return recipe
    values = recipe.values or (None,) * len(recipe.seeds)
    return replace(recipe, values=tuple({**(one or {}), LABEL: name} for one in values))


def factor_of(run: Run, size: tuple[int, int], factor: int | None, hint: Hint | None) -> int:
    """How many times larger pictures of size (h, w) become: as the run was trained, as asked, or what fills
    the model. Raises SettingsError where these disagree, or there is none."""
    image = run.card.image
    least = max(-(-image.height // size[0]), -(-image.width // size[1]))
    if isinstance(hint, Upscale):
        if least > hint.factor:
            raise SettingsError(
                f"{hint.factor} times larger, pictures of {size[1]} x {size[0]} are smaller than the model's "
                f"{image.width} x {image.height}: give larger ones"
            )
        if factor not in (None, hint.factor):
            raise SettingsError(
                f"{run.name} was trained to make pictures {hint.factor} times larger, not {factor}: leave "
                "out --factor, or say --method pigdm"
            )
        return hint.factor
    if factor is None:
        fills = image.height // size[0]
        if fills < 2 or (size[0] * fills, size[1] * fills) != (image.height, image.width):
            raise SettingsError(
                f"pictures of {size[1]} x {size[0]} fill the model's {image.width} x {image.height} by no "
                "whole factor: say --factor"
            )
        return fills
    if factor < 2:
        raise SettingsError(f"--factor {factor}: give a whole number from 2")
    if factor < least:
        raise SettingsError(
            f"--factor {factor}: pictures of {size[1]} x {size[0]} stay smaller than the model's "
            f"{image.width} x {image.height}: give {least} or more"
        )
    return factor


def told(run: Run, recipe: Recipe, hint: Tensor) -> Tensor:
    """A picture for each of the recipe's seeds, drawn as the hint (1 or B, C + 1, H, W) says, on the CPU. A
    hint larger than the model's pictures is followed in tiles."""
    hints = hint.expand(len(recipe.seeds), *hint.shape[1:]).to(run.device)
    size = hint.shape[2], hint.shape[3]
    image = run.card.image
    fits = size == (image.height, image.width)
    b = bench(run, recipe, hints if fits else None).over(size, hints)
    return b.finished(drawn(b, size))


def drawn(b: Bench, size: tuple[int, int]) -> Job:
    """New pictures (H, W) = size from noise: what they are told of is bound in the bench's denoiser."""
    shape = b.run.card.image.channels, *size
    return Job(b.denoise, prior(b.levels[0], shape, b.noise).to(b.run.device), descend(b.levels))


def enlarged(run: Run, recipe: Recipe, small: Tensor, by: Upscale, sigma: float | int = 0.0) -> Tensor:
    """Small pictures (1 or B, C, h, w) made `by.factor` times larger by a run that was trained for it.

    sigma: how much noise is put on them first, 0 to 1/2, so that the run believes their details less: for
    pictures that another model drew, or that are compressed (Ho et al. 2022, section 4.2).
    """
    if not 0 <= sigma <= 0.5:
        raise SettingsError(f"--augment {sigma:g}: training added noise from 0 to 0.5, so give one of these")
    rows = small.expand(len(recipe.seeds), *small.shape[1:])
    if sigma:
        rows = noised(rows, sigma, Noise(recipe.seeds).normal(small.shape[1:], "augment"))
    size = small.shape[2] * by.factor, small.shape[3] * by.factor
    return told(run, recipe, by.of(rows, size, sigma))


def decibels(a: Tensor, b: Tensor, span: float | int = 2.0) -> Tensor:
    """The peak signal-to-noise ratio of each row of two batches, (B,): 10 log10(span^2 / mean square
    difference), infinite where they are equal. span: of the pictures' range."""
    square = (a.double() - b.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(span**2 / square)


def consistency(pictures: Tensor, small: Tensor, span: float | int = 2.0) -> Tensor:
    """How well upscaled pictures (B, C, H, W) keep to the small ones (1 or B, C, h, w) when they are made
    small again, in decibels, (B,)."""
    again = downsample(pictures.shape[1:], (small.shape[2], small.shape[3]))(pictures)
    return decibels(again, small.to(again), span)
