"""Restoring: what is missing is drawn, and what is noisy is taken for what it is, a picture on its way."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.editing.inpaint import Paste, painted, released
from sfumato.editing.job import Job, unchanged
from sfumato.editing.masks import as_mask
from sfumato.errors import SettingsError
from sfumato.level import Level, Levels
from sfumato.noise import Noise


def estimated_noise(picture: Tensor, mask: Tensor | None = None) -> float:
    """The standard deviation of white noise in pictures (B, C, H, W), in their own units: the median of
    |a - b - c + d| / 2 over blocks of 2 x 2 pixels, over 0.6745 (Donoho & Johnstone 1994, for Haar's finest
    diagonal). Edges are few, so they do not count; where most of a picture is cut off at black or white,
    neither does its noise, and the estimate is too small. Blocks that touch the mask are left out.
    """
    height, width = (n - n % 2 for n in picture.shape[2:])
    a, b = picture[..., 0:height:2, 0:width:2], picture[..., 0:height:2, 1:width:2]
    c, d = picture[..., 1:height:2, 0:width:2], picture[..., 1:height:2, 1:width:2]
    away = (a - b - c + d).abs() / 2
    if mask is not None:
        where = as_mask(mask, picture)[..., :height, :width].expand(len(picture), 1, height, width)
        clean = torch.nn.functional.max_pool2d(where, 2) == 0
        away = away[clean.expand_as(away)]
    if away.numel() == 0:
        raise SettingsError(
            "no block of 2 x 2 pixels is left to estimate the noise from: say how strong it is"
        )
    return float(away.median()) / 0.6745


def with_level(levels: Levels, ratio: float) -> tuple[Levels, int]:
    """The grid with a node at sigma / alpha = ratio (put in if none is there), and that node's place."""
    ratios = levels.sigma / levels.alpha
    noisy = ratios[ratios > 0]
    near = int((noisy.log() - math.log(ratio)).abs().argmin())
    if abs(float(noisy[near]) / ratio - 1) < 1e-3:
        return levels, near
    place = int((noisy > ratio).sum())
    norm = math.hypot(1.0, ratio)
    own = Level.of(1 / norm, ratio / norm)
    parts = [levels.cut(0, place)] if place else []
    return Levels.of(*(_all(part) for part in parts), own, _all(levels.cut(place, len(levels)))), place


def _all(levels: Levels) -> Level:
    return Level(levels.alpha, levels.sigma)


def restore(
    denoise: Denoiser,
    picture: Tensor,
    levels: Levels,
    noise: Noise,
    *,
    mask: Tensor | None = None,
    spread: float = 0.0,
    times: int = 5,
    jump: int = 1,
) -> Job:
    """Draws what the mask says is missing, and takes white noise of standard deviation `spread` (in the
    picture's units) out of the rest.

    A picture with noise is x at the level sigma / alpha = spread but for the scale, so the walk takes it up
    there: with an exact denoiser and new noise (eta = 1, many steps) the results are draws from
    p(clean | picture). Known pixels are held above that level, noised by what is lacking. Without noise it is
    `inpaint`. Raises SettingsError where nothing is to be restored.
    """
    if mask is None and spread <= 0:
        raise SettingsError("nothing to restore: say what is missing (a mask), or how strong the noise is")
    if not 0 <= spread < math.inf:
        raise SettingsError(f"noise of {spread:g}: give a number above 0")
    where = torch.zeros(1, 1, *picture.shape[2:]) if mask is None else as_mask(mask, picture)
    nodes = released(where, levels)
    if spread == 0:
        finish = Paste(picture, where)
        return painted(denoise, picture, nodes, levels, noise, times=times, jump=jump, finish=finish)
    levels, place = with_level(levels, spread)
    try:
        denoise.check(levels[place])
    except SettingsError:
        raise SettingsError(
            f"noise of {spread:.3g} (in the model's units) is not what the model was trained with: it is too "
            "little to be taken away, or leaves nothing of the picture"
        ) from None
    nodes = released(where, levels).clamp(max=place)
    return painted(
        denoise, picture, nodes, levels, noise, times=times, jump=jump, spread=spread, finish=unchanged
    )
