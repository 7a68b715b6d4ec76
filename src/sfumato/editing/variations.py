"""Variations: pictures near one that is there, as near as one likes."""

from __future__ import annotations

import math

from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.editing.job import Job
from sfumato.errors import SettingsError
from sfumato.level import Levels
from sfumato.noise import Noise
from sfumato.plans import descend


def near(x: Tensor, noise: Noise, angle: float) -> Tensor:
    """cos(angle) x + sin(angle) z, a row for each stream: standard normal if x is, however far it is turned.

    x: (B, ...) or one for all, (1, ...). angle: 0 is x itself, a quarter turn (pi/2) other noise altogether.
    Raises SettingsError for an angle outside.
    """
    if not 0 <= angle <= math.pi / 2 + 1e-9:
        raise SettingsError(
            f"an angle of {angle:g}: give one from 0, the same picture, to 1.57, a quarter turn, another one"
        )
    z = noise.normal(x.shape[1:], "near").to(x)
    return math.cos(angle) * x + math.sin(angle) * z


def vary(denoise: Denoiser, x: Tensor, levels: Levels, noise: Noise, angle: float) -> Job:
    """Pictures from noise near x, which is standard normal times the first level's norm: as far from the
    picture of x as the angle says, in everything at once. (`img2img` varies the details and keeps the rough
    forms.)"""
    scale = float(levels[0].norm)
    return Job(denoise, scale * near(x / scale, noise, angle), descend(levels))
