"""Extractors by their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from sfumato.errors import SettingsError
from sfumato.evaluation.features.clip import clip
from sfumato.evaluation.features.dino import dino
from sfumato.evaluation.features.inception import RESIZES, inception
from sfumato.evaluation.features.lite0 import SIDES, lite0
from sfumato.evaluation.features.seen import Extractor, Features

__all__ = ["EXTRACTORS", "Extractor", "Features", "open_extractor"]

FOLDERS: dict[str, tuple[str, Callable[[Path, torch.device], Extractor]]] = {
    "clip": ("a CLIPModel of transformers, or what sfumato train-clip wrote", clip),
    "dinov2": ("a DINOv2 of transformers", dino),
}
"""Extractors that need a folder: what it holds."""
EXTRACTORS = (*SIDES, *RESIZES, *FOLDERS)


def open_extractor(
    name: str = "lite0", weights: Path | str | None = None, device: torch.device | str = "cpu"
) -> Extractor:
    """The extractor of this name, one of `EXTRACTORS`.

    weights: a file for lite0 and Inception, where those that are found are not meant; a folder for clip and
    dinov2. Raises SettingsError for an unknown name or where there are no weights, ModelFileError for weights
    that do not fit: one sentence that says what to do.
    """
    where, given = torch.device(device), None if weights is None else Path(weights)
    if name in SIDES:
        return lite0(name, given, where)
    if name in RESIZES:
        return inception(name, given, where)
    if name not in FOLDERS:
        raise SettingsError(f"there is no extractor {name!r}: choose one of {', '.join(EXTRACTORS)}")
    what, make = FOLDERS[name]
    if given is None:
        raise SettingsError(
            f"the extractor {name} needs a folder, {what}: give its path (--features-weights)"
        )
    return make(given, where)
