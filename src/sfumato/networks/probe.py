"""Probes: reading, and changing, what a network works out on its way, at places that have names.

A network hands what it has at a place to `probed`, which gives it back as it is unless a probe is set
there. So nothing of a network is replaced to look inside it, and walks in several threads do not see
each other's probes.

- "cross", "self": the maps of attention to a context, and of places to each other, (B, heads, T, N), rows
  adding up to 1. A network meets these places once a layer, always in the same order.
- "bottleneck": the features in the network's middle, (B, C, *space), or tokens (B, T, C).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, runtime_checkable

from torch import Tensor

PLACES = ("cross", "self", "bottleneck")


@runtime_checkable
class Probe(Protocol):
    """Looks at the values of some places of a network and may give others in their stead."""

    @property
    def places(self) -> tuple[str, ...]:
        """Those of `PLACES` that it wants to see."""
        ...

    def __call__(self, place: str, value: Tensor) -> Tensor:
        """What the network goes on with: `value` itself, or another of its shape."""
        ...


_probes: ContextVar[tuple[Probe, ...]] = ContextVar("probes", default=())


@contextmanager
def probing(probe: Probe) -> Generator[None, None, None]:
    """Sets a probe inside the block, after those that are set already."""
    token = _probes.set((*_probes.get(), probe))
    try:
        yield
    finally:
        _probes.reset(token)


def watched(place: str | None = None) -> bool:
    """Whether a probe looks at this place; at any, where none is named. A batch is then not cut up, so that a
    probe sees the rows that belong together."""
    return any(place is None or place in probe.places for probe in _probes.get())


def probed(place: str, value: Tensor) -> Tensor:
    """The value as the probes that look at this place leave it."""
    for probe in _probes.get():
        if place in probe.places:
            value = probe(place, value)
    return value
