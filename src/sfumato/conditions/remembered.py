"""Captions that were read once: a frozen text encoder says the same of the same caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sfumato.conditions.schema import States

ROOM = 1 << 30
"""Bytes of states that are kept."""


@dataclass(frozen=True)
class Remembered:
    """A frozen text encoder that keeps what it said, on the CPU, up to `room` bytes."""

    encoder: States
    room: int = ROOM
    _kept: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def states(self, texts: Sequence[str]) -> Tensor:
        """The captions' states, (B, N, D) float32: asked for once each, while there is room."""
        new = [text for text in dict.fromkeys(texts) if text not in self._kept]
        found = dict(self._kept)
        if new:
            found |= dict(zip(new, self.encoder.states(new).cpu(), strict=True))
        each = next(iter(found.values())).numel() * 4 if found else 1
        for text in new[: max(0, self.room // each - len(self._kept))]:
            self._kept[text] = found[text].clone()
        return torch.stack([found[text] for text in texts])
