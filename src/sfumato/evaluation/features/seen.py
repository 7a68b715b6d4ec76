"""What an extractor is: a fixed network that says what it sees in pictures, and by what protocol."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sfumato.errors import ModelFileError, SettingsError
from sfumato.files.manifest import hash_file
from sfumato.files.tensors import tensor_chunks

ON_CPU, ON_DEVICE = 16, 128
"""Pictures that go through a network together: at 224 x 224 the activations of one are some 10 MB."""


class Features(NamedTuple):
    """What was seen in B pictures, float32 on the CPU."""

    pooled: Tensor
    """(B, D): one description a picture."""
    spatial: Tensor | None = None
    """(B, D'): what is seen where, flattened (sFID: Nash et al. 2021), of extractors that have it."""
    logits: Tensor | None = None
    """(B, K): of the classes it knows (the Inception score), of extractors that are classifiers."""


@runtime_checkable
class Extractor(Protocol):
    """A frozen network with its protocol; values of other networks or protocols are other values.

    name: the word after a metric ("KID-lite0"). sha256: of the weights, whatever file they came in. resize:
    how pictures reach the network, in words. width: D.
    """

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def resize(self) -> str: ...
    @property
    def width(self) -> int: ...
    def __call__(self, images: Tensor) -> Features:
        """Of pictures (B, C, H, W) float32 in [-1, 1]: grey, colour, or with transparency (on white)."""
        ...


@dataclass(frozen=True)
class Looking:
    """An Extractor: `look` takes pictures (B, C, H, W) in [-1, 1] on the device and does all the rest."""

    name: str
    sha256: str
    resize: str
    width: int
    look: Callable[[Tensor], Features]
    device: torch.device

    def __call__(self, images: Tensor) -> Features:
        """What the network sees, a few pictures at a time; without gradient, and on a GPU with whole float32
        numbers. Raises SettingsError for NaN."""
        if images.ndim != 4 or not len(images):
            raise SettingsError(
                f"pictures of shape {tuple(images.shape)} have no features: give (n, C, H, W)"
            )
        at_once = ON_CPU if self.device.type == "cpu" else ON_DEVICE
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            parts = [self.look(part.to(self.device, torch.float32)) for part in images.split(at_once)]
        seen = joined([_on_cpu(part) for part in parts])  # outside: tensors that others may learn from
        for one in seen:
            if one is not None and not bool(one.isfinite().all()):
                raise SettingsError(
                    f"{self.name} sees numbers that are not finite: its weights are not usable"
                )
        return seen


def _on_cpu(seen: Features) -> Features:
    pooled, spatial, logits = (None if one is None else one.float().cpu() for one in seen)
    return Features(seen.pooled if pooled is None else pooled, spatial, logits)


def joined(parts: Sequence[Features]) -> Features:
    """The features of several batches as those of one."""
    spatial = [part.spatial for part in parts if part.spatial is not None]
    logits = [part.logits for part in parts if part.logits is not None]
    return Features(
        torch.cat([part.pooled for part in parts]),
        torch.cat(spatial) if spatial else None,
        torch.cat(logits) if logits else None,
    )


HASHED = re.compile(r"-([0-9a-f]{8,64})\.pth")
"""The name of a file that says how its sha256 begins."""
COUNTER = "num_batches_tracked"
"""Batch norms count what they were trained on; nothing is computed from it."""


def weights_hash(network: nn.Module) -> str:
    """The sha256 of the network's weights as one safetensors file: the same whatever file they came in."""
    digest = hashlib.sha256()
    weights = {name: t for name, t in network.state_dict().items() if not name.endswith(COUNTER)}
    for chunk in tensor_chunks(Path(type(network).__name__), weights, {}):
        digest.update(chunk)
    return digest.hexdigest()


def check_name(path: Path) -> None:
    """Raises ModelFileError where a file's name states its hash, as torch's downloads do, wrongly."""
    said = HASHED.search(path.name)
    if said is not None and path.is_file() and not hash_file(path)[0].startswith(said[1]):
        raise ModelFileError(
            f"{path}: its sha256 does not begin with {said[1]}, as its name says: fetch it again"
        )


def filled(
    make: Callable[[], nn.Module], tensors: dict[str, Tensor], where: Path | str, device: torch.device
) -> nn.Module:
    """The network with these weights, on the device, in evaluation mode and frozen; nothing is drawn for it.
    Raises ModelFileError where one is missing or does not fit."""
    with torch.device("meta"):
        network = make()
    wanted = {name: t for name, t in network.state_dict().items() if not name.endswith(COUNTER)}
    for name, tensor in wanted.items():
        if name not in tensors:
            raise ModelFileError(f"{where}: no weights of {type(network).__name__}, {name} is missing")
        if tensors[name].shape != tensor.shape or not tensors[name].is_floating_point():
            raise ModelFileError(
                f"{where}: no weights of {type(network).__name__}, {name} is of shape "
                f"{tuple(tensors[name].shape)} and not {tuple(tensor.shape)}"
            )
    network = network.to_empty(device="cpu")
    network.load_state_dict({name: tensors[name] for name in wanted}, strict=False)
    ready: Any = network.eval().requires_grad_(False)
    return ready.to(device=device, memory_format=torch.channels_last)
