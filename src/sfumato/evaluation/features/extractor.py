"""Extractors by their names."""

from __future__ import annotations

from pathlib import Path

import torch

from sfumato.errors import SettingsError
from sfumato.evaluation.features.lite0 import lite0
from sfumato.evaluation.features.seen import Extractor, Features

__all__ = ["EXTRACTORS", "Extractor", "Features", "open_extractor"]

EXTRACTORS = ("lite0",)


def open_extractor(
    name: str = "lite0", weights: Path | None = None, device: torch.device | str = "cpu"
) -> Extractor:
    """The extractor of this name. Raises SettingsError, ModelFileError."""
    where = torch.device(device)
    match name:
        case "lite0":
            return lite0(weights, where)
        case _:
            raise SettingsError(f"--features is one of {', '.join(EXTRACTORS)}, not {name!r}")
