"""`sfumato edit style`: what is seen stays, how it is drawn changes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.edits.options import Draw, Task


def style(
    reference: Annotated[
        Path | None, typer.Option(help="A picture whose colours and contrasts, scale by scale, are taken.")
    ] = None,
    weight: Annotated[float, typer.Option(help="How much of the reference, 0 to 1.")] = 0.5,
    structure: Annotated[
        int | None, typer.Option(help="Keep the means of blocks of so many pixels a side. [keep none]")
    ] = None,
    until: Annotated[
        float, typer.Option(help="Share of the steps in which reference and structure are minded.")
    ] = 0.7,
    strength: Annotated[
        float, typer.Option(help="How far back the picture is taken: 1 to its noise, less keeps its forms.")
    ] = 1.0,
    was_class: Annotated[str | None, typer.Option(help="The class that the picture is of. [none]")] = None,
    was_prompt: Annotated[str | None, typer.Option(help="A caption of the picture. [none]")] = None,
    was_set: Annotated[list[str] | None, typer.Option(help="An attribute as it is, as in age=0.7.")] = None,
) -> Draw:
    """Draw what a picture shows in another style: that of a condition (--prompt, --class), of a reference, or
    both.

    The picture is taken back to its noise as what it was, which keeps what is seen; --structure keeps more.
    """
    import torch
    from torch import Tensor

    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.starts import bench_of
    from sfumato.cli.edits.was import Was, taken_back
    from sfumato.editing.first_steps import FirstSteps, check_share
    from sfumato.editing.job import Bench, Job
    from sfumato.editing.style import Statistics, Structured, coarse
    from sfumato.errors import SettingsError
    from sfumato.plans import descend

    if not 0 <= weight <= 1:
        raise SettingsError(
            f"--weight {weight:g}: give one from 0, nothing of the reference, to 1, all of it"
        )
    check_share(until, "--until")
    if (reference is None and weight != 0.5) or (reference is None and structure is None and until != 0.7):
        raise SettingsError(
            "--weight is of a --reference, and --until of that or of --structure: give one, or leave it out"
        )
    was = Was(was_class, was_prompt, tuple(was_set or ()))

    def draw(easel: Easel) -> Result:
        if reference is None and not (was.told or easel.conditioned):
            raise SettingsError("in what style? Say it with --prompt, --class or --set, or by a --reference")
        of = None if reference is None else easel.picture(reference, "style")[None]
        content = None if structure is None else easel.picture()[None]
        if content is not None and structure is not None:
            coarse(content, structure)  # which says what is wrong with it, if anything

        def made(b: Bench) -> Tensor:
            x, levels = taken_back(easel, b, b.run.denoiser(was.recipe(b)), strength)
            denoise, during = b.denoise, FirstSteps.of(levels, until)
            if of is not None:
                denoise = Statistics(denoise, of.to(x), weight, during)
            if content is not None and structure is not None:
                denoise = Structured(denoise, content.to(x), structure, during)
            return b.finished(Job(denoise, x, descend(levels)))

        return Result(torch.cat([made(bench_of(easel, part)) for part in easel.recipe.parts()]))

    return draw


TASKS = (Task(style, sampler="ddim"),)
