"""What `sfumato look` looks at: each look writes its files and says, in sentences, what is to be seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from sfumato.cli.drawing import arrange
from sfumato.cli.telling import on_one_line
from sfumato.cli.wishes import resize_of
from sfumato.data.bundled import open_source
from sfumato.data.prepare import prepare
from sfumato.errors import SettingsError
from sfumato.files import write_json
from sfumato.inside import curves, overfit
from sfumato.inside.deviation import decided, deviation, stages
from sfumato.inside.figure import make_folder, write_figure
from sfumato.inside.loss_figure import loss_figure
from sfumato.inside.losses import losses, trained_where
from sfumato.inside.panel import write_panel
from sfumato.inside.sheet import log_snr_words
from sfumato.inside.uncertainty_figure import seeds_figure, stages_figure
from sfumato.runs import Recipe, Run

_CLASSES = 10
"""The most classes that are looked at if nobody says which: a page's width."""


def is_schedule(name: str) -> bool:
    """Whether this names a schedule, or a file of one, and no folder (a run of that name is written
    ./cosine)."""
    return (name in curves.NAMES or name.endswith(".json")) and not Path(name).is_dir()


def show(told: Iterator[str | Path]) -> None:
    """Prints sentences as they are, and the paths of what was written below them."""
    for one in told:
        typer.echo(f"  {one}" if isinstance(one, Path) else one)


def schedule(run: Run | str, folder: Path) -> Iterator[str | Path]:
    """The schedule of a run, or one by its name: schedule.png and schedule.json."""
    name = Path(run).name if isinstance(run, str) else run.path.resolve().name
    found = curves.curve(curves.named_schedule(run)) if isinstance(run, str) else _own(run)
    make_folder(folder)
    yield from curves.reading(found)
    yield write_figure(folder / "schedule.png", curves.schedule_figure(found, name))
    yield _json(folder / "schedule.json", found.to_json())


def _own(run: Run) -> curves.Curve:
    where, seed = trained_where(run)
    return curves.curve(run.model.schedule, where, seed)


def loss(
    run: Run, data: str, folder: Path, pictures: int, seed: int, batch: int, resize: str, crop: float
) -> Iterator[str | Path]:
    """The loss per noise level: loss.png and loss.json."""
    if pictures < 2 or batch < 1:
        raise SettingsError(f"--pictures {pictures}, --batch {batch}: at least 2 pictures and 1 at a time")
    fit = resize_of(resize)
    source = open_source(data)
    ready = prepare(source, **run.card.fitting(source), resize=fit, room=crop)
    make_folder(folder)
    found = losses(run, ready, pictures=pictures, seed=seed, batch=batch, told=on_one_line("pictures"))
    yield from overfit.reading(found)
    yield write_figure(folder / "loss.png", loss_figure(found))
    yield _json(folder / "loss.json", found.to_json())


@dataclass(frozen=True)
class Drawing:
    """How the pictures of an uncertainty are drawn, as the options say it."""

    number: int
    classes: Sequence[str]
    steps: int | None
    guidance: float | None
    seed: int
    batch: int


def uncertainty(run: Run, how: Drawing, folder: Path) -> Iterator[str | Path]:
    """The deviation over seeds, seeds.png, and along the way of the first picture, way.png."""
    if how.number < 2:
        raise SettingsError(f"-n {how.number}: a deviation needs at least 2 pictures")
    every: list[int | str | None] = [*range(len(run.classes))] or [None]
    asked = arrange(run.classes, 1, how.classes)[0] if how.classes else every
    recipes = [
        run.recipe(
            how.number, classes=one, steps=how.steps, seed=how.seed, guidance=how.guidance, batch=how.batch
        )
        for one in asked[:_CLASSES]
    ]
    make_folder(folder)
    found = [deviation(run, recipe) for recipe in recipes]
    mean = (sum(each.variance for each in found) / len(found)) ** 0.5
    yield f"Over {how.number} seeds a pixel deviates by {mean:.2f} (root of the mean variance)."
    names = [_name(run, recipe) for recipe in recipes]
    yield write_panel(folder / "seeds.png", seeds_figure(run, found, names))
    way = stages(run, recipes[0].take([0]), count=how.number)
    half = next((i for i, share in enumerate(decided(way)) if share > 0.5), len(way) - 1)
    yield (
        f"Of the picture of seed {how.seed} half is decided by log-SNR {log_snr_words(way[half].level)} "
        f"(t = {way[half].t:.2f}): that much of the variance of its endings is gone."
    )
    yield write_panel(folder / "way.png", stages_figure(run, way))


def _name(run: Run, recipe: Recipe) -> str:
    """What stands over a class's column."""
    if recipe.classes is None:
        return f"{len(recipe.seeds)} seeds"
    number = recipe.classes[0]
    return "no class" if number is None else run.classes[number]


def _json(path: Path, value: object) -> Path:
    write_json(path, value)
    return path
