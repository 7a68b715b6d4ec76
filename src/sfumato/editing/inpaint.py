"""Inpainting with any model: what is known is put back at every level, and the rest is drawn to fit it.

Putting known pixels back does not tell the others of them in time; noising again and descending again does
(RePaint; Lugmayr et al. 2022). A soft mask lets each pixel go at a level of its own (differential diffusion;
Levin & Fried 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.editing.job import Job
from sfumato.editing.masks import as_mask
from sfumato.errors import SettingsError
from sfumato.level import Level, Levels
from sfumato.noise import Noise
from sfumato.plans import descend, repaint
from sfumato.sampling import prior


@dataclass(frozen=True, eq=False)
class Keep:
    """The hook that puts known pixels back after a move, noised to its level: alpha known + sigma z, where z
    is drawn for each move by the picture's seed.

    known: (B, C, H, W). until: the angle (`Level.angle`) of the last level at which a pixel is held, float64
    (1 or B, 1, H, W): 0 holds it to the end, infinity lets it go at once. spread: the standard deviation of
    the noise that is in `known` already, of which so much less is added.
    """

    known: Tensor
    until: Tensor
    noise: Noise
    spread: float = 0.0

    def __call__(self, x: Tensor, level: Level, i: int) -> Tensor:
        held = float(level.angle) >= self.until - 1e-9
        if not bool(held.any()):
            return x
        alpha, sigma = float(level.alpha), float(level.sigma)
        std = math.sqrt(max(0.0, sigma**2 - (alpha * self.spread) ** 2))
        back = alpha * self.known.to(x)
        if std > 0:
            back = back + std * self.noise.normal(x.shape[1:], "known", i).to(x)
        return torch.where(held.to(x.device), back, x)


@dataclass(frozen=True, eq=False)
class Paste:
    """The finish that leaves known pixels as they were, to the bit: what was drawn where the mask is not 0,
    the picture everywhere else."""

    picture: Tensor
    mask: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.where(self.mask.to(x.device) > 0, x, self.picture.to(x))


def released(mask: Tensor, levels: Levels) -> Tensor:
    """The node of the grid at which each pixel is let go, int64 in the mask's shape: that where an edit of
    this strength starts (`img2img.start_of`), the last node for 0, and -1, before the walk, for 1."""
    moves = len(levels) - 1
    drawn = (mask.double() * moves).round().clamp(min=1)
    nodes = (moves - torch.where(mask > 0, drawn, torch.zeros_like(drawn))).long().cpu()
    return torch.where(nodes == 0, -1, nodes)


def painted(
    denoise: Denoiser,
    known: Tensor,
    nodes: Tensor,
    levels: Levels,
    noise: Noise,
    *,
    times: int,
    jump: int,
    spread: float = 0.0,
    finish: Callable[[Tensor], Tensor],
) -> Job:
    """The job that holds each pixel down to its node (`released`), from the first node at which any is let
    go. As long as any is held, each stretch of `jump` moves is gone `times` times over; further down that
    would only forget the picture."""
    if times < 1 or jump < 1:
        raise SettingsError(
            f"resampling {times} times over {jump} moves: give at least 1 of each; once is without it"
        )
    angles = torch.cat([torch.atan2(levels.sigma, levels.alpha), levels.sigma.new_full((1,), torch.inf)])
    keep = Keep(known, angles[nodes], noise, spread)
    first, last = max(0, int(nodes.min())), max(0, int(nodes.max()))
    plan = repaint(levels.cut(first, last + 1), jump, times) + descend(levels.cut(last, len(levels)))
    x = prior(levels[first], known.shape[1:], noise).to(known)
    return Job(denoise, keep(x, levels[first], -1), plan, keep, finish)


def inpaint(
    denoise: Denoiser,
    picture: Tensor,
    mask: Tensor,
    levels: Levels,
    noise: Noise,
    *,
    times: int = 5,
    jump: int = 1,
) -> Job:
    """Draws anew what the mask says (`masks.as_mask`): 1 is drawn from pure noise, 0 is kept to the bit, and
    between a pixel is let go where an edit of that strength starts.

    times, jump: RePaint's resampling: each stretch of `jump` moves is gone `times` times, so the model is
    asked about `times` times as often. On Gaussian data the completions' law nears the exact conditional as
    `times` and the steps grow, and jump = 1 is the best use of the same number of looks. What lies under
    grey is forgotten by resampling. Networks that are shown mask and picture need none: times = 1.
    """
    where = as_mask(mask, picture)
    finish = Paste(picture, where)
    nodes = released(where, levels)
    return painted(denoise, picture, nodes, levels, noise, times=times, jump=jump, finish=finish)
