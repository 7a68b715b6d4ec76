"""A folder that diffusers wrote: a UNet2DModel on pixels with a DDPM or DDIM scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.errors import ModelFileError, SettingsError
from sfumato.files import inside, read_json
from sfumato.interop.diffusers import config_from_diffusers
from sfumato.interop.scheduler import clip_from_diffusers, prediction_from_diffusers, table_from_diffusers
from sfumato.networks import UNetConfig
from sfumato.predictions import Prediction
from sfumato.tables import Table

_OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}

CODECS = ("vae", "vqvae", "movq")
"""Where pipelines of diffusers keep what decodes their latents."""


@dataclass(frozen=True)
class Foreign:
    """What such a folder says. `home` is where the network is; `clip` says whether x0 is kept in -1 .. 1."""

    home: Path
    network: UNetConfig
    table: Table
    prediction: Prediction
    clip: bool
    learned_variance: bool


def is_foreign(folder: Path) -> bool:
    """Whether this looks like a folder of diffusers. In old ones all files lie side by side."""
    return any((folder / name).exists() for name in ("model_index.json", "unet/config.json", "config.json"))


def read_foreign(folder: Path) -> Foreign:
    """Raises SettingsError or ModelFileError naming what is missing or cannot be expressed; allocates
    nothing."""
    for codec in CODECS:
        if (folder / codec).is_dir():
            raise SettingsError(
                f"its network draws latents, which the autoencoder in {codec}/ decodes: of diffusers' models "
                "only those on pixels are opened"
            )
    home = folder / "unet" if (folder / "unet").is_dir() else folder
    place = "scheduler_config.json" if home == folder else "scheduler/scheduler_config.json"
    network = config_from_diffusers(_settings(home, "config.json"))
    scheduler = _settings(folder, place)
    if not isinstance(network, UNetConfig) or network.middle == "cross" or network.image_size is None:
        raise SettingsError("of diffusers' models only UNet2DModel on pixels is opened, with its sample_size")
    clip = clip_from_diffusers(scheduler)
    if clip not in (None, 1.0):
        raise SettingsError(f"scheduler_config.json: clip_sample_range = {clip} is not supported")
    learned = scheduler.get("variance_type") == "learned_range"
    table, prediction = table_from_diffusers(scheduler), prediction_from_diffusers(scheduler)
    return Foreign(home, network, table, prediction, clip is not None, learned)


def _settings(folder: Path, name: str) -> dict[str, Any]:
    path = inside(folder, name)
    if not path.exists():
        raise ModelFileError(
            f"{path}: missing, so diffusers did not write this folder whole: use another copy"
        )
    value = read_json(path, allow_infinity=True)
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: no table of settings: use another copy")
    return value


def modern(name: str) -> str:
    """Today's name of a tensor in a folder that diffusers wrote before 2023."""
    for old, new in _OLD_NAMES.items():
        name = name.replace(old, new)
    return name
