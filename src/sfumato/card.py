"""The card of a model: the content of `sfumato.json`, everything that the weights alone do not say.

A card is a frozen value. Reading one refuses unknown names, numbers out of bounds and kinds that are not
known, with one sentence and before anything is allocated.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from pydantic import Field, ValidationError, model_validator

from sfumato import noise
from sfumato.conditions.classes import Classes
from sfumato.conditions.schema import Conditions, Reader
from sfumato.data.aligned import named
from sfumato.data.source import Source
from sfumato.errors import ModelFileError, RunError, SettingsError, SfumatoError
from sfumato.files import read_json
from sfumato.model import Label
from sfumato.networks import Config, DiTConfig, UNetConfig, to_json
from sfumato.predictions import Prediction
from sfumato.records.conditions import (
    AttributeSettings,
    PictureSettings,
    TextSettings,
    make_attributes,
    make_shown,
)
from sfumato.records.facts import (
    DataSettings,
    ImageSettings,
    Name,
    NetworkSettings,
    SamplerSettings,
    Text,
    TrainingSettings,
    WeightsSettings,
    check_blocks,
)
from sfumato.records.part import Hash, Part
from sfumato.records.predictions import (
    LabelSettings,
    PredictionSettings,
    Steps,
    describe_label,
    describe_prediction,
    make_prediction,
)
from sfumato.records.schedules import (
    ScheduleSettings,
    describe_schedule,
    make_schedule,
    schedule_hash,
)
from sfumato.records.sentence import sentence
from sfumato.schedules import Schedule

FORMAT = 1
"""Version of `sfumato.json`; readers refuse versions that they do not know."""
CARD = "sfumato.json"
_TOLD = ("attributes", "text", "picture")
"""Conditions that came after the first cards: they count, and are written, only where they are."""


class Fitting(TypedDict):
    """Words of `data.prepare.prepare`."""

    size: tuple[int, int]
    channels: int
    aligned: str


class Card(Part):
    """Everything about a model but its weights. `Card.of` fills in what follows from the rest."""

    format: Literal[1] = FORMAT
    library: Annotated[str, Field(max_length=100)] = ""
    noise_stream: Annotated[int, Field(ge=1, le=1_000_000)] = noise.STREAM
    network: NetworkSettings
    schedule: ScheduleSettings
    schedule_hash: Hash
    prediction: PredictionSettings
    label: LabelSettings = Steps()
    data_std: Annotated[float, Field(gt=0, le=1e6)] | None = None
    learned_variance: bool = False
    self_conditioned: bool = False
    image: ImageSettings
    classes: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1_000_000)] | None = None
    attributes: Annotated[tuple[AttributeSettings, ...], Field(min_length=1, max_length=1000)] | None = None
    text: TextSettings | None = None
    picture: PictureSettings | None = None
    clip: bool = False
    sampler: SamplerSettings = SamplerSettings()
    weights: WeightsSettings = WeightsSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    note: Text | None = None
    diffusers: Text | None = None
    """Why diffusers cannot open the folder; None where it can, or where nothing was written yet."""

    @staticmethod
    def of(
        *,
        network: Config,
        schedule: Schedule,
        prediction: Prediction,
        image: ImageSettings,
        label: Label | None = None,
        data_std: float | None = None,
        learned_variance: bool = False,
        self_conditioned: bool = False,
        classes: tuple[str, ...] | None = None,
        attributes: tuple[AttributeSettings, ...] | None = None,
        text: TextSettings | None = None,
        picture: PictureSettings | None = None,
        clip: bool = False,
        sampler: SamplerSettings = SamplerSettings(),  # noqa: B008 (frozen)
        weights: WeightsSettings = WeightsSettings(),  # noqa: B008 (frozen)
        data: DataSettings = DataSettings(),  # noqa: B008 (frozen)
        training: TrainingSettings = TrainingSettings(),  # noqa: B008 (frozen)
        note: str | None = None,
    ) -> Card:
        """The card of a model made of these objects. Raises SettingsError where they do not fit together."""
        from sfumato import __version__

        kind: Literal["unet", "dit"] = "unet" if isinstance(network, UNetConfig) else "dit"
        try:
            return Card(
                library=__version__,
                network=NetworkSettings(kind=kind, settings=to_json(network)),
                schedule=describe_schedule(schedule),
                schedule_hash=schedule_hash(schedule),
                prediction=describe_prediction(prediction),
                label=Steps() if label is None else describe_label(label),
                data_std=data_std,
                learned_variance=learned_variance,
                self_conditioned=self_conditioned,
                image=image,
                classes=classes,
                attributes=attributes,
                text=text,
                picture=picture,
                clip=clip,
                sampler=sampler,
                weights=weights,
                data=data,
                training=training,
                note=note,
            )
        except ValidationError as error:
            raise SettingsError(f"this model cannot be saved: {sentence(error)}") from None

    @model_validator(mode="after")
    def _tells_levels(self) -> Card:
        if self.schedule.kind == "learned" and self.label.kind != "log_sigma":
            raise ValueError("a model with a learned schedule is told its level by log_sigma")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Card:
        try:
            config = self.network.config()
        except SfumatoError as error:
            raise ValueError(str(error)) from None
        check_blocks(config)
        fed, said = (
            self.image.channels * (2 if twice else 1)
            for twice in (self.self_conditioned, self.learned_variance)
        )
        fed += 0 if self.picture is None else self.picture.channels
        if config.in_channels != fed or config.out_channels != said:
            raise ValueError(
                f"a network from {config.in_channels} to {config.out_channels} channels does not fit images "
                f"of {self.image.channels}"
                + (" with learned variance" if self.learned_variance else "")
                + (" and self-conditioning" if self.self_conditioned else "")
                + ("" if self.picture is None else f" beside a picture of {self.picture.channels}")
            )
        if (config.classes or 0) != len(self.classes or ()):
            raise ValueError(f"{len(self.classes or ())} class names for a network of {config.classes or 0}")
        self._check_told(config)
        if self.image.low >= self.image.high:
            raise ValueError("the image's range is empty")
        return self

    def _check_told(self, config: Config) -> None:
        """Raises ValueError unless the network takes the attributes and the text, and nothing else."""
        try:
            features = make_attributes(self.attributes).width
            width = None if self.text is None else self.text.width
        except SfumatoError as error:
            raise ValueError(str(error)) from None
        if isinstance(config, DiTConfig):
            if features or width is not None:
                raise ValueError("a DiT takes a class alone: attributes and text need a U-Net")
            return
        if (config.vector or 0) != features:
            raise ValueError(f"{features} features of attributes for a network of {config.vector or 0}")
        if width is not None and (
            "cross" not in (*config.attention, config.middle) or config.context_dim != width
        ):
            raise ValueError(f"text of width {width} for a network that looks at {config.context_dim}")

    def config(self) -> Config:
        """The network's configuration."""
        return self.network.config()

    @property
    def column(self) -> str:
        """The column of the user's own pictures that the model is shown; "" where it is shown none."""
        return "" if self.picture is None else self.picture.column

    def fitting(self, source: Source) -> Fitting:
        """How pictures are prepared for this model: `prepare(source, **card.fitting(source))`."""
        image = self.image
        return Fitting(
            size=(image.height, image.width), channels=image.channels, aligned=named(source, self.column)
        )

    @property
    def null_class(self) -> bool:
        """Whether the network also knows "no class", which classifier-free guidance needs."""
        config = self.config()
        return config.classes is not None and (isinstance(config, DiTConfig) or config.null_class)

    def core(self) -> str:
        """A hash of what the weights mean: network, schedule, prediction, label, scale and image. Weights
        carry it. A learned schedule moves while its model trains, which is told log-SNRs: it does not count.
        """
        names = {"network", "schedule_hash", "prediction", "label", "data_std", "learned_variance", "image"}
        names |= {"self_conditioned"} if self.self_conditioned else set()
        names |= {name for name in _TOLD if getattr(self, name) is not None}
        said = self.model_dump(mode="json", include=names)
        if self.schedule.kind == "learned":
            said["schedule_hash"] = self.schedule.kind
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def conditions(self, text: Reader | None = None) -> Conditions:
        """What the model can be told; `text` reads its captions."""
        return Conditions(
            classes=None if self.classes is None else Classes(self.classes, self.null_class),
            attributes=make_attributes(self.attributes),
            text=text,
            shown=make_shown(self.picture, self.image.height, self.image.width),
        )

    def to_json(self) -> dict[str, Any]:
        """What `sfumato.json` holds. Conditions that the model does not have are not mentioned, so that older
        programs read it too."""
        return self.model_dump(mode="json", exclude={name for name in _TOLD if getattr(self, name) is None})

    def but(self, **changes: object) -> Card:
        """The same card with other values, checked like a new one. Raises SettingsError."""
        try:
            return Card.model_validate({**{k: getattr(self, k) for k in Card.model_fields}, **changes})
        except ValidationError as error:
            raise SettingsError(f"this card cannot be changed so: {sentence(error)}") from None


def parse_card(value: object, where: Path | str) -> Card:
    """The card that a JSON value describes, its schedule checked by its hash. Raises RunError."""
    if isinstance(value, dict) and "format" in value and value["format"] != FORMAT:
        raise RunError(
            f"{where}: format version {str(value['format'])[:40]}, this program knows version {FORMAT}: "
            "open it with the version of sfumato that wrote it"
        )
    try:
        card = Card.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise RunError(
            f"{where}: no card of a model ({sentence(error)}): mend it or use another copy"
        ) from None
    except RecursionError:
        raise RunError(f"{where}: values nested too deeply for a card: use another copy") from None
    check_schedule(card, where)
    return card


def read_card(path: Path) -> Card:
    """The card in a file. Raises RunError: missing, damaged, of another version, or contradicting itself."""
    try:
        value = read_json(path)
    except ModelFileError as error:
        raise RunError(str(error)) from None
    return parse_card(value, path)


def check_schedule(card: Card, where: Path | str) -> Schedule:
    """The card's schedule, if its levels are those that the model was trained on; otherwise RunError."""
    try:
        schedule = make_schedule(card.schedule)
        found = schedule_hash(schedule)
        make_prediction(card.prediction)  # which may hold a table of its own
    except SettingsError as error:
        raise RunError(f"{where}: {error}") from None
    if found != card.schedule_hash:
        raise RunError(
            f"{where}: its schedule ({card.schedule.kind}) does not give the levels of the training (hash "
            f"{found[:10]}, trained on {card.schedule_hash[:10]}): restore the schedule that was there"
        )
    return schedule
