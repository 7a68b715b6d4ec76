"""Making an edited picture again, and whatever it was made from that is no longer there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from sfumato.cli.again import Difference, Verdict, compare, differences, find_run, recipe_of
from sfumato.cli.drawing import check_target, pixels
from sfumato.cli.edit import TASKS
from sfumato.cli.edits.easel import DIRECTIONS, Easel, Result, Shelf, from_file
from sfumato.cli.edits.options import Task
from sfumato.cli.edits.results import Files, sheet
from sfumato.data.decode import decode
from sfumato.editing.record import Account, Edited, Source, is_edit, parse_edited, pixel_hash
from sfumato.errors import ImageFileError, RunError
from sfumato.files.pictures import Pixels, grid, read_recipe
from sfumato.files.png import encode_png
from sfumato.provenance import Origin, parse_origin
from sfumato.runs import Run, load

DEPTH = 100
"""The longest chain of edits that is made again."""


@dataclass(frozen=True, eq=False)
class Finder:
    """Where the sources of edits are found: where they were, among files that the user names, beside the
    result, or made again from their own accounts. What had to be made again and came out another is told."""

    asked: Path | None
    device: str
    others: tuple[Path, ...] = ()
    depth: int = 0
    told: list[Difference] = field(default_factory=list[Difference])

    def pixels(self, source: Source, path: Path, beside: Path) -> np.ndarray:
        """The pixels of a source that was at `path`. Raises ImageFileError where they cannot be had."""
        changed = False
        for place in (path, *self.others, beside / path.name):
            if not place.is_file():
                continue
            shown = from_file(place)
            if pixel_hash(shown) == source.sha256:
                return shown
            changed = changed or place == path
        if source.account is not None and self.depth < DEPTH:
            deeper = Finder(self.asked, self.device, self.others, self.depth + 1, self.told)
            shown = _as_read(made_again(source.account, path, deeper, source.sha256))
            found = pixel_hash(shown)
            if found != source.sha256:
                self.told.append(Difference(f"{source.role} {path.name}", source.sha256[:12], found[:12]))
            return shown
        what = "is no longer what was edited" if changed else "was edited, and is gone"
        raise ImageFileError(f"{path} {what}: give that picture with --source FILE")


def made_again(account: Account, path: Path, finder: Finder, wanted: str) -> Pixels:
    """The picture that an account tells of, which was at `path`. Alone first; where its pixels are not those
    with the hash `wanted`, with its whole batch."""
    if is_edit(account):
        redo = Redo.of(parse_edited(account, path), path, finder)
        shown = redo.shown(alone=True)
        return shown if pixel_hash(_as_read(shown)) == wanted or redo.single else redo.shown(alone=False)
    made = parse_origin(account, path)
    run = _run(made, path, finder)
    recipe = recipe_of(made, run, path)
    if made.columns is not None:
        return grid(pixels(run, run.make(recipe)), made.columns)
    index = made.index or 0
    shown = pixels(run, run.make(recipe.take([index])))[0]
    same = pixel_hash(_as_read(shown)) == wanted or len(made.seeds) == 1
    return shown if same else pixels(run, run.make(recipe))[index]


def _same(source: Source, path: Path) -> np.ndarray:
    """The bytes of the directions that an edit used. Raises ImageFileError where they are others now."""
    found = from_file(path, DIRECTIONS)
    if pixel_hash(found) != source.sha256:
        raise ImageFileError(f"{path} holds other directions than the edit used: put those there again")
    return found


def _as_read(shown: Pixels) -> np.ndarray:
    """Through a file and back: the one door keeps 8 bits of deep colour."""
    return decode(encode_png(shown, {})).array


def _run(made: Origin, path: Path, finder: Finder) -> Run:
    """The run that made the picture at `path`; the one that was asked for where that is gone."""
    try:
        place = find_run(path, made, finder.asked if finder.depth == 0 else None)
    except RunError:
        if finder.asked is None:
            raise
        place = finder.asked
    return load(place, finder.device, made.weights)


def _options(made: Edited, task: Task, path: Path) -> dict[str, Any]:
    """The task's own options as its function takes them, judged by its annotations; files as they were named
    from `path`. Raises ImageFileError."""
    from pydantic import TypeAdapter, ValidationError

    hints = get_type_hints(task.function)
    own: dict[str, Any] = {}
    for name, said in made.options.items():
        try:
            own[name] = TypeAdapter(hints[name]).validate_json(json.dumps(said), strict=True)
        except ValidationError:
            raise ImageFileError(
                f"{path}: its edit {made.task} cannot have {name} {said!r}: use another copy"
            ) from None
    place = lambda value: path.parent / value if isinstance(value, Path) else value
    return {n: [place(one) for one in v] if isinstance(v, list) else place(v) for n, v in own.items()}


@dataclass(frozen=True, eq=False)
class Redo:
    """An edit that can be done again: its account judged, its run opened, its files named."""

    made: Edited
    run: Run
    easel: Easel
    task: Task
    own: dict[str, Any]

    @staticmethod
    def of(made: Edited, path: Path, finder: Finder) -> Redo:
        """The edit whose result is, or was, at `path`. Raises SfumatoError for an account that nothing can be
        made of."""
        task = next((one for one in TASKS if one.name == made.task), None)
        if task is None or set(made.options) != set(task.defaults):
            raise ImageFileError(
                f"{path}: its edit {made.task!r} is not one that this version of sfumato can do again"
            )
        own, folder = _options(made, task, path), path.parent
        known = {folder / source.path: source for source in made.sources}
        directions = next((source for source in made.sources if source.role == DIRECTIONS), None)

        def look(asked: Path, role: str) -> np.ndarray:
            source = directions if role == DIRECTIONS else known.get(asked)
            if source is None:
                raise ImageFileError(f"{path}: its account does not say what {asked} was: use another copy")
            return finder.pixels(source, asked, folder) if source is not directions else _same(source, asked)

        run = _run(made.origin, path, finder)
        shelf = Shelf(look, lambda asked: known[asked].account)
        images = tuple(folder / image for image in made.images)
        easel = Easel(run, recipe_of(made.origin, run, path), images, made.resize, shelf)
        return Redo(made, run, easel, task, own)

    @property
    def single(self) -> bool:
        """Whether there is nothing that was made beside it."""
        origin = self.made.origin
        return origin.columns is not None or len(origin.seeds) == 1 or origin.one_by_one

    def shown(self, alone: bool) -> Pixels:
        """The file's pixels, drawn alone or with the whole batch that it was of."""
        origin, recipe = self.made.origin, self.easel.recipe
        easel = self.easel
        if alone and origin.index is not None:
            recipe = recipe.take([origin.index])
            easel = Easel(easel.run, recipe, easel.images, easel.resize, easel.shelf)
        result: Result = self.task.function(**self.own)(easel)
        drawn = result.expressed(self.run)
        if origin.index is not None:
            return drawn[0 if alone else origin.index]
        return sheet(drawn, self.made.shows, origin.columns)


@dataclass(frozen=True, eq=False)
class EditAgain:
    """An edited picture made anew, and compared with the one that was there."""

    redo: Redo
    shown: Pixels
    verdict: Verdict
    changes: tuple[Difference, ...]

    def write(self, path: Path) -> None:
        """Writes the new picture, with what it was made from."""
        check_target(path)
        made, easel = self.redo.made, self.redo.easel
        Files(easel, self.redo.task, self.redo.own).write(
            path,
            self.shown,
            easel.recipe,
            index=made.origin.index,
            columns=made.origin.columns,
            shows=made.shows,
        )


def edit_again(
    image: Path, asked: Path | None = None, device: str = "auto", sources: Sequence[Path] = ()
) -> EditAgain:
    """Does the edit of a PNG file again, on the pictures that it was made from: they are known by the hash of
    their pixels, wherever they are, and those that a model made are made again where they are gone.

    Raises ImageFileError where a source cannot be had, RunError where a run is not found.
    """
    finder = Finder(asked, device, tuple(sources))
    redo = Redo.of(parse_edited(read_recipe(image), image), image, finder)
    old = from_file(image)
    shown = redo.shown(alone=True)
    verdict = compare(old, _as_read(shown))
    if not verdict.identical and not redo.single:
        shown = redo.shown(alone=False)
        verdict = compare(old, _as_read(shown))
    changes = (*finder.told, *differences(redo.made.origin, redo.run, redo.easel.recipe))
    return EditAgain(redo, shown, verdict, tuple(dict.fromkeys(changes)))
