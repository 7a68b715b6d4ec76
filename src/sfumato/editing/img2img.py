"""img2img: a picture noised to a level and drawn anew from there (SDEdit; Meng et al. 2022)."""

from __future__ import annotations

from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.editing.job import Job
from sfumato.errors import SettingsError
from sfumato.level import Levels
from sfumato.noise import Noise
from sfumato.plans import descend, from_image
from sfumato.sampling import prior


def start_of(strength: float | int, levels: Levels) -> int:
    """The node of the grid where an edit of this strength starts: 0, the noisiest, for 1; at least one move
    is left. Strength is the share of the grid's moves that are made, as everywhere.

    Raises SettingsError for a strength outside (0, 1].
    """
    if not 0 < strength <= 1:
        raise SettingsError(
            f"a strength of {strength:g}: give one above 0, where the picture stays, to 1, where it is drawn "
            "anew"
        )
    moves = len(levels) - 1
    return moves - max(1, round(strength * moves))


def img2img(
    denoise: Denoiser, picture: Tensor, levels: Levels, noise: Noise, strength: float | int = 0.6
) -> Job:
    """The picture (B, C, H, W) noised to the node `start_of(strength)` and descended from there.

    What is coarser than the noise at that level stays, what is finer is drawn anew: with an exact denoiser a
    picture of the data becomes another of the same law at every strength. Strength 1 forgets the picture:
    the result is bit for bit what the same seeds give without one.
    """
    start = start_of(strength, levels)
    if start == 0:
        x = prior(levels[0], picture.shape[1:], noise).to(picture)
        return Job(denoise, x, descend(levels))
    return Job(denoise, picture, from_image(levels, start))
