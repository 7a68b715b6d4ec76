"""`sfumato edit` change, directions and slide: another attribute, named by a condition or found without
names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.edits.options import ONE, Draw, Task

FILE = "directions.safetensors"
SHOWN = {"features": (-6.0, -3.0, 0.0, 3.0, 6.0), "noise": (-2.0, -1.0, 0.0, 1.0, 2.0)}
"""The amounts at which directions are shown: a move of features is partly undone by the layers after them."""


def change(
    strength: Annotated[
        float, typer.Option(help="How far back the picture is taken: 1 to its noise, less keeps its forms.")
    ] = 1.0,
    was_class: Annotated[str | None, typer.Option(help="The class that the picture is of. [none]")] = None,
    was_prompt: Annotated[str | None, typer.Option(help="A caption of the picture. [none]")] = None,
    was_set: Annotated[list[str] | None, typer.Option(help="An attribute as it is, as in age=0.7.")] = None,
    keep_words: Annotated[
        float,
        typer.Option(help="Share of the steps in which each word stays where it was (prompt-to-prompt)."),
    ] = 0.0,
    keep_places: Annotated[
        float, typer.Option(help="Share of the steps in which the places look at each other as they did.")
    ] = 0.0,
    weigh: Annotated[
        list[str] | None, typer.Option(help="A word of --prompt made stronger or weaker, as in red=2.")
    ] = None,
    keep_rest: Annotated[
        float | None,
        typer.Option(help="Change no place where changed words are seen less than this share, as 0.3."),
    ] = None,
) -> Draw:
    """Make a picture again as another class, with another attribute, or by another prompt.

    It is taken back to its noise as what it was (--was-class, --was-prompt, --was-set), and comes down as
    what is asked for.
    """
    from sfumato.cli.edits.changes import Change
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.was import Was

    was = Was(was_class, was_prompt, tuple(was_set or ()))
    asked = Change(strength, was, keep_words, keep_places, tuple(weigh or ()), keep_rest)

    def draw(easel: Easel) -> Result:
        return asked.drawn(easel)

    return draw


def directions(
    count: Annotated[int, typer.Option(help="How many directions.")] = 6,
    space: Annotated[
        str, typer.Option(help="features: of the network's middle; noise: of what pictures are made from.")
    ] = "features",
    pictures: Annotated[
        int | None, typer.Option(help="How many pictures are looked at. [features: 64, noise: 8]")
    ] = None,
    file: Annotated[Path | None, typer.Option(help=f"Where they go. [RUN/{FILE}]")] = None,
) -> Draw:
    """Find what pictures differ in most, without labels, and show each direction as a row.

    With a picture, or with --pictures 1, noise directions are those of that one.
    """
    from sfumato.cli.drawing import make_room
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.found import begun, find, looked_at, shown
    from sfumato.data.bundled import home_of
    from sfumato.editing.directions import save_directions
    from sfumato.errors import SettingsError

    if file is not None and file.suffix != ".safetensors":
        raise SettingsError(f"--file {file}: directions are written as x.safetensors")
    n = looked_at(space, count, pictures, len(SHOWN["features"]))

    def draw(easel: Easel) -> Result:
        of = begun(easel)
        found, told = find(easel, space, count, n, of)
        made = shown(easel, found, of[0], list(range(count)), SHOWN[space])

        def beside(_: Path) -> list[Path]:
            path = home_of(easel.run.path) / FILE if file is None else file
            about = {"weights": easel.run.sha256, "run": easel.run.path.resolve().name}
            make_room(path.parent)
            save_directions(path, found, about)
            return [path]

        return Result(made, columns=len(SHOWN[space]), told=(*of[0].told, *told), beside=beside)

    return draw


def slide(
    direction: Annotated[
        str, typer.Option(help="Which: a number from 1, or several by commas, a row each.")
    ] = "1",
    amounts: Annotated[
        str | None,
        typer.Option(help="How far, in standard deviations: a picture for each. [as found ones are shown]"),
    ] = None,
    file: Annotated[Path | None, typer.Option(help=f"Where the directions are. [RUN/{FILE}]")] = None,
) -> Draw:
    """Move a picture along directions that sfumato edit directions found; without one, that of --seed."""
    from sfumato.cli.drawing import GRID
    from sfumato.cli.edits.easel import Easel, Result
    from sfumato.cli.edits.found import begun, opened, shown
    from sfumato.cli.edits.starts import numbers, whole
    from sfumato.data.bundled import home_of
    from sfumato.errors import SettingsError

    asked, which = None if amounts is None else numbers(amounts, "--amounts"), whole(direction, "--direction")

    def draw(easel: Easel) -> Result:
        if len(easel.recipe.seeds) > 1:
            raise SettingsError("a slider moves one picture: name one class at most")
        found, told = opened(easel, home_of(easel.run.path) / FILE if file is None else file)
        steps = SHOWN[found.space] if asked is None else asked
        rows = [found.chosen(number) for number in which]
        if len(rows) * len(steps) > GRID:
            raise SettingsError(
                f"{len(rows)} directions by {len(steps)} amounts: at most {GRID:,} pictures: name fewer"
            )
        (of, *_) = begun(easel)
        made = shown(easel, found, of, rows, steps)
        return Result(made, columns=len(steps), told=(*of.told, *told))

    return draw


TASKS = (
    Task(change, sampler="ddim"),
    Task(directions, together=True, least=0, sampler="ddim", beside="file", without=ONE),
    Task(slide, least=0, sampler="ddim", without=ONE),
)
