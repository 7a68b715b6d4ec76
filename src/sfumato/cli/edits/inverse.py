"""`sfumato edit` upscale, colourise, deblur, sense and draw: a picture from less than itself.

By the task that the run was trained for, or else, with any run, by solving for what was measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.edits.options import Draw, task

Way = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="trained; for any run pigdm, ddrm, or dps, of 100 steps. [trained if it is, or pigdm]",
    ),
]
Solving = Annotated[
    str,
    typer.Option(
        "--method", help="pigdm, which is exact for Gaussians; ddrm, the fastest; dps, of 100 steps."
    ),
]
Noise = Annotated[
    float, typer.Option(help="Of pigdm and ddrm: the picture's noise, as a share of its range (0.05).")
]
Scale = Annotated[
    float | None, typer.Option(help="Of dps: how far each step goes to the picture. [200 / --steps]")
]


@task
def upscale(
    factor: Annotated[int | None, typer.Option(help="How many times larger. [what fills the model]")] = None,
    method: Way = None,
    augment: Annotated[
        float, typer.Option(help="Of trained: noise put on the picture first, 0 to 0.5, to believe it less.")
    ] = 0.0,
    noise: Noise = 0.0,
    scale: Scale = None,
) -> Draw:
    """Make a picture larger, in tiles if larger than the model draws, and say how well it keeps to it."""
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.partial import Partial, own_size, span, written
    from sfumato.editing.upscale import consistency, enlarged, factor_of
    from sfumato.errors import SettingsError
    from sfumato.operators import downsample
    from sfumato.training.hints import Upscale

    def draw(easel: Easel) -> Result:
        small, run = own_size(easel), easel.run
        part = Partial.of(easel, "upscale", method, noise, scale)
        height, width = small.shape[2:]
        by = factor_of(run, (height, width), factor, part.hint)
        if isinstance(part.hint, Upscale):
            hint = part.hint
            made = part.told(lambda recipe: enlarged(run, recipe, small, hint, augment))
        elif augment:
            raise SettingsError("--augment goes with a run that was trained for it: say --noise instead")
        else:
            made = part.solved(downsample((small.shape[1], height * by, width * by), (height, width)), small)
        fits = float(consistency(written(easel, made), small, span(easel)).mean())
        return Result(made, told=(f"made small again: the given picture to {fits:.1f} dB",))

    return draw


@task
def colourise(method: Way = None, noise: Noise = 0.0, scale: Scale = None) -> Draw:
    """Give a grey picture colours. Of a colour picture the luma is taken."""
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.partial import Partial, canvas, span, written
    from sfumato.editing.upscale import decibels, told
    from sfumato.operators import grey
    from sfumato.training.hints import Colourise, luma

    def draw(easel: Easel) -> Result:
        part = Partial.of(easel, "colourise", method, noise, scale)
        light = luma(canvas(easel))
        operator = grey((easel.run.card.image.channels, *light.shape[2:]))
        if isinstance(part.hint, Colourise):
            hint = part.hint.of(light)
            made = part.told(lambda recipe: told(easel.run, recipe, hint))
        else:
            made = part.solved(operator, light)
        again = luma(written(easel, made))
        fits = float(decibels(again, light.expand(len(made), -1, -1, -1), span(easel)).mean())
        return Result(made, told=(f"in grey again: the given picture to {fits:.1f} dB",))

    return draw


@task
def deblur(
    blur: Annotated[float | None, typer.Option(help="The blur's standard deviation, in pixels.")] = None,
    kernel: Annotated[
        Path | None,
        typer.Option(help="A picture of the blur itself (a moved point), where it is no Gaussian."),
    ] = None,
    method: Way = None,
    noise: Noise = 0.0,
    scale: Scale = None,
) -> Draw:
    """Sharpen a blurred picture. A run that was trained for it finds the blur out; others must be told."""
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.partial import TRAINED, Partial, blurring, canvas, span, written
    from sfumato.editing.upscale import decibels, told
    from sfumato.errors import SettingsError
    from sfumato.training.hints import Deblur

    def draw(easel: Easel) -> Result:
        said = blur is not None or kernel is not None
        chosen = method or ("pigdm" if said else None)
        part = Partial.of(easel, "deblur", chosen, noise, scale)
        picture = canvas(easel)
        if isinstance(part.hint, Deblur):
            if said:
                raise SettingsError(f"--method {TRAINED} finds the blur out: leave out --blur and --kernel")
            hint = part.hint.of(picture)
            return Result(part.told(lambda recipe: told(easel.run, recipe, hint)))
        operator = blurring(easel, picture, blur, kernel)
        made = part.rounded().solved(operator, picture)
        again = operator(written(easel, made))
        fits = float(decibels(again, picture.expand(len(made), -1, -1, -1), span(easel)).mean())
        return Result(made, told=(f"blurred again: the given picture to {fits:.1f} dB",))

    return draw


@task
def sense(
    share: Annotated[
        float, typer.Option(help="How many numbers are measured, of those of the picture.")
    ] = 0.2,
    method: Solving = "pigdm",
    noise: Noise = 0.0,
    scale: Scale = None,
) -> Draw:
    """Measure a picture by a few random numbers, draw it from these alone, and say how near it comes."""
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.partial import Partial, canvas, span
    from sfumato.editing.upscale import decibels
    from sfumato.editing.zero_shot import Method
    from sfumato.noise import Noise as Streams
    from sfumato.operators import sensing

    def draw(easel: Easel) -> Result:
        part, picture = Partial(easel, "sense", None, Method(method, noise, scale)), canvas(easel)
        operator = sensing(picture.shape[1:], share)
        y = operator(picture)
        y = y + noise * span(easel) * Streams((0,)).normal(y.shape[1:], "measurement")
        made = part.solved(operator, y)
        near = float(decibels(made, picture.expand(len(made), -1, -1, -1), span(easel)).mean())
        told = f"from {y.shape[1]:,} numbers of {picture.numel():,}: the given picture to {near:.1f} dB"
        return Result(made, told=(told,))

    return draw


@task
def draw(
    trace: Annotated[bool, typer.Option("--trace", help="Take the outlines of the picture first.")] = False,
) -> Draw:
    """Draw a picture from outlines, white on black, with a run that was trained by --task edges."""
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.partial import TRAINED, Partial, canvas
    from sfumato.editing.upscale import told
    from sfumato.errors import SettingsError
    from sfumato.training.hints import Edges, luma, outlines

    def draw(easel: Easel) -> Result:
        part, picture = Partial.of(easel, "edges", TRAINED, 0.0, None), canvas(easel)
        if not isinstance(part.hint, Edges):
            raise SettingsError(f"{easel.run.path} was not trained to draw (sfumato train --task edges)")
        hint = part.hint.of(outlines(picture) if trace else luma(picture), picture.shape[1])
        return Result(part.told(lambda recipe: told(easel.run, recipe, hint)))

    return draw


TASKS = (upscale, colourise, deblur, sense, draw)
