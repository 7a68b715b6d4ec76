"""What an edited picture says of itself, so that its whole chain can be made again.

An edit changes no file. Its result carries where it comes from (`provenance.Origin`), the task and its
options, and every picture that it was made from: where that was, the hash of its pixels, and that picture's
own account where it has one. So a result of a result tells its chain down to the first photograph.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
from pydantic import Field, JsonValue, ValidationError

from sfumato.data.fit import Resize
from sfumato.errors import ImageFileError
from sfumato.files.pictures import read_recipe
from sfumato.provenance import Origin, Text, check_places, parameters
from sfumato.records.part import Hash, Part
from sfumato.records.sentence import sentence

ROOM = 48 << 10
"""The most bytes of an account with those of its sources; beyond, their places and hashes alone are kept."""

Account = dict[str, JsonValue]


class Source(Part):
    """A picture that an edit was made from: its part in it ("picture", "mask", ...), where it was as seen
    from the result, the hash of its decoded pixels, and its own account."""

    role: Text
    path: Text
    sha256: Hash
    account: Account | None = None


class Edited(Part):
    """Where an edited picture comes from. `images` are the pictures that the command was given, `sources`
    all that was read; all files, those among the task's own `options` too, are named as seen from the result.
    `shows` is "mean" or "deviation" for the two pictures of an ensemble."""

    format: Literal[1] = 1
    made_by_a_model: Literal[True] = True
    task: Text
    images: Annotated[tuple[Text, ...], Field(max_length=1000)]
    options: dict[Text, JsonValue]
    sources: Annotated[tuple[Source, ...], Field(max_length=1000)]
    resize: Resize | None = None
    shows: Literal["picture", "mean", "deviation"] = "picture"
    origin: Origin

    def texts(self, width: int, height: int) -> tuple[str, dict[str, Any]]:
        """The A1111 text, and the recipe for a PNG; accounts of sources that do not fit are left out."""
        said: dict[str, Any] = self.model_dump(mode="json")
        if len(json.dumps(said)) > ROOM:
            for source in said["sources"]:
                source["account"] = None
        return f"{parameters(self.origin, width, height)}, {self._words()}", said

    def _words(self) -> str:
        """What A1111's readers show beside the rest: the task, and its strength by the name used there."""
        strength = self.options.get("strength")
        known = {"Denoising strength": strength} if isinstance(strength, float | int) else {}
        said = {**known, "Edit": self.task, **({"Shows": self.shows} if self.shows != "picture" else {})}
        return ", ".join(f"{name}: {value}" for name, value in said.items())


def pixel_hash(pixels: np.ndarray) -> str:
    """The SHA-256 of a decoded picture: its shape, depth and numbers, whatever its file says beside them."""
    hasher = hashlib.sha256(repr((pixels.shape, pixels.dtype.name)).encode())
    hasher.update(np.ascontiguousarray(pixels).data)
    return hasher.hexdigest()


def account_of(path: Path) -> Account | None:
    """What a picture says of how it was made, unjudged; None where it says nothing that can be read."""
    try:
        return cast(Account, read_recipe(path))
    except ImageFileError:
        return None


def is_edit(account: Mapping[str, object]) -> bool:
    """Whether an account is an edit's, and not a sample's."""
    return "task" in account


def parse_edited(account: Mapping[str, object], where: Path | str) -> Edited:
    """An account judged: the file is anybody's. Raises ImageFileError."""
    try:
        made = Edited.model_validate_json(json.dumps(account), strict=True)
    except (ValidationError, RecursionError) as error:
        words = sentence(error) if isinstance(error, ValidationError) else "nested too deeply"
        raise ImageFileError(f"{where}: its account of how it was made is damaged ({words})") from None
    check_places(made.origin, where)
    return made
