"""The only source of randomness. Every draw is a function of a key: (seed, purpose, place), never of what was
drawn before.

So a picture depends on its own seed alone, whatever else is in its batch, and a run that resumes needs no
stored state: it draws again what it would have drawn. Draws are made on the CPU in float32 and then moved,
hence the same on every device. `torch.randn` is not promised to stay the same across releases, so `STREAM` is
stored with each picture and a test pins its first numbers.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import SupportsIndex

import torch
from torch import Tensor, nn

from sfumato.errors import SettingsError

STREAM = 1
"""Version of the noise stream: raised whenever the same key would give other numbers."""


def key_of(*parts: object) -> int:
    """A 63-bit integer that depends on every part and on their order: the seed of one draw."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: object) -> torch.Generator:
    """A fresh CPU generator for one draw."""
    return torch.Generator().manual_seed(key_of(*key))


def permutation(n: int, *key: object) -> Tensor:
    """A random order of 0 .. n-1, int64."""
    return torch.randperm(n, generator=generator(*key))


def uniform(n: int, *key: object) -> Tensor:
    """n numbers in [0, 1), float64: one stream for a whole set (for example one epoch's resampling)."""
    return torch.rand(n, generator=generator(*key), dtype=torch.float64)


def whole(seed: SupportsIndex) -> int:
    """A seed as Python's own whole number: keys are made of what is printed, and numpy's and torch's print
    otherwise. Raises SettingsError for what is no whole number, such as 1.0."""
    try:
        return operator.index(seed)
    except TypeError:
        raise SettingsError(f"a seed is a whole number, not {seed!r}") from None


@dataclass(frozen=True)
class Noise:
    """One stream of numbers per sample: row i of every draw is a function of (seeds[i], *use) and of nothing
    else."""

    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", tuple(whole(seed) for seed in self.seeds))

    @staticmethod
    def of(*key: object, places: Sequence[int]) -> Noise:
        """The streams of the samples at these places of a longer sequence, for example of a run's sample
        stream."""
        return Noise(tuple(key_of(*key, place) for place in places))

    def __len__(self) -> int:
        return len(self.seeds)

    def take(self, rows: Sequence[int]) -> Noise:
        return Noise(tuple(self.seeds[row] for row in rows))

    def normal(self, shape: Sequence[int], *use: object) -> Tensor:
        """Standard normals, (len(seeds), *shape), float32."""
        out = torch.empty((len(self.seeds), *shape))
        for row, seed in zip(out, self.seeds, strict=True):
            torch.randn(tuple(shape), generator=generator(seed, *use), out=row)
        return out

    def uniform(self, shape: Sequence[int], *use: object) -> Tensor:
        """Numbers in [0, 1), (len(seeds), *shape), float32."""
        out = torch.empty((len(self.seeds), *shape))
        for row, seed in zip(out, self.seeds, strict=True):
            torch.rand(tuple(shape), generator=generator(seed, *use), out=row)
        return out


@contextmanager
def seeded(*key: object) -> Generator[None, None, None]:
    """Makes torch's own initialisers draw by this key inside the block, and leaves the global state as it
    was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of(*key))
        yield


_streams: ContextVar[Noise | None] = ContextVar("streams", default=None)


@contextmanager
def streams(noise: Noise | None) -> Generator[None, None, None]:
    """The streams that `Dropout` draws from inside the block: one per row of the batch."""
    token = _streams.set(noise)
    try:
        yield
    finally:
        _streams.reset(token)


def current_streams() -> Noise | None:
    """What `streams` set; a network that recomputes activations in its backward pass must carry it there."""
    return _streams.get()


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) whose mask is a function of (the sample's stream, this layer's
    number).

    The same sample gets the same mask in any batch, on any number of processes and when activations are
    recomputed.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.number = 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        noise = current_streams()
        if noise is None:
            raise RuntimeError(
                "dropout draws from the samples' streams: run the network inside noise.streams(...)"
            )
        if len(noise) != len(x):
            raise RuntimeError(f"dropout: {len(noise)} streams for a batch of {len(x)}")
        keep = noise.uniform(x.shape[1:], "dropout", self.number) >= self.p
        return x * keep.to(x) / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def number_dropouts(network: nn.Module) -> None:
    """Gives each Dropout of a network its own number; call once at the end of the network's constructor."""
    for number, layer in enumerate(m for m in network.modules() if isinstance(m, Dropout)):
        layer.number = number
