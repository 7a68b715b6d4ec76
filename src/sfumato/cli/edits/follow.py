"""`sfumato edit follow`: pictures after a picture of the kind that the run was shown in training."""

from __future__ import annotations

from sfumato.cli.edits.options import Draw, task


@task
def follow() -> Draw:
    """Draw pictures that follow an outline, a mask, a map: what the run was shown by train --picture."""
    from sfumato.cli.edits.easel import Easel, Result, check_size
    from sfumato.data.aligned import with_trust
    from sfumato.data.fit import fit, plain
    from sfumato.errors import SettingsError

    def draw(easel: Easel) -> Result:
        run, image = easel.run, easel.run.card.image
        said = run.card.picture
        if said is None or not said.column:
            raise SettingsError(
                f"{run.name} was not trained to follow pictures: sfumato train --picture COLUMN"
            )
        shown, size = easel.pixels(role=said.column), (image.height, image.width)
        check_size(run, shown, easel.images[0], easel.resize, size)
        deep = shown.dtype == "uint16"
        fitted = fit(plain(shown), size, easel.resize or "crop", said.channels - 1, deep)
        return Result(run.make(easel.recipe, with_trust(fitted[None])))

    return draw
