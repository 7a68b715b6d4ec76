"""What a picture has lost, read from its file: missing pixels, noise, and what lies beyond its edges."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfumato.cli.edits.easel import Easel, fitted, in_range
from sfumato.cli.edits.scene import Onto, Scene, read_mask
from sfumato.editing.masks import feathered, grown
from sfumato.editing.outpaint import Margins
from sfumato.editing.restore import estimated_noise
from sfumato.errors import SettingsError

MISSING = ("black", "white", "transparent")


def beyond(easel: Easel, margins: Margins, feather: int) -> tuple[Tensor, Onto]:
    """The first picture (C, H, W) in the model's range, of any size, and the way onto its canvas."""
    run, shown, where = easel.run, easel.pixels(), easel.images[0]
    own = shown.shape[0], shown.shape[1]
    picture = in_range(run, fitted(run, shown, where, easel.resize, own))
    _, mask = margins.around(picture)
    sides = ((margins.top, margins.bottom), (margins.left, margins.right), (0, 0))
    base = np.pad(shown, sides, mode="edge")
    return picture, Onto(run, base, feathered(mask, feather).numpy(), (0, 0, *base.shape[:2]))


def damaged(
    easel: Easel, mask: Path | None, missing: str | None, grow: int, feather: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first picture's pixels and the mask (H, W) of what is missing: by a file, and where `missing` says
    so. A pixel that is transparent in part is missing in part. Raises SettingsError for another word, or
    where nothing is so."""
    shown = easel.pixels()
    where = np.zeros(shown.shape[:2], np.float32) if mask is None else read_mask(easel, mask)
    if missing is not None:
        found = _found(shown, missing, easel.images[0])
        where = np.maximum(where, found)
    if missing == "transparent" and easel.run.card.image.channels != 4:
        shown = shown[..., :-1]  # the model draws what is opaque
    return shown, feathered(grown(torch.from_numpy(where), grow), feather).numpy()


def _found(shown: np.ndarray, missing: str, where: Path) -> np.ndarray:
    if missing not in MISSING:
        raise SettingsError(f"--missing is one of {', '.join(MISSING)}, not {missing!r}")
    full = np.iinfo(shown.dtype).max
    clear = shown.shape[2] in (2, 4)
    if missing == "transparent":
        found = 1 - shown[..., -1].astype(np.float32) / np.float32(full) if clear else np.zeros(1, np.float32)
    else:
        tones = shown[..., :-1] if clear else shown
        found = (tones == (0 if missing == "black" else full)).all(axis=2).astype(np.float32)
    if not found.any():
        raise SettingsError(f"{where} has no pixel that is {missing}: say with --mask what is missing")
    return found


def strength_of_noise(easel: Easel, of: Scene, said: str | None) -> tuple[float, tuple[str, ...]]:
    """The standard deviation of the noise in the model's units, 0 for none, and what there is to tell of it.
    "auto" estimates it. Raises SettingsError for what is no such number."""
    image = easel.run.card.image
    span = image.high - image.low
    if said is None:
        return 0.0, ()
    if said == "auto":
        spread = estimated_noise(of.picture[None], of.mask if bool((of.mask > 0).any()) else None)
        if spread <= 0:
            raise SettingsError(f"{easel.images[0]}: no noise is to be seen: say how strong it is")
        return spread, (f"the noise is estimated at {spread / span:.3g} of the range",)
    try:
        share = float(said)
    except ValueError:
        share = math.nan
    if not 0 < share < math.inf:
        raise SettingsError(
            f"--noise {said}: give auto, or its standard deviation as a share of the range, such as 0.1"
        )
    return share * span, ()
