"""A picture and its mask as the model takes them, and the way back into the file.

What is not drawn stays in the file byte for byte, whatever its depth, its kind of channels and its size: new
pixels are put onto the file's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from sfumato.cli.drawing import pixels
from sfumato.cli.edits.easel import COLOURS, Easel, Result, drawable, fitted, in_range
from sfumato.data.fit import Resize, fit, plain
from sfumato.editing.inpaint import inpaint
from sfumato.editing.job import Bench, Job
from sfumato.editing.masks import feathered, grown, window
from sfumato.editing.upscale import for_task, trained
from sfumato.errors import SettingsError
from sfumato.files.pictures import Pixels
from sfumato.runs import Run
from sfumato.training.hints import Inpaint

TIMES = 5
"""How often each stretch is gone where nobody says. Once is right for networks that are shown what is known,
and where all is drawn from what is there (grey, or a strength below 1), which would be forgotten."""


@dataclass(frozen=True, eq=False)
class Onto:
    """How a drawn picture becomes the file's pixels.

    base: (H, W, C), as in the file. mask: (H, W), 0 where the base stays. box: (top, left, height, width),
    the part of the base that was drawn; if it was drawn smaller, it is enlarged, and blended by a soft mask.
    """

    run: Run
    base: np.ndarray
    mask: np.ndarray
    box: tuple[int, int, int, int]

    def __call__(self, picture: Tensor) -> Pixels:
        top, left, height, width = self.box
        drawn = pixels(self.run, picture[None], deep=self.base.dtype == np.uint16)[0]
        drawn = drawn if drawn.ndim == 3 else drawn[..., None]
        scaled = drawn.shape[:2] != (height, width)
        if scaled:
            drawn = fit(drawn, (height, width), "stretch", drawn.shape[2], drawn.dtype == np.uint16)
        kinds = self.base.shape[2], drawn.shape[2]
        colour, alpha = max(kinds) >= 3, not {2, 4}.isdisjoint(kinds)
        whole, new = laid_out(self.base, colour, alpha).copy(), laid_out(drawn, colour, alpha)
        part = whole[top : top + height, left : left + width]
        weight = self.mask[top : top + height, left : left + width, None]
        if scaled:
            new = (part + weight * (new.astype(np.float64) - part)).round().astype(new.dtype)
        np.copyto(part, new, where=weight > 0)
        return whole[..., 0] if whole.shape[2] == 1 else whole

    def everywhere(self) -> Onto:
        """The same where nothing of the base stays."""
        return replace(self, mask=np.ones_like(self.mask))


def laid_out(a: np.ndarray, colour: bool, alpha: bool) -> np.ndarray:
    """(H, W, C) with three equal channels for one of grey if `colour`, and an opaque one more if `alpha`."""
    clear = a.shape[2] in (2, 4)
    tones = a[..., :-1] if clear else a
    tones = np.repeat(tones, 3, axis=2) if colour and tones.shape[2] == 1 else tones
    if not alpha:
        return tones
    cover = a[..., -1:] if clear else np.full_like(a[..., :1], np.iinfo(a.dtype).max)
    return np.concatenate([tones, cover], axis=2)


@dataclass(frozen=True, eq=False)
class Scene:
    """What a task of masks works on: the picture (C, h, w) in the model's range, the mask (h, w) of the same
    size, and the way back."""

    picture: Tensor
    mask: Tensor
    onto: Onto


def read_mask(easel: Easel, path: Path, *, grow: int = 0, feather: int = 0) -> np.ndarray:
    """The mask of the first picture from its file, (H, W) float32 from 0 (black, kept) to 1 (white, drawn).

    Raises SettingsError for one of another size than the picture's, or that is not grey.
    """
    shown, of = plain(easel.pixels(path, "mask")), easel.pixels()
    if shown.shape[2] != 1:
        raise SettingsError(
            f"the mask {path} is {COLOURS[shown.shape[2]]}: give a grey one, white where the picture is "
            "drawn anew and black where it stays"
        )
    if shown.shape[:2] != of.shape[:2]:
        raise SettingsError(
            f"the mask {path} is {shown.shape[1]} x {shown.shape[0]} pixels and the picture "
            f"{easel.images[0]} {of.shape[1]} x {of.shape[0]}: give one of the picture's size"
        )
    mask = torch.from_numpy(shown[..., 0].astype(np.float32) / np.float32(np.iinfo(shown.dtype).max))
    return feathered(grown(mask, grow), feather).numpy()


def scene(easel: Easel, mask: np.ndarray, *, crop: bool = False, base: np.ndarray | None = None) -> Scene:
    """The picture (or `base` in its place) and a mask (H, W) of its size, as the model takes them.

    crop: only the part around the mask, in the model's shape, is drawn, and put back at the picture's own
    size; so pictures of any size are edited, and kept everywhere else.
    """
    run, shown = easel.run, easel.pixels() if base is None else base
    size = run.card.image.height, run.card.image.width
    if crop:
        box = window(torch.from_numpy(mask), size)
        top, left, height, width = box
        cut = (slice(top, top + height), slice(left, left + width))
        small = fitted(run, shown[cut], easel.images[0], easel.resize, (height, width))
        if (height, width) != size:
            small = fit(small, size, "stretch", small.shape[2], small.dtype == np.uint16)
        onto = Onto(run, shown, mask, box)
        return Scene(in_range(run, small), torch.from_numpy(_fitted_mask(mask[cut], size)), onto)
    small = fitted(run, shown, easel.images[0], easel.resize)
    same = shown.shape[:2] == size
    whole = mask if same else _fitted_mask(mask, size, easel.resize or "crop")
    kept = shown if same and drawable(shown, run.card.image.channels) else small
    return Scene(in_range(run, small), torch.from_numpy(whole), Onto(run, kept, whole, (0, 0, *size)))


def _fitted_mask(mask: np.ndarray, size: tuple[int, int], how: Resize = "stretch") -> np.ndarray:
    """A mask in another size, as its picture is fitted; one of 0 and 1 alone stays so. No line is too thin to
    be seen, and the ripples of a filter are cut off."""
    if how == "stretch":
        return adaptive_max_pool2d(torch.from_numpy(mask)[None], size)[0].numpy()
    hard = bool(((mask == 0) | (mask == 1)).all())
    whole = fit((mask[..., None] * 65535).round().astype(np.uint16), size, how, 1, True)[..., 0]
    found = whole.astype(np.float32) / np.float32(65535)
    return np.where(found > 0.1, np.float32(1) if hard else found, np.float32(0)).astype(np.float32)


def filled(easel: Easel, of: Scene, *, resample: int | None, jump: int, strength: float = 1.0) -> Result:
    """What the mask says, drawn anew; at a strength below 1 from what is there."""
    if not 0 < strength <= 1:
        raise SettingsError(
            f"a strength of {strength:g}: give one above 0, where the picture stays, to 1, where it is drawn "
            "anew"
        )
    mask = strength * of.mask
    easel, hint, times = as_trained(easel, of.picture, mask, resample)

    def make(b: Bench) -> Job:
        return inpaint(b.denoise, b.rows(of.picture), mask, b.levels, b.noise, times=times, jump=jump)

    return Result(easel.drawn(make, hint), express=of.onto)


def as_trained(
    easel: Easel, picture: Tensor, mask: Tensor, resample: int | None
) -> tuple[Easel, Tensor | None, int]:
    """What a run that was trained to inpaint is shown of the picture (C, H, W) where the mask (H, W) is 0:
    the easel that says so to a run of several tasks, the hint (C + 1, H, W), and how often each stretch is
    gone. Of another run: the easel itself and None."""
    usual = TIMES if bool((mask >= 1).any()) else 1
    task = trained(easel.run)
    hint = None if task is None else dict(task.parts).get("inpaint")
    if not isinstance(hint, Inpaint):
        return easel, None, usual if resample is None else resample
    recipe = for_task(easel.run, easel.recipe, "inpaint")
    shown = hint.of(picture[None], (mask == 0)[None, None])[0]
    return replace(easel, recipe=recipe), shown, 1 if resample is None else resample
