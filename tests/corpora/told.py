"""Small models that are told something, with random weights, and toy data that tells it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from corpora import small
from sfumato.assembled import build
from sfumato.card import Card
from sfumato.conditions.attributes import Attributes, Choice, Labels, Number
from sfumato.conditions.classes import Classes
from sfumato.conditions.schema import Conditions
from sfumato.conditions.tokens import Tokenizer, train_tokenizer
from sfumato.folders.run import save
from sfumato.model import Model
from sfumato.networks import text_preset
from sfumato.predictions import V
from sfumato.records.conditions import PictureSettings, describe_attributes, describe_own
from sfumato.runs import Run, load
from sfumato.tables import Table
from sfumato.training.telling import Telling

ABC = Telling(Conditions(classes=Classes(("a", "b", "c"), null=True)))
"""The classes of the toy data of `tests/training`."""

CAPTIONS = ("a red cat", "a blue dog", "two red dogs", "")
ATTRIBUTES = Attributes(
    (Number("age", 0.0, 10.0), Choice("colour", ("red", "blue")), Labels("tags", ("a", "b", "c")))
)


def tokenizer() -> Tokenizer:
    return train_tokenizer(CAPTIONS, 600)


def card(picture: int = 0) -> Card:
    """Of a model that is told a class, three attributes and a caption, and a picture of so many channels."""
    words = tokenizer()
    config = text_preset("tiny", len(words), words.length, words.end_number)
    network = replace(
        small.unet(1 + picture, 3, out_channels=1, vector=ATTRIBUTES.width, context_dim=config.width),
        attention=("none", "cross"),
        middle="cross",
    )
    return small.card(
        classes=small.CLASSES,
        schedule=Table.cosine(),
        prediction=V(),
        network=network,
        attributes=describe_attributes(ATTRIBUTES),
        text=describe_own(config, words),
        picture=PictureSettings(channels=picture) if picture else None,
        clip=False,
    )


def model(said: Card, seed: int = 1) -> Model:
    return build(said, seed).eval().requires_grad_(False)


def run(folder: Path, picture: int = 0) -> Run:
    said = card(picture)
    save(folder, model(said), said, text=tokenizer())
    return load(folder, "cpu")


def bright(folder: Path, count: int = 64) -> Path:
    """Pictures of 8 x 8 whose brightness is the column `light` (0 to 1), and whose left half is darker where
    the caption says "left", the right half where it says "right"; some columns and captions are missing."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows: list[dict[str, str]] = []
    for i in range(count):
        light, side = i // 2 / (count / 2 - 1), ("left", "right")[i % 2]
        pixels = 100 + 100 * light + rng.normal(0, 4, (8, 8))
        pixels[:, :4] -= 80 if side == "left" else 0
        pixels[:, 4:] -= 80 if side == "right" else 0
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02d}.png")
        told = {"file_name": f"{i:02d}.png", "light": "" if i % 9 == 4 else f"{light:.4f}"}
        rows.append(told | {"text": "" if i % 11 == 5 else f"dark on the {side}"})
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder
