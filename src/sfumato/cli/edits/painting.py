"""`sfumato edit` img2img."""

from __future__ import annotations

from typing import Annotated

import typer

from sfumato.cli.edits.options import Draw, task


@task
def img2img(
    strength: Annotated[
        float, typer.Option(help="How much is drawn anew: above 0, where nothing is, to 1, where all is.")
    ] = 0.6,
) -> Draw:
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
