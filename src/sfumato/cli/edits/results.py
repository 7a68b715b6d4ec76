"""From what a task has made to files: one picture, a grid, a folder, or the two pictures of an ensemble.

No file that an edit was made from is ever written over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sfumato.cli.drawing import GRID, check_target, make_room
from sfumato.cli.edits.easel import Easel, Result, Shelf, wanted
from sfumato.cli.edits.options import Asked, Draw, Task
from sfumato.cli.wishes import resize_of
from sfumato.data.bundled import home_of
from sfumato.editing.record import Edited, Source, pixel_hash
from sfumato.editing.zero_shot import STEPS
from sfumato.errors import SettingsError
from sfumato.files.pictures import Pixels, grid, write_png
from sfumato.inside.deviation import Deviation, deviation_of
from sfumato.provenance import check_account, origin, seen_from
from sfumato.runs import Recipe, Run, load

Shows = Literal["picture", "mean", "deviation"]


@dataclass(frozen=True)
class Target:
    """Where results go: one file, or a folder."""

    path: Path
    folder: bool

    @staticmethod
    def of(run: Run, out: Path | None, many: bool) -> Target:
        """As --out says; without it RUN/edits/. Raises SettingsError for several pictures and one file."""
        if out is None:
            return Target(home_of(run.path) / "edits", True)
        one = out.suffix.lower() == ".png" and not out.is_dir()
        if one and many:
            raise SettingsError(f"--out {out}: several pictures do not go into one file: give a folder")
        return Target(out, not one)

    def named(self, files: Files, recipe: Recipe, ending: str = "") -> Path:
        """The file of a result, or of all that are on one sheet: in a folder named by picture, task, seed,
        class, and a mark of all that it follows from, so that no two results share a name."""
        if not self.folder:
            return self.path.with_name(f"{self.path.stem}{ending}{self.path.suffix}")
        number = None if recipe.classes is None else recipe.classes[0]
        words = [image.stem for image in files.easel.images[:1]]
        words += [files.task.name, f"seed{recipe.seeds[0]}", *([] if number is None else [f"class{number}"])]
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(words))[:100]
        return self.path / f"{plain}-{recipe.mark(files.follows)}{ending}.png"


def ensemble(shown: Sequence[Pixels]) -> Deviation:
    """Mean and deviation of files' pixels as shares of their range, (C, H, W): what all agree in has none."""
    top = float(np.iinfo(shown[0].dtype).max)
    stack = np.stack([each if each.ndim == 3 else each[..., None] for each in shown])
    return deviation_of([torch.from_numpy(stack.astype(np.float64)).permute(0, 3, 1, 2) / top])


def sheet(shown: Sequence[Pixels], shows: Shows, columns: int | None) -> Pixels:
    """One file's pixels: the first picture, the grid of all, or what an ensemble shows. A deviation is grey:
    black where all agree, white where a pixel deviates by half its range or more."""
    if shows == "picture":
        return shown[0] if columns is None else grid(list(shown), columns)
    found = ensemble(shown)
    top = np.iinfo(shown[0].dtype).max
    values = found.mean.permute(1, 2, 0) if shows == "mean" else (2 * found.map).clamp(max=1)[..., None]
    whole = (values.numpy() * top).round()
    cast = whole.astype(np.uint16) if shown[0].dtype == np.uint16 else whole.astype(np.uint8)
    return cast[..., 0] if cast.shape[2] == 1 else cast


def write(
    easel: Easel,
    task: Task,
    own: Mapping[str, Any],
    result: Result,
    target: Target,
    columns: int,
    *,
    ensemble: bool,
) -> Iterator[Path]:
    """Writes a result, each file with its whole account; yields the paths."""
    shown, recipe = result.expressed(easel.run), easel.recipe
    files = Files(easel, task, own)
    if ensemble:
        for shows in ("mean", "deviation"):
            path = target.named(files, recipe, f"-{shows}")
            yield files.write(path, sheet(shown, shows, 1), recipe, columns=1, shows=shows)
    elif result.columns is not None:
        path = target.named(files, recipe)
        yield files.write(path, sheet(shown, "picture", result.columns), recipe, columns=result.columns)
    elif target.folder or len(shown) == 1:
        done = 0
        for part in recipe.parts():
            for i in range(len(part.seeds)):
                path = target.named(files, part.take([i]))
                yield files.write(path, shown[done + i], part, index=i)
            done += len(part.seeds)
    else:
        path = target.named(files, recipe)
        yield files.write(path, sheet(shown, "picture", columns), recipe, columns=columns)


@dataclass(frozen=True, eq=False)
class Files:
    """The files of one edit, each with its account."""

    easel: Easel
    task: Task
    own: Mapping[str, Any]

    @cached_property
    def follows(self) -> tuple[object, ...]:
        """What a result follows from beside its recipe."""
        easel = self.easel
        read = [(role, pixel_hash(pixels)) for (role, _), pixels in easel.shelf.seen.items()]
        return easel.run.sha256, self.task.name, dict(self.own), easel.images, easel.resize, read

    def write(
        self,
        path: Path,
        shown: Pixels,
        recipe: Recipe,
        *,
        index: int | None = None,
        columns: int | None = None,
        shows: Shows = "picture",
    ) -> Path:
        """Writes one file. Raises SettingsError if a source of the edit is there."""
        for _, source in self.easel.shelf.seen:
            if source.resolve() == path.resolve():
                raise SettingsError(f"{path} is what the edit is made from, and is kept: give another --out")
        make_room(path.parent)
        said = self.edited(path, recipe, index=index, columns=columns, shows=shows)
        text, account = said.texts(shown.shape[1], shown.shape[0])
        write_png(path, shown, parameters=text, recipe=account)
        return path

    def edited(
        self,
        path: Path,
        recipe: Recipe,
        *,
        index: int | None = None,
        columns: int | None = None,
        shows: Shows = "picture",
    ) -> Edited:
        """The account for a file at `path`: everything is named as seen from there."""
        sources = tuple(
            Source(
                role=role,
                path=seen_from(path.parent, source),
                sha256=pixel_hash(pixels),
                account=self.easel.shelf.told(source),
            )
            for (role, source), pixels in self.easel.shelf.seen.items()
        )
        return Edited(
            task=self.task.name,
            images=tuple(seen_from(path.parent, image) for image in self.easel.images),
            options={name: _said(value, path.parent) for name, value in self.own.items()},
            sources=sources,
            resize=self.easel.resize,
            shows=shows,
            origin=origin(self.easel.run, recipe, path, index=index, columns=columns),
        )


def _said(value: Any, folder: Path) -> Any:
    """An option as JSON, its files as seen from a folder."""
    if isinstance(value, Path):
        return seen_from(folder, value)
    if isinstance(value, list | tuple):
        return [_said(one, folder) for one in value]
    return value


def check_places(task: Task, asked: Asked, own: Mapping[str, Any]) -> None:
    """Raises SettingsError, before the first look, for a file that would stand in the place of one that the
    edit is made from, of its result, or of another picture's."""
    if asked.out is not None:
        check_target(asked.out)
    beside: Path | None = None if task.beside is None else own[task.beside]
    if beside is not None and len(asked.images) > 1 and not task.together:
        raise SettingsError(f"--{task.beside} {beside} holds one picture's: leave it out for several")
    read = [*asked.images, *(own[name] for name in task.files if name != task.beside)]
    known = {one.resolve() for one in read if one is not None}
    for option, path in (("out", asked.out), (task.beside, beside)):
        if path is not None and path.resolve() in known:
            raise SettingsError(
                f"--{option} {path} is what the edit is made from, or its result: give another place"
            )
        known |= set[Path]() if path is None else {path.resolve()}


def check_room(run: Run, recipe: Recipe, target: Target, ensemble: bool) -> None:
    """Raises SettingsError, before the first look, for more than fits into one file."""
    whole = ensemble or not target.folder
    if len(recipe.seeds) > GRID and not target.folder and not ensemble:
        raise SettingsError(
            f"{len(recipe.seeds):,} results do not fit into one grid of {GRID:,}: give --out folder/"
        )
    for part in (recipe,) if whole else recipe.parts():
        check_account(run, part)


def edit(task: Task, asked: Asked, own: Mapping[str, Any]) -> Iterator[str | Path]:
    """Does a task as the command line asks: yields what it tells, and the files that it writes."""
    how = None if asked.resize is None else resize_of(asked.resize)
    check_places(task, asked, own)
    run = load(asked.run, asked.device, asked.weights)
    if asked.sampler is None and task.sampler is not None:
        asked = replace(asked, sampler=task.sampler)
    if asked.steps is None:
        asked = replace(asked, steps=STEPS.get(str(own.get("method"))))
    recipe, columns = wanted(run, asked)
    draw: Draw = task.function(**own)
    groups: Sequence[Sequence[Path]] = (
        [asked.images] if task.together or not asked.images else [[image] for image in asked.images]
    )
    target = Target.of(run, asked.out, many=len(groups) > 1)
    check_room(run, recipe, target, asked.ensemble is not None)
    for images in groups:
        easel = Easel(run, recipe, tuple(images), how, Shelf())
        result: Result = draw(easel)
        yield from result.told
        paths: list[Path] = []
        for path in write(easel, task, own, result, target, columns, ensemble=asked.ensemble is not None):
            paths.append(path)
            yield path
        yield from () if result.beside is None else result.beside(paths[0])
