"""Conditions as plain values: what a model's card says of its attributes, its text and its picture, and
back."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from pydantic import Field

from sfumato.conditions import attributes
from sfumato.conditions.attributes import MOST_OPTIONS, Attribute, Attributes
from sfumato.conditions.frozen import FrozenText
from sfumato.conditions.schema import Shown
from sfumato.conditions.tokens import Tokenizer
from sfumato.networks.text import TextConfig
from sfumato.records.part import Hash, Part
from sfumato.records.schedules import unknown

Name = Annotated[str, Field(min_length=1, max_length=200)]
Options = Annotated[tuple[Name, ...], Field(min_length=1, max_length=MOST_OPTIONS)]
Real = Annotated[float, Field(ge=-1e300, le=1e300)]


class Choice(Part):
    kind: Literal["choice"] = "choice"
    name: Name
    options: Options


class Labels(Part):
    kind: Literal["labels"] = "labels"
    name: Name
    options: Options


class Number(Part):
    kind: Literal["number"] = "number"
    name: Name
    low: Real
    high: Real


AnyAttribute = Choice | Labels | Number
AttributeSettings = Annotated[AnyAttribute, Field(discriminator="kind")]


class OwnText(Part):
    kind: Literal["own"] = "own"
    encoder: Annotated[dict[str, Any], Field(max_length=64)]
    """The settings of its transformer, as transformers says them."""
    tokenizer: Hash

    def config(self) -> TextConfig:
        """The settings of the text encoder that is trained with the model."""
        return TextConfig.from_json(self.encoder)

    @property
    def width(self) -> int:
        return self.config().width


class ForeignText(Part):
    kind: Literal["frozen"] = "frozen"
    pooled: bool
    width: Annotated[int, Field(ge=1, le=65536)]
    length: Annotated[int, Field(ge=1, le=1_000_000)]
    fingerprint: Hash


AnyText = OwnText | ForeignText
TextSettings = Annotated[AnyText, Field(discriminator="kind")]


class PictureSettings(Part):
    """The picture that a model is shown beside the noise, of the images' own size: made by its `task`, or the
    user's own, from a `column`."""

    channels: Annotated[int, Field(ge=1, le=4096)]
    task: Annotated[str, Field(max_length=200)] = ""
    column: Annotated[str, Field(max_length=200)] = ""


def make_attributes(said: tuple[AnyAttribute, ...] | None) -> Attributes:
    """The attributes that the settings mean."""
    return Attributes(tuple(_made(one) for one in said or ()))


def _made(said: AnyAttribute) -> Attribute:
    match said:
        case Choice():
            return attributes.Choice(said.name, said.options)
        case Labels():
            return attributes.Labels(said.name, said.options)
        case Number():
            return attributes.Number(said.name, said.low, said.high)


def describe_attributes(held: Attributes) -> tuple[AnyAttribute, ...] | None:
    """The inverse of `make_attributes`; None where there are none. Raises SettingsError for an attribute of
    the user's own class."""
    return tuple(_described(one) for one in held.items) or None


def _described(one: Attribute) -> AnyAttribute:
    match one:
        case attributes.Choice():
            return Choice(name=one.name, options=one.options)
        case attributes.Labels():
            return Labels(name=one.name, options=one.options)
        case attributes.Number():
            return Number(name=one.name, low=one.low, high=one.high)
        case _:
            raise unknown("attribute", one, "one of sfumato.conditions.attributes")


def describe_own(config: TextConfig, tokenizer: Tokenizer) -> OwnText:
    """What a card says of a text encoder that is trained with the model, and of its tokenizer."""
    return OwnText(encoder=config.to_json(), tokenizer=tokenizer_hash(tokenizer))


def describe_frozen(encoder: FrozenText) -> ForeignText:
    """What a card says of a text encoder that others trained."""
    return ForeignText(
        pooled=encoder.pooled, width=encoder.width, length=encoder.length, fingerprint=encoder.fingerprint
    )


def make_shown(said: PictureSettings | None, height: int, width: int) -> Shown | None:
    """The picture that the settings mean, for images of this size."""
    return None if said is None else Shown((said.channels, height, width), said.task, said.column)


def describe_shown(shown: Shown) -> PictureSettings:
    """The inverse of `make_shown`."""
    return PictureSettings(channels=shown.shape[0], task=shown.task, column=shown.column)


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """A hash of all that decides which numbers a caption becomes."""
    said = (tokenizer.vocabulary, tokenizer.merges, tokenizer.length)
    special = (tokenizer.start, tokenizer.end, tokenizer.padding)
    return hashlib.sha256(repr((said, special)).encode("utf-8", "backslashreplace")).hexdigest()
