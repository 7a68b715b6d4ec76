"""`sfumato edit` img2img, inpaint, replace and remove: a picture drawn anew, all of it or a part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.edits.options import Draw, task

Strength = Annotated[
    float, typer.Option(help="How much is drawn anew: above 0, where nothing is, to 1, where all is.")
]
Mask = Annotated[
    Path, typer.Option(help="A grey picture of the same size: white is drawn anew, black stays.")
]
Grow = Annotated[int, typer.Option(help="Let the mask reach so many pixels further.")]
Feather = Annotated[
    int, typer.Option(help="So many pixels around the mask are redrawn in part; 0 keeps them to the bit.")
]
Resample = Annotated[
    int | None,
    typer.Option(
        help="How often each stretch of the way is gone, so that new fits old. [5; 1 if trained or all grey]"
    ),
]
Jump = Annotated[int, typer.Option(help="How many moves a stretch has.")]
Crop = Annotated[
    bool, typer.Option("--crop", help="Draw the part around the mask at the model's size, of any picture.")
]


@task
def img2img(strength: Strength = 0.6) -> Draw:
    """Draw a picture anew from its rough forms (SDEdit)."""
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.editing.img2img import img2img
    from sfumato.editing.job import Bench, Job

    def draw(easel: Easel) -> Result:
        picture = easel.picture()

        def make(b: Bench) -> Job:
            return img2img(b.denoise, b.rows(picture), b.levels, b.noise, strength)

        return Result(easel.drawn(make))

    return draw


def _masked(
    mask: Path, strength: float, grow: int, feather: int, resample: int | None, jump: int, crop: bool
) -> Draw:
    """What the tasks with a mask do at the easel."""
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.scene import filled, read_mask, scene

    def draw(easel: Easel) -> Result:
        where = read_mask(easel, mask, grow=grow, feather=feather)
        of = scene(easel, where, crop=crop)
        return filled(easel, of, resample=resample, jump=jump, strength=strength)

    return draw


@task
def inpaint(
    mask: Mask,
    strength: Strength = 1.0,
    grow: Grow = 0,
    feather: Feather = 0,
    resample: Resample = None,
    jump: Jump = 1,
    crop: Crop = False,
) -> Draw:
    """Draw a part of a picture anew, to fit the rest, which stays to the bit."""
    return _masked(mask, strength, grow, feather, resample, jump, crop)


@task
def replace(
    mask: Mask,
    strength: Strength = 1.0,
    grow: Grow = 0,
    feather: Feather = 0,
    resample: Resample = None,
    jump: Jump = 1,
    crop: Crop = False,
) -> Draw:
    """Put what --class, --set or --prompt says where the mask is, or add it there."""
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.errors import SettingsError

    paint = _masked(mask, strength, grow, feather, resample, jump, crop)

    def draw(easel: Easel) -> Result:
        if not easel.conditioned:
            raise SettingsError("replace by what? Say it with --class, --set or --prompt; or use remove")
        return paint(easel)

    return draw


@task
def remove(
    mask: Mask,
    grow: Grow = 2,
    feather: Feather = 0,
    resample: Resample = None,
    jump: Jump = 1,
    crop: Crop = False,
) -> Draw:
    """Take an object away: draw what may be behind it. The mask is grown by 2 pixels, over its edge."""
    return _masked(mask, 1.0, grow, feather, resample, jump, crop)
