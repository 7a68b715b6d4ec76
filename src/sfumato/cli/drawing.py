"""Drawing for the command line: which classes, where to, and files that say how they were made."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfumato.cli.telling import on_one_line
from sfumato.data.bundled import home_of
from sfumato.errors import RunError, SettingsError
from sfumato.files.pictures import Pixels, grid, to_bytes, write_film, write_png
from sfumato.level import spread_on
from sfumato.provenance import check_account, origin, parameters
from sfumato.runs import MOST, Recipe, Run, looked
from sfumato.sampling import Step

GRID = 1024
"""The most pictures in one grid: what a person can look at, and what fits into a PNG's text."""
FRAMES = 60
HOLD = 30
"""So many frames show the end of a film, before it begins again."""
FILMS = (".webp", ".gif", ".png")


def arrange(
    names: Sequence[str], number: int | None, asked: Sequence[str]
) -> tuple[list[int | str | None], int]:
    """The class of each picture, and how many are side by side in a grid.

    Without a class asked for, the classes take turns. One class: `number` of it. Several: a row of `number`
    for each.
    """
    groups: list[int | str | None] = []
    for said in asked:
        groups += _group(names, said)
    n = number if number is not None else 8 if len(groups) > 1 else 16
    if not 1 <= n <= MOST // max(1, len(groups)):
        raise SettingsError(f"-n {n}: give a number from 1 to {MOST // max(1, len(groups)):,}")
    if len(groups) > 1:
        return [group for group in groups for _ in range(n)], n
    side = math.ceil(math.sqrt(n))
    if groups:
        return groups * n, side
    return [i % len(names) if names else None for i in range(n)], side


def arrange_all(
    names: Sequence[str], number: int | None, asked: Sequence[str], prompts: Sequence[str]
) -> tuple[list[int | str | None], list[str] | None, int]:
    """As `arrange`, with the prompt of each picture: of several prompts, a row of `number` for each, and for
    each class that is asked for beside it. Without prompts they are None."""
    if not prompts:
        classes, columns = arrange(names, number, asked)
        return classes, None, columns
    groups = [group for said in asked for group in _group(names, said)] or [None]
    several = len(groups) * len(prompts) > 1
    n = number if number is not None else 8 if several else 16
    if not 1 <= n <= MOST // (len(groups) * len(prompts)):
        raise SettingsError(f"-n {n}: give a number from 1 to {MOST // (len(groups) * len(prompts)):,}")
    rows = [(group, prompt) for prompt in prompts for group in groups for _ in range(n)]
    columns = n if several else math.ceil(math.sqrt(n))
    return [group for group, _ in rows], [prompt for _, prompt in rows], columns


def _group(names: Sequence[str], said: str) -> list[int | str | None]:
    if said in names:
        return [said]
    match said.strip().lower():
        case "all" if names:
            return list(range(len(names)))
        case "none":
            return [None]
        case _:
            parts = [part.strip() for part in said.split(",") if part.strip()]
            if not parts:
                raise SettingsError(f"--class {said!r} names no class: give a name, a number, all or none")
            return list(parts)


def check_target(out: Path) -> None:
    """Raises SettingsError for a file that is not a PNG. A name without an ending is a folder."""
    if out.suffix and out.suffix.lower() != ".png" and not out.is_dir():
        raise SettingsError(f"--out {out}: pictures are written as PNG: give x.png for one grid, or a folder")


def place(run: Run, recipe: Recipe, asked: Sequence[str]) -> Path:
    """Where pictures go if nobody says: RUN/samples/, by a name that tells what they are, and
    ends in a mark of all that they follow from."""
    sampler = recipe.sampler if isinstance(recipe.sampler, str) else "sampler"
    pace = f"tolerance{recipe.tolerance:g}" if recipe.steps is None else str(recipe.steps)
    words = [sampler, pace, f"seed{recipe.seeds[0]}", f"n{len(recipe.seeds)}"]
    words += [f"class-{'-'.join(asked)}"] if asked else []
    words += [f"prompt-{one[:40]}" for one in dict.fromkeys(recipe.prompts or ()) if one]
    words += list(dict.fromkeys(f"{k}{v}" for one in recipe.values or () for k, v in (one or {}).items()))
    words += [f"{one.name}-{one.value}-{one.weight:g}" for one in recipe.also]
    words += [f"guidance{recipe.guidance:g}"] if recipe.guidance != 1 else []
    words += [f"{name}{scale:g}" for name, scale in recipe.scales.items()]
    words += [f"classifier{recipe.judged.scale:g}"] if recipe.judged is not None else []
    words += [f"autoguide{recipe.weaker.scale:g}"] if recipe.weaker is not None else []
    words += [f"clip{recipe.pulled.scale:g}"] if recipe.pulled is not None else []
    words += [f"eta{recipe.eta:g}"] if recipe.eta is not None else []
    words += [run.weights] if run.weights != "ema" else []
    name = f"{re.sub(r'[^A-Za-z0-9._-]+', '_', '-'.join(words))[:100]}-{recipe.mark(run.sha256)}"
    return home_of(run.path) / "samples" / (name if len(recipe.seeds) > GRID else f"{name}.png")


@dataclass(frozen=True)
class Film:
    """A film in the making: frame by frame, batch by batch. `of` is "x" or "x0"."""

    path: Path
    of: str = "x"
    batches: list[list[Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.path.suffix.lower() not in FILMS:
            raise SettingsError(f"--film {self.path}: films are written as .webp, .gif or .png")
        if self.of not in ("x", "x0"):
            raise SettingsError(
                f"--film-of {self.of}: choose x (the picture with its noise) or x0 (the guess)"
            )

    def see(self, step: Step) -> None:
        """Keeps what the move was made from: x on the scale of unit data, or what was believed."""
        estimate = step.estimate
        if estimate is not None:
            shown = (
                estimate.x0 if self.of == "x0" else estimate.x / spread_on(estimate.level.norm, estimate.x)
            )
            self.batches[-1].append(shown.cpu())

    def write(self, run: Run, pictures: Tensor, columns: int) -> None:
        """Writes the film; the finished pictures are its last frames. A batch that took fewer steps is shown
        at the same part of its way."""
        steps = max(len(batch) for batch in self.batches)
        parts = np.linspace(0, 1, min(steps, FRAMES)).tolist()
        at = lambda batch, part: batch[round(part * (len(batch) - 1))]
        frames = [torch.cat([at(batch, part) for batch in self.batches]) for part in parts]
        shown = [grid(pixels(run, frame.nan_to_num()), columns) for frame in [*frames, pictures]]
        make_room(self.path.parent)
        write_film(self.path, shown + shown[-1:] * HOLD, 60)


def pixels(run: Run, pictures: Tensor, deep: bool | None = None) -> list[Pixels]:
    """What is written into files: the images' range as whole numbers, 8 or 16 bits as trained, or as said."""
    image = run.card.image
    if (image.low, image.high) != (-1.0, 1.0):
        pictures = (pictures - image.low) / (image.high - image.low) * 2 - 1
    deep = image.bits == 16 if deep is None else deep
    return [to_bytes(picture, deep=deep) for picture in pictures]


def make_room(folder: Path) -> None:
    """Makes a folder, and those above it. Raises RunError with the system's words."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be made ({error.strerror}): choose another place with --out"
        ) from None


def draw(run: Run, recipe: Recipe, target: Path, columns: int, film: Film | None = None) -> Iterator[Path]:
    """Makes the recipe's pictures and writes them, one grid or one file each; yields the paths."""
    n = len(recipe.seeds)
    one = target.suffix.lower() == ".png" and not target.is_dir()
    if (one or film is not None) and n > GRID:
        raise SettingsError(
            f"{n:,} pictures do not fit into one grid or film of {GRID:,}: give --out folder/"
        )
    for part in (recipe,) if one else recipe.parts():
        check_account(run, part)
    make_room(target.parent if one else target)
    made: list[Tensor] = []
    looks: list[Tensor] = []
    done, tell = 0, on_one_line("pictures")
    for part in recipe.parts():
        pictures, evaluations = _walked(run, part, film)
        looks += [] if evaluations is None else [evaluations]
        if not one:
            yield from _each(run, part, pictures, target, done)
        if one or film is not None:
            made.append(pictures)
        done += len(pictures)
        tell(done, n)
    if one:
        yield _whole(run, recipe, torch.cat(made), target, columns)
    if film is not None:
        film.write(run, torch.cat(made), columns)
        yield film.path
    if looks:
        print(looked(torch.cat(looks)), file=sys.stderr)


def _walked(run: Run, part: Recipe, film: Film | None) -> tuple[Tensor, Tensor | None]:
    """The pictures, and how often each was looked at where they differ in it."""
    if film is not None:
        film.batches.append([])
    x, evaluations = torch.empty(0), None
    for step in run.walk(part):
        x, evaluations = step.x, step.evaluations
        if film is not None:
            film.see(step)
    return run.finished(x, part), evaluations


def write_picture(
    run: Run,
    path: Path,
    shown: Pixels,
    recipe: Recipe,
    *,
    index: int | None = None,
    columns: int | None = None,
) -> Path:
    """Writes one picture, or one grid, of a recipe as PNG with all that it follows from."""
    made = origin(run, recipe, path, index=index, columns=columns)
    said = parameters(made, run.card.image.width, run.card.image.height)
    write_png(path, shown, parameters=said, recipe=made.model_dump(mode="json"))
    return path


def _each(run: Run, part: Recipe, pictures: Tensor, folder: Path, first: int) -> Iterator[Path]:
    for i, shown in enumerate(pixels(run, pictures)):
        number = None if part.classes is None else part.classes[i]
        said = [None if number is None else run.classes[number], part.prompts[i] if part.prompts else None]
        label = "".join(f"-{re.sub(r'[^A-Za-z0-9._-]+', '_', one)[:40]}" for one in said if one)
        path = folder / f"{first + i:05d}-seed{part.seeds[i]}{label}.png"
        yield write_picture(run, path, shown, part, index=i)


def _whole(run: Run, recipe: Recipe, pictures: Tensor, path: Path, columns: int) -> Path:
    shown = pixels(run, pictures)
    if len(shown) == 1:
        return write_picture(run, path, shown[0], recipe, index=0)
    return write_picture(run, path, grid(shown, columns), recipe, columns=columns)
