"""What ships with the package.

- digits: 10,000 handwritten digits of MNIST, 28 x 28 (LeCun, Cortes, Burges 1998), with their classes.
- emoji: 7,012 emoji of 1,914 concepts, 32 x 32, each in up to four drawing styles, with captions such as "red
  heart, 3d render emoji" and the columns style, group, subgroup and concept.
- the model emoji, trained on them: a run folder like any other.

Whose they are is in NOTICE.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from sfumato.data.arrays import read_arrays
from sfumato.data.folder import read_folder
from sfumato.data.source import Source
from sfumato.errors import DataError

BUNDLED = {"digits": "mnist10k.npz", "mnist": "mnist10k.npz", "emoji": "emoji32.npz"}
"""The names by which bundled data is asked for (a folder of that name is written ./digits)."""
CARD = "sfumato.json"
"""What every folder of a model holds."""
EMOJI_COLUMNS = {"style": "styles", "group": "groups", "subgroup": "subgroups", "concept": "concepts"}
"""The columns of the emoji, and the arrays that hold them."""


_HERE = Path(__file__).parent / "bundled"


def model_path(path: Path | str) -> Path:
    """The folder of a model: that of a bundled model where its name is given and nothing here is called so,
    otherwise the path as it is."""
    path = Path(path)
    bundled = _HERE / path
    known = len(path.parts) == 1 and bundled.parent == _HERE and (bundled / CARD).is_file()
    return bundled if known and not path.exists() else path


def bundled_name(path: Path) -> str | None:
    """The name of the bundled model in this folder, None for a folder of the user's."""
    return path.name if path.resolve().parent == _HERE.resolve() else None


def called(model: Path) -> str:
    """What a command is given to mean the model in this folder: a bundled model's name, or the folder."""
    return bundled_name(model) or str(model)


def home_of(model: Path) -> Path:
    """Where what is made with the model in this folder goes if nobody says: there; of a bundled model into
    NAME-made, here."""
    name = bundled_name(model)
    return model if name is None else Path(f"{name}-made")


def digits_path() -> Path:
    """The bundled digits: `images` uint8 (10000, 28, 28), `labels` uint8 (10000,)."""
    return _HERE / BUNDLED["digits"]


def emoji_path() -> Path:
    """The bundled emoji: `images` uint8 (7012, 32, 32, 3), and a text array (7012,) for the captions and for
    each column."""
    return _HERE / BUNDLED["emoji"]


def open_source(data: str | Path) -> Source:
    """Lists the pictures of a folder, of an .npz file, or of a bundled set by its name.

    Raises DataError, one sentence, when there is nothing there that can be read.
    """
    if isinstance(data, str) and data == "emoji":
        return _emoji()
    if isinstance(data, str) and data in BUNDLED:
        return read_arrays(_HERE / BUNDLED[data])
    path = Path(data).expanduser()
    if path.is_dir():
        return read_folder(path)
    names = "the name digits or emoji"
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return read_arrays(path)
        raise DataError(f"{path} is one file: data is a folder of pictures, an .npz file, or {names}")
    raise DataError(f"there is no {path}: data is a folder of pictures, an .npz file, or {names}")


def _emoji() -> Source:
    """The emoji with their columns; no classes, because a concept has four pictures at most."""
    source = read_arrays(emoji_path())
    with np.load(emoji_path(), allow_pickle=False) as file:
        columns = [file[array].tolist() for array in EMOJI_COLUMNS.values()]
    told = (tuple(zip(EMOJI_COLUMNS, values, strict=True)) for values in zip(*columns, strict=True))
    items = tuple(replace(item, columns=row) for item, row in zip(source.items, told, strict=True))
    return replace(source, name="emoji", items=items)
