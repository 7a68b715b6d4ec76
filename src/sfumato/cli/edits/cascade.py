"""`sfumato edit cascade`: small pictures from one run, made larger by others, from one seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.edits.inverse import upscale
from sfumato.cli.edits.options import Asked

if TYPE_CHECKING:
    from sfumato.runs import Recipe, Run

AUGMENT = 0.1
"""The noise that is put on small pictures for a run that was trained with it."""


def cascade(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="The run that draws the small pictures.")],
    upscalers: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Runs that make them larger, one after the other.")
    ],
    number: Annotated[int, typer.Option("-n", "--number", help="How many pictures; of each class.")] = 1,
    class_: Annotated[
        list[str] | None, typer.Option("--class", help="A class by name or number, as in sfumato sample.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="An attribute, for BASE and all that know it.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="What to draw, for runs with text.")] = None,
    guidance: Annotated[str | None, typer.Option(help="Of BASE, as for sample. [its own]")] = None,
    steps: Annotated[int | None, typer.Option(help="Of every run. [its own]")] = None,
    augment: Annotated[
        float | None,
        typer.Option(help="Noise on each small picture, 0 to 0.5: its flaws matter less. [0.1 if trained]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Picture i has the seed SEED + i; the rest follows from it.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="A folder; the small ones go into folders in it. [RUN/edits]")
    ] = None,
    batch: Annotated[int, typer.Option(help="How many small pictures at a time.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    weights: Annotated[str, typer.Option(help="ema, raw, step:12000, or ema:0.05 for a width.")] = "ema",
) -> None:
    """Draw small pictures with one run and make them larger with others. Each file says the whole chain."""
    from sfumato.cli.drawing import check_target
    from sfumato.data.bundled import home_of, model_path
    from sfumato.errors import SettingsError

    first = Asked(
        run=base, images=[], number=number, class_=class_, set_=set_, prompt=prompt, guidance=guidance,
        steps=steps, seed=seed, batch=batch, device=device, weights=weights,
    )  # fmt: skip
    if out is not None:
        check_target(out)
        if out.suffix and not out.is_dir():
            raise SettingsError(f"--out {out}: a cascade writes pictures of every size: give a folder")
    folder = home_of(model_path(upscalers[-1])) / "edits" if out is None else out
    for path in _stages(first, upscalers, folder, augment):
        typer.echo(str(path))


def _stages(first: Asked, upscalers: list[Path], folder: Path, augment: float | None) -> Iterator[Path]:
    """The files of all stages; those of the last lie in the folder itself."""
    from sfumato.cli.drawing import draw
    from sfumato.cli.edits.easel import wanted
    from sfumato.cli.wishes import settings_of
    from sfumato.conditions.nearest import match
    from sfumato.noise import key_of
    from sfumato.runs import load

    run = load(first.run, first.device, first.weights)
    recipe, columns = wanted(run, first)
    labels = [None if number is None else run.classes[number] for number in recipe.classes or ()]
    paths = list(draw(run, recipe, folder / "small", columns))
    yield from paths
    for stage, path in enumerate(upscalers, 1):
        run = load(path, first.device, first.weights)
        into = folder if stage == len(upscalers) else folder / f"larger-{stage}"
        seeds = [key_of(seed, "cascade", stage) for seed in recipe.seeds]
        known = run.conditions.attributes.names
        values = [one for one in first.set_ or [] if match(one.partition("=")[0], known) is not None]
        classes = [label if label in run.classes else None for label in labels] if run.classes else None
        larger: list[Path] = []
        for start in range(0, len(paths), first.batch):
            rows = slice(start, start + first.batch)
            part = run.recipe(
                classes=None if not classes else classes[rows],
                prompt=None if run.card.text is None else first.prompt,
                set=settings_of(values),
                steps=first.steps,
                seeds=seeds[rows],
                batch=first.batch,
            )
            for made in _enlarged(run, part, paths[rows], into, augment):
                larger.append(made)
                yield made
        paths = larger


def _enlarged(
    run: Run, recipe: Recipe, paths: list[Path], folder: Path, augment: float | None
) -> Iterator[Path]:
    """The files of pictures made larger, all in one batch; each is an edit of its own, like any other."""
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.results import Target, write
    from sfumato.editing.upscale import trained

    usual = AUGMENT if trained(run) is not None else 0.0
    own = upscale.defaults | {"augment": usual if augment is None else augment}
    made = upscale.function(**own)(Easel(run, recipe, tuple(paths))).pictures
    for i, path in enumerate(paths):
        easel = Easel(run, recipe.take([i]), (path,))
        easel.pixels()  # which its account tells of
        yield from write(easel, upscale, own, Result(made[[i]]), Target(folder, True), 1, ensemble=False)
