"""Model folders of others: no name in them may lead outside, and nothing in them is ever imported."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from sfumato.errors import ModelFileError
from sfumato.files.header import shown
from sfumato.files.json_file import read_json
from sfumato.files.tensors import read_tensors

MOST_SHARDS = 1000


def inside(folder: Path, name: str) -> Path:
    """The path of `name` in `folder`, after links are followed; it is refused if it leaves the folder.

    Raises ModelFileError for absolute names, `..`, links that lead outside and characters that are not
    printable.
    """
    if not name or len(name) > 1024 or not name.isprintable() or "\\" in name:
        raise ModelFileError(
            f"{folder}: {shown(name)} is no file name for a model folder: mend it or fetch it again"
        )
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or ":" in parts[0]:
        raise ModelFileError(
            f"{folder}: the name {shown(name)} leads out of the model folder: do not use this model"
        )
    try:
        home = os.path.realpath(folder)
        found = os.path.realpath(os.path.join(home, name))
    except OSError as error:
        raise ModelFileError(f"{folder}: {shown(name)} cannot be followed ({error.strerror})") from None
    if found != home and not found.startswith(home.rstrip(os.sep) + os.sep):
        raise ModelFileError(
            f"{folder}: {shown(name)} is a link to a place outside the model folder: "
            "copy the folder with the files its links mean (cp -rL) and give the copy"
        )
    return Path(found)


def read_sharded(folder: Path, index: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a model that is split over several safetensors files, and the metadata of the first.

    `index` names the list, as diffusers and transformers write it: `{"weight_map": {tensor: file}}`. Every
    tensor must be in the file the list says and no file may hold another. Raises ModelFileError.
    """
    path = inside(folder, index)
    listed = read_json(path, limit=16 << 20)
    found = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(found, dict) or not found:
        raise ModelFileError(f"{path}: no list of shards, it has no `weight_map`: fetch the file again")
    places: dict[str, set[str]] = {}
    for name, file in found.items():
        if not isinstance(file, str):
            raise ModelFileError(
                f"{path}: the shard of tensor {shown(str(name))} is no file name: fetch the file again"
            )
        places.setdefault(file, set()).add(str(name))
    if len(places) > MOST_SHARDS:
        raise ModelFileError(f"{path}: {len(places):,} shards, at most {MOST_SHARDS:,} are read")
    files = {inside(path.parent, file): names for file, names in sorted(places.items())}
    if len(files) != len(places):
        raise ModelFileError(f"{path}: two shards are the same file: fetch the folder again")
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for file, names in files.items():
        held, said = read_tensors(file)
        if held.keys() != names:
            wrong = shown(sorted(held.keys() ^ names)[0])
            raise ModelFileError(
                f"{file}: does not hold what {path.name} lists, see tensor {wrong}: fetch both again"
            )
        tensors |= held
        metadata = metadata or said
    return tensors, metadata
