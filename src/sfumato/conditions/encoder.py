"""The folder of a text encoder: `config.json` and `model.safetensors`, as transformers' CLIPTextModel has
them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sfumato.errors import ModelFileError, SettingsError
from sfumato.files import inside, read_json, read_tensors, write_json, write_tensors
from sfumato.files.fitting import unfit
from sfumato.networks.text import TextConfig, TextTransformer, named

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_encoder(
    folder: Path,
    config: TextConfig,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes the folder, weights last: each file is replaced in one instant.

    `tensors` are those of a TextTransformer of this configuration, with `text_model.` before their names or
    without. Raises SettingsError if they are another encoder's, RunError if the disk refuses.
    """
    plain = named(tensors)
    reason = unfit(_hollow(config).state_dict(), plain)
    if reason is not None:
        raise SettingsError(f"{folder}: weights of another text encoder are not written: {reason}")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, config.to_json())
    write_tensors(folder / WEIGHTS, plain, metadata)


def load_encoder(folder: Path) -> TextTransformer:
    """The text encoder in a folder that `save_encoder`, or transformers, wrote: float32, on the CPU, frozen.

    Nothing is allocated before names and shapes agree. Raises ModelFileError, one sentence.
    """
    path = inside(folder, WEIGHTS)
    config = read_text_config(folder)
    tensors, _ = read_tensors(path)
    found = named(tensors)
    found.pop("text_model.text_projection.weight", None)  # of CLIPTextModelWithProjection
    hollow = _hollow(config)
    reason = unfit(hollow.state_dict(), found)
    if reason is not None:
        raise ModelFileError(f"{path}: {reason}: use another copy of the folder")
    encoder = hollow.to_empty(device="cpu")
    encoder.load_state_dict(found)
    return encoder.eval().requires_grad_(False)


def read_text_config(folder: Path) -> TextConfig:
    """The settings of the text encoder in a folder. Raises ModelFileError."""
    path = inside(folder, CONFIG)
    said = read_json(path)
    if not isinstance(said, dict):
        raise ModelFileError(f"{path}: no settings of a text encoder: use another copy of the folder")
    try:
        return TextConfig.from_json(said)
    except SettingsError as error:
        raise ModelFileError(f"{path}: {str(error).rstrip('.')}: use another copy of the folder") from None


def _hollow(config: TextConfig) -> TextTransformer:
    """The encoder's shape, without memory."""
    with torch.device("meta"):
        return TextTransformer(config)
