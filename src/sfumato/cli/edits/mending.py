"""`sfumato edit` outpaint and restore: what lies beyond a picture's edges, and what it has lost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.edits.options import Draw, task
from sfumato.cli.edits.painting import Feather, Grow, Jump, Resample


@task
def outpaint(
    left: Annotated[int, typer.Option(help="Pixels to add on the left.")] = 0,
    top: Annotated[int, typer.Option(help="Pixels to add above.")] = 0,
    right: Annotated[int, typer.Option(help="Pixels to add on the right.")] = 0,
    bottom: Annotated[int, typer.Option(help="Pixels to add below.")] = 0,
    feather: Feather = 0,
    resample: Resample = None,
    jump: Jump = 1,
) -> Draw:
    """Go on with a picture beyond its edges, to the model's size or any larger one, in tiles."""
    import torch

    from sfumato.cli.edits.damage import beyond
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.scene import as_trained
    from sfumato.editing.job import Bench, Job
    from sfumato.editing.outpaint import Margins, outpaint

    margins = Margins(left, top, right, bottom)

    def draw(easel: Easel) -> Result:
        picture, onto = beyond(easel, margins, feather)
        mask = torch.from_numpy(onto.mask)
        easel, hint, times = as_trained(easel, margins.around(picture)[0], mask, resample)

        def make(b: Bench) -> Job:
            return outpaint(
                b.denoise, b.rows(picture), margins, b.levels, b.noise,
                feather=feather, times=times, jump=jump,
            )  # fmt: skip

        return Result(easel.drawn(make, hint, (mask.shape[0], mask.shape[1])), express=onto)

    return draw


@task
def restore(
    mask: Annotated[
        Path | None, typer.Option(help="A grey picture of the same size: white is missing, black is there.")
    ] = None,
    missing: Annotated[
        str | None,
        typer.Option(help="Take pixels for missing that are exactly black, white or transparent."),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(help="Take noise away: its standard deviation as a share of the range, or auto."),
    ] = None,
    grow: Grow = 0,
    feather: Feather = 0,
    resample: Resample = None,
    jump: Jump = 1,
) -> Draw:
    """Mend a picture: draw what is missing (scratches, blocks), and take noise away."""
    from sfumato.cli.edits.damage import damaged, strength_of_noise
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.scene import TIMES, as_trained, scene
    from sfumato.editing.job import Bench, Job
    from sfumato.editing.restore import restore

    def draw(easel: Easel) -> Result:
        base, where = damaged(easel, mask, missing, grow, feather)
        of = scene(easel, where, base=base)
        spread, told = strength_of_noise(easel, of, noise)
        lost = of.mask if bool((of.mask > 0).any()) else None
        hint, times = None, TIMES if resample is None else resample
        if spread == 0:  # of a noisy picture nothing is known as it was in training
            easel, hint, times = as_trained(easel, of.picture, of.mask, resample)

        def make(b: Bench) -> Job:
            return restore(
                b.denoise, b.rows(of.picture), b.levels, b.noise,
                mask=lost, spread=spread, times=times, jump=jump,
            )  # fmt: skip

        onto = of.onto.everywhere() if spread > 0 else of.onto
        return Result(easel.drawn(make, hint), express=onto, told=told)

    return draw
