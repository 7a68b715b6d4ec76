"""Network configurations as JSON, and the network that each describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

import torch
from torch import nn

from sfumato.errors import SettingsError
from sfumato.networks.classifier import ClassifierConfig
from sfumato.networks.dit import DiT, DiTConfig
from sfumato.networks.unet import UNet
from sfumato.networks.unet_config import UNetConfig

Config = UNetConfig | DiTConfig
C = TypeVar("C", UNetConfig, DiTConfig, ClassifierConfig)
_LATER = {"vector", "context_heads"}


def build(config: Config) -> nn.Module:
    """The network that a configuration describes; torch's initialisers draw inside (see `noise.seeded`)."""
    return UNet(config) if isinstance(config, UNetConfig) else DiT(config)


def parameter_count(config: Config) -> int:
    """How many numbers the network learns; nothing is allocated."""
    with torch.device("meta"):
        return sum(p.numel() for p in build(config).parameters())


def to_json(config: Config | ClassifierConfig) -> dict[str, Any]:
    """A configuration as what JSON can say: tuples become lists. What came later is said only where it is
    used, so that the hashes of older models stay."""
    said = {k: v for k, v in asdict(config).items() if k not in _LATER or v is not None}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in said.items()}


def from_json(kind: type[C], values: Mapping[str, Any]) -> C:
    """The inverse of `to_json`. An unknown name or a value of the wrong kind raises a SettingsError."""
    known = {f.name for f in fields(kind)}
    for name in values:
        if name not in known:
            raise SettingsError(f"{kind.__name__} has no setting {name!r}.")
    exact = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return kind(**exact)
    except SettingsError:
        raise
    except Exception as wrong:  # a value of the wrong type, however the type is checked
        raise SettingsError(f"{kind.__name__}: {str(wrong).splitlines()[0][:200]}") from wrong
