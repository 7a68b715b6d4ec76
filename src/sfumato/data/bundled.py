"""What ships with the package: 10,000 handwritten digits of MNIST, 28 x 28 (LeCun, Cortes, Burges 1998)."""

from __future__ import annotations

from pathlib import Path

from sfumato.data.arrays import read_arrays
from sfumato.data.folder import read_folder
from sfumato.data.source import Source
from sfumato.errors import DataError

BUNDLED = {"digits": "mnist10k.npz", "mnist": "mnist10k.npz"}
"""The names by which bundled data is asked for (a folder of that name is written ./digits)."""


def digits_path() -> Path:
    """The bundled digits: `images` uint8 (10000, 28, 28), `labels` uint8 (10000,)."""
    return Path(__file__).parent / "bundled" / BUNDLED["digits"]


def open_source(data: str | Path) -> Source:
    """Lists the pictures of a folder, of an .npz file, or of a bundled set by its name ("digits").

    Raises DataError, one sentence, when there is nothing there that can be read.
    """
    if isinstance(data, str) and data in BUNDLED:
        return read_arrays(Path(__file__).parent / "bundled" / BUNDLED[data])
    path = Path(data).expanduser()
    if path.is_dir():
        return read_folder(path)
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return read_arrays(path)
        raise DataError(f"{path} is one file: data is a folder of pictures, an .npz file, or the name digits")
    raise DataError(f"there is no {path}: data is a folder of pictures, an .npz file, or the name digits")
