"""`sfumato edit` invert, interpolate and vary: what is done with the noise that pictures are made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.edits.options import ONE, Draw, Task


def invert(
    noise: Annotated[
        Path | None, typer.Option(help="x.safetensors: where the noise goes. [beside the picture]")
    ] = None,
    looks: Annotated[
        int, typer.Option(help="At most so many a move until it is exact; 1 is plain DDIM inversion.")
    ] = 30,
    tolerance: Annotated[float, typer.Option(help="By which a move may miss.")] = 1e-6,
) -> Draw:
    """Find the noise that a picture is made from, and make it again from that.

    Other edits take the noise's file in place of a picture.
    """
    from sfumato.cli.drawing import make_room
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.starts import missed
    from sfumato.editing.invert import Refine, check_plain, regenerate
    from sfumato.editing.invert import invert as inverted
    from sfumato.editing.job import bench
    from sfumato.editing.noise_file import ENDING, write_noise
    from sfumato.errors import SettingsError

    refine = Refine(tolerance, looks)
    if noise is not None and noise.suffix != ENDING:
        raise SettingsError(f"--noise {noise}: noise is written as {ENDING}")

    def draw(easel: Easel) -> Result:
        recipe = easel.recipe
        if len(recipe.seeds) > 1:
            raise SettingsError("an inversion finds one noise: name one class at most")
        b = bench(easel.run, recipe)
        check_plain(b.how)
        picture = b.rows(easel.picture())
        found = inverted(b.denoise, picture, b.levels, refine)
        again = regenerate(b.denoise, found.x, b.levels)
        x = (found.x / float(found.level.norm)).cpu()
        said = missed(easel.images[0], picture, again, b)
        spread = f"{found.looks} looks in {len(b.levels) - 1} moves; its standard deviation is {x.std():.3f}"
        about = {"run": easel.run.path.resolve().name, "weights": easel.run.sha256, "steps": recipe.steps,
                 "sampler": str(recipe.sampler), "guidance": recipe.guidance, "told": said}  # fmt: skip

        def beside(path: Path) -> list[Path]:
            target = path.with_suffix(ENDING) if noise is None else noise
            make_room(target.parent)
            write_noise(target, x[0], about)
            return [target]

        return Result(easel.run.finished(again, recipe), told=(said, spread), beside=beside)

    return draw


def interpolate(
    seeds: Annotated[
        str | None, typer.Option(help="Seeds to go through, after the pictures, as in 3,8,12.")
    ] = None,
    frames: Annotated[int, typer.Option(help="How many pictures, from the first to the last.")] = 8,
    sheet: Annotated[
        bool, typer.Option("--sheet", help="Between four: a sheet of frames x frames pictures.")
    ] = False,
    closed: Annotated[bool, typer.Option("--closed", help="And on towards the first again.")] = False,
    to_class: Annotated[
        str | None, typer.Option(help="The class that the last picture is of; --class is the first's.")
    ] = None,
    to_prompt: Annotated[
        str | None, typer.Option(help="The last picture's prompt; --prompt is the first's.")
    ] = None,
    film: Annotated[Path | None, typer.Option(help="x.webp, x.gif or x.png: the way as a film.")] = None,
) -> Draw:
    """Go from picture to picture, or seed to seed, through noise; or from one condition to another."""
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.ways import Way

    way = Way(seeds, frames, sheet, closed, to_class, to_prompt, film)

    def draw(easel: Easel) -> Result:
        return way.drawn(easel)

    return draw


def vary(
    angle: Annotated[
        float, typer.Option(help="How far the noise is turned: 0 is the same picture, 1.57 another one.")
    ] = 0.3,
    of: Annotated[int, typer.Option(help="Without a picture: the seed of the one that is varied.")] = 0,
) -> Draw:
    """Draw pictures near one: near in everything at once, where img2img keeps the rough forms."""
    import torch

    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.starts import bench_of, starts
    from sfumato.editing import variations

    def draw(easel: Easel) -> Result:
        _, found = starts(easel, () if easel.images else [of])
        benches = [bench_of(easel, part) for part in easel.recipe.parts()]
        jobs = [variations.vary(b.denoise, found[0].x, b.levels, b.noise, angle) for b in benches]
        made = [b.finished(job) for b, job in zip(benches, jobs, strict=True)]
        return Result(torch.cat(made), told=found[0].told)

    return draw


TASKS = (
    Task(invert, sampler="ddim", beside="noise", without=ONE),
    Task(interpolate, together=True, least=0, sampler="ddim", beside="film", without=ONE),
    Task(vary, least=0, sampler="ddim"),
)
