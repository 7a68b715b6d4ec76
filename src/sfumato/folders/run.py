"""The folder is the model: a run folder written and read, crash-safe, and a diffusers folder wherever it can
be one.

    RUN/sfumato.json                                    the card (see `card.py`)
    RUN/unet/ or RUN/transformer/
        config.json                                     the network, as diffusers says it where it can
        diffusion_pytorch_model.safetensors             the weights to sample with
        diffusion_pytorch_model.non_ema.safetensors     those that training left, kept beside an average
    RUN/text_encoder/, RUN/tokenizer/                   what reads captions (see `folders.text`)
    RUN/scheduler/, RUN/model_index.json                for diffusers (see `pipeline.py`)

Each file is replaced in one instant and the weights come last, so their renaming is the moment at which a new
model is there. What a reader needs to be sure of is in the weights' own metadata: a hash of what they mean
(`Card.core`) and how long they were trained. The rest of the card does not change while a run trains (but for
a learned schedule, whose weights fit any), and `save` refuses a folder that holds another model; so a reader
always sees the old model or the new one, whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sfumato.assembled import empty
from sfumato.card import CARD, Card, ImageSettings, TrainingSettings, WeightsSettings, read_card
from sfumato.conditions.schema import Reader
from sfumato.errors import ModelFileError, RunError, SettingsError
from sfumato.files import Checkpoints, inside, read_sharded, write_json, write_tensors
from sfumato.files.fitting import unfit
from sfumato.files.manifest import hash_file
from sfumato.files.tensors import read_hashed, read_metadata
from sfumato.folders.pipeline import network_folder, why_no_pipeline, write_settings
from sfumato.folders.text import (
    check_reader,
    keep_reader,
    open_reader,
    parted,
    read_text,
    settle,
    write_raw,
    write_text,
)
from sfumato.interop.folder import is_foreign, modern, read_foreign
from sfumato.model import Model, Steps
from sfumato.records.conditions import OwnText
from sfumato.training.snapshots import rebuild

log = logging.getLogger(__name__)

WEIGHTS = "diffusion_pytorch_model.safetensors"
RAW = "diffusion_pytorch_model.non_ema.safetensors"
_CORE, _HISTORY, _TEXT = "sfumato.model", "sfumato.history", "sfumato.text"


def save(
    folder: Path,
    model: Model,
    card: Card,
    average: Mapping[str, Tensor] | None = None,
    *,
    keep_raw: bool = False,
    text: Reader | None = None,
) -> Card:
    """Writes the model into a run folder, so that a crash at any instant leaves the old model or the new one.

    `average` (names of the model's or of its network's parameters) are the weights to sample with; without it
    they are the model's own. `keep_raw` keeps the model's own beside an average. `text` reads the captions of
    a model that is told them, and is kept in the folder too. Gives the card as it was written. Raises
    RunError if the folder holds another model or the disk refuses, SettingsError for weights of another
    network.
    """
    card = card.but(diffusers=why_no_pipeline(card))
    if (folder / CARD).exists():
        there = read_card(inside(folder, CARD))
        if there.core() != card.core():
            raise RunError(f"{folder}: holds another model: choose another folder, or remove this one first")
    folder.mkdir(parents=True, exist_ok=True)
    check_reader(card.text, text, folder)
    if text is not None:
        keep_reader(folder, text)
    write_settings(folder, card)
    write_json(folder / CARD, card.to_json())
    if average is not None and keep_raw:
        _write(folder, card.but(weights=WeightsSettings(kind="raw")), model.weights(), RAW)
    _write(folder, card, model.weights(average), WEIGHTS)
    return card


def _write(folder: Path, card: Card, state: Mapping[str, Tensor], name: str) -> None:
    """Writes the weights, the network's last: they name the text encoder's that belong to them."""
    network, text = parted(state)
    path = folder / network_folder(card) / name
    history = {"training": card.training.model_dump(), "weights": card.weights.model_dump()}
    said = {_CORE: card.core(), _HISTORY: json.dumps(history, sort_keys=True)}
    if isinstance(card.text, OwnText):
        said[_TEXT] = (
            write_raw(folder, text) if name == RAW else write_text(folder, card.text, text, _paired(path))
        )
    write_tensors(path, network, said)
    if name == WEIGHTS:
        settle(folder)


def _paired(path: Path) -> str | None:
    """The hash of the text encoder's weights that belong to those of the network in a file, if any."""
    try:
        return read_metadata(path).get(_TEXT) if path.exists() else None
    except ModelFileError:  # a damaged file is about to be replaced
        return None


@dataclass(frozen=True)
class Stored:
    """A model as it was found in a folder."""

    card: Card
    model: Model
    sha256: str
    """Of the file of weights; of the tensors where they were put together from several files."""
    text: Reader | None = None
    """What reads the captions, of a model that is told them."""


def open_folder(folder: Path, weights: str = "ema") -> Stored:
    """The model in a run folder, or in a folder that diffusers wrote, on the CPU and ready to sample.

    `weights`: "ema" for those meant to sample with, "raw" for those that training left, "ema:0.05" for the
    average of this relative width, rebuilt from the run's snapshots (Karras et al. 2024), "step:12000" for
    the average in the checkpoint of that step, while the run keeps it. Raises RunError (no run folder, of
    another version, damaged) or ModelFileError (a file that is not what it should be).
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder: give the folder of a run")
    if (folder / CARD).exists():
        card = read_card(inside(folder, CARD))
        home = folder / network_folder(card)
    elif is_foreign(folder):
        card, home = _derived(folder)
    else:
        raise RunError(
            f"{folder}: no model here (there is no {CARD}): give a run, or wait for its first save"
        )
    match weights.split(":"):
        case ["ema"]:
            path = home / WEIGHTS
        case ["raw"] if card.weights.kind == "raw":
            path = home / WEIGHTS
        case ["raw"] if (home / RAW).exists():
            path = home / RAW
        case ["raw"]:
            return _together(folder, card.but(weights=WeightsSettings(kind="raw")), _from_checkpoint(folder))
        case ["ema", width]:
            return _together(folder, card, _rebuilt(folder, width))
        case ["step", number]:
            return _together(folder, card, _earlier(folder, number))
        case _:
            raise SettingsError(
                f"weights {weights!r}: choose ema, raw, ema:0.05 for a width of 0.05, or step:12000"
            )
    tensors, metadata, digest = _read_all(folder, card, home, path)
    card = _agreed(card, metadata, path)
    return Stored(card, _filled(card, tensors, path), digest, _reader(folder, card))


def _reader(folder: Path, card: Card) -> Reader | None:
    return None if card.text is None else open_reader(folder, card.text)


def _read_all(
    folder: Path, card: Card, home: Path, path: Path
) -> tuple[dict[str, Tensor], dict[str, str], str]:
    """The network's tensors and those of its own text encoder, which a run that trains may replace between
    the two readings."""
    for again in (True, True, False):
        tensors, metadata, digest = _read_weights(home, path)
        if not isinstance(card.text, OwnText):
            break
        try:
            return tensors | read_text(folder, metadata.get(_TEXT, "")), metadata, digest
        except RunError:
            if not again:
                raise
    return tensors, metadata, digest


def _read_weights(home: Path, path: Path) -> tuple[dict[str, Tensor], dict[str, str], str]:
    if not path.exists():
        listed = f"{path.name}.index.json"
        if (home / listed).exists():
            tensors, metadata = read_sharded(home, listed)
            return tensors, metadata, tensors_hash(tensors)
        pickled = sorted(p.name for p in home.glob("*.bin"))
        if pickled:
            raise RunError(
                f"{home}: its weights are a pickle ({pickled[0]}), which can run code and is never opened: "
                "convert them to safetensors with the program that wrote them"
            )
        raise RunError(f"{path}: missing, so there are no weights: use another copy, or wait for the run")
    path = inside(home, path.name)
    for _ in range(3):  # a run that trains may replace the file between the two readings
        digest, _ = hash_file(path)
        try:
            return *read_hashed(path, digest), digest
        except ModelFileError:
            if hash_file(path)[0] == digest:
                raise
    raise RunError(f"{path}: is being replaced again and again: try again when nothing writes to it")


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """A sha256 of named tensors: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        t = tensor.detach().cpu().contiguous()
        digest.update(repr((name, str(t.dtype), tuple(t.shape))).encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _agreed(card: Card, metadata: Mapping[str, str], path: Path) -> Card:
    """The card with the history that the weights tell. Raises RunError if they are another model's."""
    if _CORE not in metadata:
        log.info(
            "%s: weights of another program: their names and shapes are checked, not their meaning", path
        )
        return card
    if metadata[_CORE] != card.core():
        raise RunError(
            f"{path}: these weights were trained with another schedule, prediction, network or image than "
            f"{CARD} says: restore the file that was there"
        )
    try:
        history = json.loads(metadata.get(_HISTORY, "{}"))
        return card.but(
            training=TrainingSettings.model_validate(history["training"]),
            weights=WeightsSettings.model_validate(history["weights"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):  # pydantic's errors are ValueErrors
        raise RunError(f"{path}: damaged at what it says of its training: use another copy") from None


def _filled(card: Card, tensors: Mapping[str, Tensor], path: Path) -> Model:
    """The card's model with these weights. Nothing is allocated before names and shapes agree."""
    hollow = empty(card)
    tensors = {modern(name): tensor for name, tensor in tensors.items()}
    reason = unfit(hollow.weights(), tensors)
    if reason is not None:
        raise RunError(f"{path} does not fit its card: {reason}: use another copy")
    model = hollow.to_empty(device="cpu")
    network, text = parted(tensors)
    model.network.load_state_dict(network)
    if model.text is not None:
        model.text.load_state_dict(text)
    return model.eval().requires_grad_(False)


def _together(folder: Path, card: Card, named: Mapping[str, Tensor]) -> Stored:
    """A model of weights that are in no file of their own."""
    tensors = {name.removeprefix("network."): tensor for name, tensor in named.items()}
    return Stored(card, _filled(card, tensors, folder), tensors_hash(tensors), _reader(folder, card))


def _from_checkpoint(folder: Path) -> Mapping[str, Tensor]:
    """The weights that training left in its newest checkpoint."""
    checkpoints = Checkpoints(folder / "checkpoints")
    latest = checkpoints.latest()
    tensors = {} if latest is None else checkpoints.load(latest)[0]
    if "weights" not in tensors:
        raise RunError(f"{folder}: its raw weights were not kept: leave --weights out to use the average")
    return tensors["weights"]


def _earlier(folder: Path, number: str) -> Mapping[str, Tensor]:
    """The average in the checkpoint of this step."""
    checkpoints = Checkpoints(folder / "checkpoints")
    kept = {str(one.step): one for one in checkpoints.all()}
    if number not in kept:
        there = ", ".join(f"step:{step}" for step in kept) or "ema, as this run keeps no checkpoints"
        raise SettingsError(f"{folder}: no checkpoint 'step:{number[:40]}' is kept: choose {there}")
    tensors = checkpoints.load(kept[number])[0]
    if "ema" not in tensors:
        raise RunError(f"{kept[number].path}: holds no averaged weights: leave --weights out")
    return tensors["ema"]


def _rebuilt(folder: Path, width: str) -> Mapping[str, Tensor]:
    """The average of this relative width, from the snapshots that training kept."""
    try:
        relative = float(width)
    except ValueError:
        raise SettingsError(f"weights 'ema:{width[:40]}': give a number, as in ema:0.05") from None
    return rebuild(folder, relative)


def _derived(folder: Path) -> tuple[Card, Path]:
    """The card of a folder that diffusers wrote, and where its network is. Raises RunError naming what cannot
    be expressed."""
    try:
        found = read_foreign(folder)
        config = found.network
        height, width = config.image_size or (0, 0)
        card = Card.of(
            network=config,
            schedule=found.table,
            prediction=found.prediction,
            label=Steps(found.table.steps),
            learned_variance=found.learned_variance,
            image=ImageSettings(channels=config.in_channels, height=height, width=width),
            classes=None if config.classes is None else tuple(str(i) for i in range(config.classes)),
            clip=found.clip,
        )
    except SettingsError as error:
        raise RunError(f"{folder}: {error}") from None
    return card, found.home
