"""A model's captions in its run folder: the tokenizer, and the text encoder's weights beside the network's.

    RUN/tokenizer/                                      of the model's own text encoder, or of a frozen one
    RUN/text_encoder/config.json, model.safetensors     as transformers has them
    RUN/text_encoder/model.non_ema.safetensors          as training left them, where they were kept

The network's file is the one whose renaming makes a new model: its metadata names the hash of the text
weights that belong to it, and until it is there the text weights before them stay beside the new ones. So a
crash at any instant leaves the old pair or the new one.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from sfumato.conditions.encoder import WEIGHTS, save_encoder
from sfumato.conditions.frozen import FrozenText
from sfumato.conditions.remembered import Remembered
from sfumato.conditions.schema import Reader
from sfumato.conditions.tokens import LONGEST, Tokenizer, load_tokenizer
from sfumato.errors import ModelFileError, RunError, SettingsError
from sfumato.files import inside, write_tensors
from sfumato.files.atomic import sync_folder, temporary_name, told, write_atomic
from sfumato.files.manifest import hash_file
from sfumato.files.tensors import read_hashed
from sfumato.model import TEXT
from sfumato.networks.text import named
from sfumato.records.conditions import AnyText, ForeignText, OwnText, tokenizer_hash

ENCODER, TOKENIZER = "text_encoder", "tokenizer"
RAW, PREVIOUS = "model.non_ema.safetensors", "model.previous.safetensors"
_COPIED = {ENCODER: ("*.json", "*.safetensors"), TOKENIZER: ("*.json", "*.txt", "*.model")}


def parted(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The network's tensors, and the text encoder's by its own names, of what `Model.weights` gives."""
    network = {name: tensor for name, tensor in state.items() if not name.startswith(TEXT)}
    return network, {n.removeprefix(TEXT): tensor for n, tensor in state.items() if n.startswith(TEXT)}


def write_text(folder: Path, said: OwnText, tensors: Mapping[str, Tensor], before: str | None) -> str:
    """Writes the text encoder's weights to sample with; gives their hash. `before` is that of the weights
    that the network's file names now: they stay beside until `settle`."""
    home = folder / ENCODER
    path = home / WEIGHTS
    if before is not None and path.exists() and hash_file(path)[0] == before:
        with told("reading", path):
            write_atomic(home / PREVIOUS, [path.read_bytes()])
    save_encoder(home, said.config(), tensors)
    return hash_file(path)[0]


def write_raw(folder: Path, tensors: Mapping[str, Tensor]) -> str:
    """Writes the text encoder's weights as training left them; gives their hash."""
    path = folder / ENCODER / RAW
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, named(tensors))
    return hash_file(path)[0]


def settle(folder: Path) -> None:
    """The network's file names the new text weights: those before them may go."""
    (folder / ENCODER / PREVIOUS).unlink(missing_ok=True)


def read_text(folder: Path, wanted: str) -> dict[str, Tensor]:
    """The text encoder's tensors of this hash, under "text." and its own names. Raises RunError if they are
    not there (a run that trains may have just replaced them)."""
    for name in (WEIGHTS, PREVIOUS, RAW):
        path = folder / ENCODER / name
        if path.exists() and hash_file(inside(folder, f"{ENCODER}/{name}"))[0] == wanted:
            tensors, _ = read_hashed(path, wanted)
            return {f"{TEXT}{key}": tensor for key, tensor in named(tensors).items()}
    raise RunError(
        f"{folder / ENCODER}: the text encoder's weights are not those that the network's belong to: use "
        f"another copy of the folder"
    )


def keep_reader(folder: Path, text: Reader) -> None:
    """Puts what reads the captions into the run folder, unless it is there: the tokenizer, or all of a frozen
    encoder."""
    held = text.encoder if isinstance(text, Remembered) else text
    if isinstance(held, Tokenizer) and not (folder / TOKENIZER).exists():
        with _whole(folder / TOKENIZER) as place:
            held.save(place)
    if isinstance(held, FrozenText) and held.folder.resolve() != folder.resolve():
        copy_frozen(held.folder, folder)


def copy_frozen(source: Path, folder: Path) -> None:
    """Copies a frozen encoder and its tokenizer into the run folder, so that it samples with its path
    alone. Parts that are there already stay."""
    both = (source / ENCODER).is_dir() and (source / TOKENIZER).is_dir()
    for part, patterns in _COPIED.items():
        place, target = (source / part if both else source), folder / part
        if target.exists():
            continue
        with _whole(target) as copy:
            for path in sorted({found for pattern in patterns for found in place.glob(pattern)}):
                if path.is_file() and not (part == TOKENIZER and path.name.endswith(".index.json")):
                    shutil.copyfile(path, copy / path.name)


@contextmanager
def _whole(target: Path) -> Generator[Path, None, None]:
    """An empty folder to fill, which becomes `target` when all is in it: who finds the name finds
    everything."""
    temporary = temporary_name(target)
    with told("writing", target):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            sync_folder(temporary)
            temporary.rename(target)
            sync_folder(target.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def open_reader(folder: Path, said: AnyText) -> Reader:
    """What reads the captions of the model in a run folder. Raises RunError or ModelFileError if it is not
    what the card says, SettingsError where transformers is needed and not installed."""
    if isinstance(said, ForeignText):
        return _frozen(folder, said)
    place = folder / TOKENIZER
    if not place.is_dir():
        raise RunError(f"{place}: missing, so captions cannot be read: use another copy of the folder")
    tokenizer = load_tokenizer(place)
    if tokenizer_hash(tokenizer) != said.tokenizer:
        raise RunError(
            f"{place}: not the tokenizer that the model was trained with: restore the one that was there"
        )
    return tokenizer


def _frozen(folder: Path, said: ForeignText) -> FrozenText:
    try:
        encoder = FrozenText(folder, said.pooled, LONGEST if said.pooled else said.length)
    except ModelFileError as error:
        raise RunError(str(error)) from None
    if encoder.fingerprint != said.fingerprint:
        raise RunError(
            f"{folder / ENCODER}: not the text encoder that the model was trained with: restore the one "
            "that was there"
        )
    return encoder


def check_reader(said: AnyText | None, text: Reader | None, folder: Path) -> None:
    """Raises SettingsError where a model that reads captions is saved without what reads them."""
    there = (folder / TOKENIZER).exists()
    if said is not None and text is None and not there:
        raise SettingsError(
            f"{folder}: this model reads captions: give save() what reads them as well (text=)"
        )
