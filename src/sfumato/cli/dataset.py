"""A labelled data set of a model's pictures, for `sfumato train` and for others: a folder or an .npz file.

A folder has a sub-folder for each class, as torchvision's ImageFolder and Hugging Face's imagefolder read it,
metadata.csv (file, class, seed), a README that says how it was made, and in every picture its own recipe. It
may be stopped at any time: each file appears whole, and the same command goes on with those that are missing.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.cli.drawing import make_room, pixels, write_picture
from sfumato.cli.telling import on_one_line
from sfumato.errors import SettingsError
from sfumato.evaluation.balanced import Balanced
from sfumato.files import clean_temporaries, read_json, write_json
from sfumato.files.atomic import write_atomic
from sfumato.files.pictures import Pixels
from sfumato.guides.classifier import names_of
from sfumato.provenance import check_account, origin
from sfumato.runs import MOST, Recipe, Run

SETTINGS = "made-by.json"
TABLE = "metadata.csv"
OF_ONE = (
    "seeds",
    "classes",
    "class_names",
    "prompts",
    "prompt_of",
    "values",
    "negatives",
    "index",
    "columns",
)
OF_THE_MOMENT = (
    "format",
    "made_by_a_model",
    "library",
    "torch",
    "machine",
    "threads",
    "run",
    "batch",
    "one_by_one",
)
"""What a picture's account says that belongs to it alone, or to the moment and not to the data set."""


def balanced(names: Sequence[str], number: int, others: Sequence[object]) -> list[int]:
    """`number` of each class, in turns: a larger number of the same seed begins with the same pictures.

    others: what was asked for beside it, which must be nothing. Raises SettingsError.
    """
    if not names:
        raise SettingsError("--per-class needs a model with classes: say -n, how many pictures in all")
    if any(others):
        raise SettingsError("--per-class is a number of every class: leave -n and --class out")
    if not 1 <= number <= MOST // len(names):
        raise SettingsError(f"--per-class {number}: give a number from 1 to {MOST // len(names):,}")
    return list(range(len(names))) * number


def check_place(place: Path, others: Sequence[object]) -> None:
    """Raises SettingsError for a name that is neither a folder's nor an .npz file's, and for other places
    that were asked for beside it."""
    if any(other is not None for other in others):
        raise SettingsError("--as-dataset is where the pictures go: leave --out, --film and --sheet out")
    if place.suffix and place.suffix != ".npz" and not place.is_dir():
        raise SettingsError(f"--as-dataset {place}: a data set is a folder, or one file x.npz")


@dataclass(frozen=True)
class Labels:
    """The class of each picture by its place in `names`, None where nobody knows."""

    names: tuple[str, ...]
    numbers: tuple[int | None, ...]

    @staticmethod
    def of(run: Run, recipe: Recipe, chosen: Balanced | None = None) -> Labels:
        """As the pictures were chosen, as the model was told, or as its classifier pulled."""
        if chosen is not None:
            return Labels(chosen.names, chosen.classes)
        if recipe.classes is None and recipe.judged is not None:
            return Labels(names_of(run.path), recipe.judged.classes)
        return Labels(run.classes, recipe.classes or (None,) * len(recipe.seeds))

    def name(self, row: int) -> str | None:
        """Of one picture's class."""
        number = self.numbers[row]
        return None if number is None else self.names[number]


def write_dataset(run: Run, recipe: Recipe, out: Path, chosen: Balanced | None = None) -> Path:
    """Makes the recipe's pictures as a data set at `out`, and gives that. `chosen` is how they were chosen.

    Raises SettingsError for a folder that holds other things, or a data set that was made otherwise.
    """
    labels = Labels.of(run, recipe, chosen)
    if out.suffix == ".npz" and not out.is_dir():
        return _as_arrays(run, recipe, labels, out)
    files = [_file(recipe, labels, row) for row in range(len(recipe.seeds))]
    _open(out, _settings(run, recipe), files)
    missing = [row for row, name in enumerate(files) if not (out / name).is_file()]
    done, tell = len(files) - len(missing), on_one_line("pictures")
    for part, _ in _parts(recipe, missing):
        check_account(run, part)
    for part, rows in _parts(recipe, missing):
        for i, shown in enumerate(pixels(run, run.make(part))):
            path = out / files[rows[i]]
            make_room(path.parent)
            write_picture(run, path, shown, part, index=i)
        done += len(rows)
        tell(done, len(files))
    write_atomic(out / "README.md", [_readme(run, recipe, labels).encode()])
    write_atomic(out / TABLE, [_table(recipe, labels, files).encode()])
    return out


def _parts(recipe: Recipe, rows: Sequence[int]) -> Iterator[tuple[Recipe, Sequence[int]]]:
    """The recipe of some rows, batch by batch, with the rows of each."""
    size = 1 if recipe.one_by_one else recipe.batch
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        yield recipe.take(some), some


def _file(recipe: Recipe, labels: Labels, row: int) -> str:
    """cat/00012-seed12.png: a place of its own for every picture, whatever its class is called."""
    name = f"{row:06d}-seed{recipe.seeds[row]}.png"
    number, said = labels.numbers[row], labels.name(row)
    if said is None:
        return name
    plain = re.sub(r"[^A-Za-z0-9._ -]+", "_", said).strip(" .")[:60]
    safe = plain == said and plain not in TABLE
    return f"{plain if safe else f'{number:04d}-{plain}'}/{name}"


def _settings(run: Run, recipe: Recipe) -> dict[str, Any]:
    """What the pictures follow from, beside what is told of each."""
    made = origin(run, recipe.take([0]), Path("x.png"), index=0).model_dump(mode="json")
    return _lasting(made) | {"first_seed": recipe.seeds[0]}


def _lasting(said: Mapping[str, Any]) -> dict[str, Any]:
    """What holds wherever and whenever the pictures are made: a weaker run and a CLIP are known by their
    weights, not by where they lie."""
    kept = {name: value for name, value in said.items() if name not in OF_ONE + OF_THE_MOMENT}
    for guide, place in (("weaker", "run"), ("pulled", "folder")):
        if isinstance(kept.get(guide), dict):
            kept[guide] = {name: value for name, value in kept[guide].items() if name != place}
    return kept


def _open(out: Path, settings: dict[str, Any], files: Sequence[str]) -> None:
    """Makes the folder, or takes up the one that was begun with the same settings."""
    here = out / SETTINGS
    if here.is_file():
        before = read_json(here)
        if not isinstance(before, dict) or settings != _lasting(before):
            raise SettingsError(
                f"{out} holds a data set of another model or other settings: name another folder"
            )
        more = {path.relative_to(out).as_posix() for path in out.rglob("*.png")} - set(files)
        if more:
            raise SettingsError(f"{out} holds {len(more):,} more pictures than these: name another folder")
    elif out.is_dir() and any(out.iterdir()):
        raise SettingsError(f"{out} holds other things: name a new folder")
    make_room(out)
    for folder in (out, *(entry for entry in out.iterdir() if entry.is_dir())):
        clean_temporaries(folder)
    write_json(here, settings)


def _table(recipe: Recipe, labels: Labels, files: Sequence[str]) -> str:
    """What is told of each picture: its class, caption and attributes; and its seed."""
    wishes = recipe.wishes()
    rows: list[dict[str, object]] = []
    for i, (name, wish, seed) in enumerate(zip(files, wishes, recipe.seeds, strict=True)):
        row: dict[str, object] = {"file_name": name}
        label = labels.name(i)
        row |= {} if label is None else {"class": label}
        row |= {} if wish.prompt is None else {"text": wish.prompt}
        values = {key: "|".join(v) if isinstance(v, tuple) else v for key, v in wish.values.items()}
        rows.append(row | values | {"seed": seed})
    text = io.StringIO()
    table = csv.DictWriter(text, dict.fromkeys(key for row in rows for key in row), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _readme(run: Run, recipe: Recipe, labels: Labels) -> str:
    names = [labels.name(row) for row in range(len(recipe.seeds))]
    counts = {name: names.count(name) for name in dict.fromkeys(names) if name is not None}
    of = "\n".join(f"- {name}: {count:,}" for name, count in counts.items())
    settings = "\n".join(f"- {name}: {value}" for name, value in _settings(run, recipe).items())
    image = run.card.image
    return (
        f"# {len(names):,} synthetic pictures\n\n"
        f"Every picture here was made by a model, {run.path.resolve().name}; none is a photograph or a "
        f"drawing. They are {image.width} x {image.height} pixels. Each PNG file says how it was made: "
        "`sfumato replay` makes it again.\n\n"
        + (f"## Classes\n\n{of}\n\n" if of else "")
        + f"## Settings\n\n{settings}\n\n"
        f"`{TABLE}` names each file with its class and its seed.\n"
    )


def _as_arrays(run: Run, recipe: Recipe, labels: Labels, out: Path) -> Path:
    """images (N, H, W) or (N, H, W, C), labels (N,) and label_names: what `sfumato train x.npz` reads."""
    made, tell = list[Pixels](), on_one_line("pictures")
    for part, _ in _parts(recipe, range(len(recipe.seeds))):
        made += pixels(run, run.make(part))
        tell(len(made), len(recipe.seeds))
    arrays: dict[str, Any] = {"images": np.stack(made), "seeds": np.asarray(recipe.seeds)}
    if labels.names and None not in labels.numbers:
        arrays["labels"] = np.asarray(labels.numbers, dtype=np.int64)
        arrays["label_names"] = np.asarray(labels.names)
    if recipe.prompts is not None:
        arrays["captions"] = np.asarray([prompt or "" for prompt in recipe.prompts])
    arrays["made_by"] = np.asarray(json.dumps(_settings(run, recipe)))
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    make_room(out.parent)
    write_atomic(out, [stream.getvalue()])
    return out
