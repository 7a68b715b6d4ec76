"""The card of a model: the content of `sfumato.json`, everything that the weights alone do not say.

A card is a frozen value. Reading one refuses unknown names, numbers out of bounds and kinds that are not
known, with one sentence and before anything is allocated.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from torch import nn

from sfumato import noise
from sfumato.errors import ModelFileError, RunError, SettingsError, SfumatoError
from sfumato.files import read_json
from sfumato.model import Label, Model
from sfumato.networks import Config, DiTConfig, UNetConfig, from_json, to_json
from sfumato.networks import build as build_network
from sfumato.predictions import Prediction
from sfumato.recorded import (
    LabelSettings,
    PredictionSettings,
    Steps,
    describe_label,
    describe_prediction,
    make_label,
    make_prediction,
)
from sfumato.recorded_schedules import (
    Part,
    ScheduleSettings,
    describe_schedule,
    make_schedule,
    schedule_hash,
)
from sfumato.schedules import Schedule

FORMAT = 1
"""Version of `sfumato.json`; readers refuse versions that they do not know."""
CARD = "sfumato.json"
BLOCKS = 4096
"""The most residual and transformer blocks that a card may ask for."""

Text = Annotated[str, Field(max_length=10_000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Total = Annotated[int, Field(ge=0, le=2**53)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


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
    """How to sample where the user does not say. `guidance` is used where a class is asked for."""

    name: Name = "vab"
    steps: Annotated[int, Field(ge=1, le=100_000)] = 20
    guidance: Annotated[float, Field(ge=-1000, le=1000)] = 1.0


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
        _check_blocks(config)
        fed, said = (
            self.image.channels * (2 if twice else 1)
            for twice in (self.self_conditioned, self.learned_variance)
        )
        if config.in_channels != fed or config.out_channels != said:
            raise ValueError(
                f"a network from {config.in_channels} to {config.out_channels} channels does not fit images "
                f"of {self.image.channels}"
                + (" with learned variance" if self.learned_variance else "")
                + (" and self-conditioning" if self.self_conditioned else "")
            )
        if (config.classes or 0) != len(self.classes or ()):
            raise ValueError(f"{len(self.classes or ())} class names for a network of {config.classes or 0}")
        if self.image.low >= self.image.high:
            raise ValueError("the image's range is empty")
        return self

    def config(self) -> Config:
        """The network's configuration."""
        return self.network.config()

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
        said = self.model_dump(mode="json", include=names)
        if self.schedule.kind == "learned":
            said["schedule_hash"] = self.schedule.kind
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def but(self, **changes: object) -> Card:
        """The same card with other values, checked like a new one. Raises SettingsError."""
        try:
            return Card.model_validate({**{k: getattr(self, k) for k in Card.model_fields}, **changes})
        except ValidationError as error:
            raise SettingsError(f"this card cannot be changed so: {sentence(error)}") from None


def _check_blocks(config: Config) -> None:
    if isinstance(config, DiTConfig):
        blocks = config.layers
    else:
        levels = range(len(config.channels))
        blocks = sum(config.layers_at(i) * (1 + config.transformer_layers_at(i)) for i in levels)
    if blocks > BLOCKS:
        raise ValueError(f"a network of {blocks:,} blocks, at most {BLOCKS:,} are built")


def sentence(error: ValidationError) -> str:
    """The first thing that pydantic found, in a few words: where, and what."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part)[:60] for part in first["loc"])
    words = first["msg"].removeprefix("Value error, ")
    return f"{place}: {words}"[:400] if place else words[:400]


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


def assemble(card: Card, network: nn.Module) -> Model:
    """The model of a card around a network that is there already."""
    return Model(
        network,
        check_schedule(card, "the card"),
        make_prediction(card.prediction),
        make_label(card.label),
        card.data_std,
        card.learned_variance,
        card.self_conditioned,
    )


def build(card: Card, seed: int = 0) -> Model:
    """A new model with the initial weights of this seed: a function of (card, seed) alone."""
    with noise.seeded(seed, "weights"):
        return assemble(card, build_network(card.config()))


def empty(card: Card) -> nn.Module:
    """The card's network without memory (on the "meta" device): names and shapes only."""
    with torch.device("meta"):
        return build_network(card.config())
