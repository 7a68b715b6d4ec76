"""Facts about a model as plain values: its network, its pictures, its sampler, its weights, its data and its
training. Conditions are in `records.conditions`, predictions in `records.predictions`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, model_serializer

from sfumato.networks import Config, DiTConfig, UNetConfig, from_json
from sfumato.records.part import Part

BLOCKS = 4096
"""The most residual and transformer blocks that a card may ask for."""

Text = Annotated[str, Field(max_length=10_000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Total = Annotated[int, Field(ge=0, le=2**53)]


class NetworkSettings(Part):
    """A network by the fields of `UNetConfig` or `DiTConfig`."""

    kind: Literal["unet", "dit"]
    settings: dict[str, Any]

    def config(self) -> Config:
        if self.kind == "unet":
            return from_json(UNetConfig, self.settings)
        return from_json(DiTConfig, self.settings)


class ImageSettings(Part):
    """What the pictures are: the model's numbers from `low` to `high` are a picture's darkest to its
    brightest."""

    channels: Annotated[int, Field(ge=1, le=4096)]
    height: Annotated[int, Field(ge=1, le=65536)]
    width: Annotated[int, Field(ge=1, le=65536)]
    bits: Literal[8, 16] = 8
    low: Annotated[float, Field(ge=-1e6, le=1e6)] = -1.0
    high: Annotated[float, Field(ge=-1e6, le=1e6)] = 1.0

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


class SamplerSettings(Part):
    """How to sample where the user does not say. `guidance` is used where a class is asked for, `eta` is the
    share of new noise at each step: None for the sampler's own, and then not written, so that older programs
    read it too."""

    name: Name = "vab"
    steps: Annotated[int, Field(ge=1, le=100_000)] = 20
    guidance: Annotated[float, Field(ge=-1000, le=1000)] = 1.0
    eta: Annotated[float, Field(ge=0, le=1)] | None = None

    @model_serializer(mode="wrap")
    def _said(self, whole: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in whole(self).items() if value is not None}


class WeightsSettings(Part):
    """Which weights the folder's are: averaged over about `horizon` updates, or as training left them."""

    kind: Literal["ema", "raw"] = "raw"
    horizon: Annotated[float, Field(gt=0, le=1e12)] | None = None


class DataSettings(Part):
    """What the model was trained on."""

    fingerprint: Annotated[str, Field(max_length=200)] = ""
    images: Total = 0
    held_out: Total = 0


class TrainingSettings(Part):
    """How long the model was trained."""

    images_seen: Total = 0
    steps: Total = 0
    seconds: Annotated[float, Field(ge=0, le=1e12)] = 0.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0


def check_blocks(config: Config) -> None:
    """Raises ValueError for a network of more blocks than are built."""
    if isinstance(config, DiTConfig):
        blocks = config.layers
    else:
        levels = range(len(config.channels))
        blocks = sum(config.layers_at(i) * (1 + config.transformer_layers_at(i)) for i in levels)
    if blocks > BLOCKS:
        raise ValueError(f"a network of {blocks:,} blocks, at most {BLOCKS:,} are built")
