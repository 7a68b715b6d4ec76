"""The classifier of a run: RUN/classifier/, written and read beside the model that it guides.

    RUN/classifier/classifier.safetensors    the weights; their metadata hold the card
    RUN/classifier/classifier.json           the card again, for people

One file holds all that a reader needs and is replaced in one instant, so a crash leaves the old classifier or
the new one. Nothing in it is code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from sfumato.card import DataSettings, ImageSettings, Name, TrainingSettings
from sfumato.errors import ModelFileError, RunError, SettingsError
from sfumato.files import inside, read_tensors, write_json, write_tensors
from sfumato.files.fitting import unfit
from sfumato.files.json_file import parse_json
from sfumato.files.manifest import hash_file
from sfumato.networks import Classifier, ClassifierConfig, from_json, to_json
from sfumato.records.part import Part
from sfumato.records.sentence import sentence

FOLDER = "classifier"
WEIGHTS, READABLE = f"{FOLDER}/classifier.safetensors", f"{FOLDER}/classifier.json"
_CARD = "sfumato.classifier"

Share = Annotated[float, Field(ge=0, le=1)]
Real = Annotated[float, Field(ge=-1e6, le=1e6)]


class ClassifierCard(Part):
    """Everything about a classifier but its weights. `right`: the share of held-out pictures that it judges
    rightly at each of the levels `log_snr`."""

    format: Literal[1] = 1
    library: Annotated[str, Field(max_length=100)] = ""
    network: dict[str, Any]
    classes: Annotated[tuple[Name, ...], Field(min_length=2, max_length=1_000_000)]
    image: ImageSettings
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    log_snr: Annotated[tuple[Real, ...], Field(max_length=1000)] = ()
    right: Annotated[tuple[Share, ...], Field(max_length=1000)] = ()

    @model_validator(mode="after")
    def _fits(self) -> ClassifierCard:
        try:
            config = self.config()
        except SettingsError as error:
            raise ValueError(str(error)) from None
        if config.outputs != len(self.classes):
            raise ValueError(f"{config.outputs} outputs for {len(self.classes)} classes")
        if config.in_channels != self.image.channels:
            raise ValueError(f"{config.in_channels} channels for images of {self.image.channels}")
        if not config.told:
            raise ValueError("a classifier that is told no noise level cannot guide")
        if len(self.log_snr) != len(self.right):
            raise ValueError(f"{len(self.right)} figures at {len(self.log_snr)} levels")
        return self

    def config(self) -> ClassifierConfig:
        """The network's configuration."""
        return from_json(ClassifierConfig, self.network)

    @staticmethod
    def of(
        config: ClassifierConfig,
        classes: tuple[str, ...],
        image: ImageSettings,
        *,
        data: DataSettings = DataSettings(),  # noqa: B008 (frozen)
        training: TrainingSettings = TrainingSettings(),  # noqa: B008 (frozen)
        log_snr: tuple[float, ...] = (),
        right: tuple[float, ...] = (),
    ) -> ClassifierCard:
        """The card of a classifier. Raises SettingsError where its parts do not fit together."""
        from sfumato import __version__

        try:
            return ClassifierCard(
                library=__version__,
                network=to_json(config),
                classes=classes,
                image=image,
                data=data,
                training=training,
                log_snr=log_snr,
                right=right,
            )
        except ValidationError as error:
            raise SettingsError(f"this classifier cannot be saved: {sentence(error)}") from None


@dataclass(frozen=True)
class StoredClassifier:
    """A classifier as it was found in a run, on the CPU and ready to judge."""

    card: ClassifierCard
    network: Classifier
    sha256: str
    """Of its file."""


def save_classifier(run: Path, network: Classifier, card: ClassifierCard) -> None:
    """Writes the classifier of a run; the one that was there is replaced. Raises RunError."""
    (run / FOLDER).mkdir(exist_ok=True)
    said = card.model_dump(mode="json")
    write_tensors(run / WEIGHTS, network.state_dict(), {_CARD: json.dumps(said, sort_keys=True)})
    write_json(run / READABLE, said)


def open_classifier(run: Path) -> StoredClassifier:
    """The classifier of a run. Raises RunError: none, damaged, of another version."""
    if not (run / WEIGHTS).is_file():
        raise RunError(f"{run}: has no classifier: train one with sfumato train-classifier {run} DATA")
    path = run / WEIGHTS
    try:
        path = inside(run, WEIGHTS)
        digest, _ = hash_file(path)
        tensors, metadata = read_tensors(path)
        value = parse_json(metadata.get(_CARD, "").encode())
        card = ClassifierCard.model_validate_json(json.dumps(value), strict=True)
    except ModelFileError as error:
        raise RunError(str(error)) from None
    except ValidationError as error:
        raise RunError(f"{path}: no classifier's card ({sentence(error)}): train it again") from None
    except (ValueError, RecursionError):
        raise RunError(f"{path}: does not say what it is a classifier of: train it again") from None
    return StoredClassifier(card, _filled(card, tensors, path), digest)


def _filled(card: ClassifierCard, tensors: dict[str, Tensor], path: Path) -> Classifier:
    """The card's network with these weights. Nothing is allocated before names and shapes agree."""
    with torch.device("meta"):
        network = Classifier(card.config())
    reason = unfit(network.state_dict(), tensors)
    if reason is not None:
        raise RunError(f"{path}: its tensors are not those that its card says ({reason}): train it again")
    network = network.to_empty(device="cpu")
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)
