"""Small models with random weights: nothing is trained, and every part is the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfumato.assembled import build
from sfumato.card import Card, ImageSettings
from sfumato.model import Label, Steps
from sfumato.networks import UNetConfig
from sfumato.predictions import Epsilon, Prediction
from sfumato.runs import Run, load, save
from sfumato.schedules import Schedule
from sfumato.tables import Table

CLASSES = ("cat", "dog", "ox")


def unet(channels: int = 1, classes: int | None = None, **more: Any) -> UNetConfig:
    return UNetConfig(
        in_channels=channels,
        out_channels=more.pop("out_channels", channels),
        channels=(16, 32),
        layers=1,
        groups=8,
        head_channels=16,
        attention=("none", "self"),
        image_size=(8, 8),
        classes=classes,
        null_class=more.pop("null_class", classes is not None),
        zero_init=False,
        **more,
    )


def card(
    channels: int = 1,
    classes: tuple[str, ...] | None = None,
    schedule: Schedule | None = None,
    prediction: Prediction | None = None,
    label: Label | None = None,
    network: UNetConfig | None = None,
    **more: Any,
) -> Card:
    image = more.pop("image", None) or ImageSettings(channels=channels, height=8, width=8)
    curve = schedule or Table.linear()
    steps = curve.steps if isinstance(curve, Table) else 1000
    return Card.of(
        network=network or unet(channels, None if classes is None else len(classes)),
        schedule=curve,
        prediction=prediction or Epsilon(),
        label=label or Steps(steps),
        image=image,
        classes=classes,
        clip=more.pop("clip", True),
        **more,
    )


def make(folder: Path, said: Card, seed: int = 1) -> Run:
    save(folder, build(said, seed), said)
    return load(folder, "cpu")
