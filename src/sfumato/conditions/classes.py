"""Classes by name or number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.conditions.nearest import match, unknown
from sfumato.errors import SettingsError

Asked = int | str
"""A class as a user says it."""


@dataclass(frozen=True)
class Classes:
    """The classes of a model; `null` says whether it also knows "no class", the row after the last."""

    names: tuple[str, ...]
    null: bool

    def find(self, asked: Asked) -> int:
        """The number of a class. A name goes before a number. Raises SettingsError with the nearest names."""
        if isinstance(asked, str):
            at = match(asked, self.names)
            if at is not None:
                return at
            text = asked.strip()
            if not (text.isascii() and text.isdigit() and len(text) < 9):
                raise unknown("no class is called", text, self.names)
            asked = int(text)
        if isinstance(asked, bool) or not 0 <= asked < len(self.names):
            raise SettingsError(
                f"there is no class {asked}: the model's {len(self.names)} classes are 0 to "
                f"{len(self.names) - 1}"
            )
        return asked

    def rows(self, numbers: Sequence[int | None]) -> Tensor:
        """What the network takes, (B,) int64: None is "no class"."""
        if not self.null and any(number is None for number in numbers):
            raise SettingsError(
                'this model needs a class for every picture: it was trained without "no class"'
            )
        return torch.tensor([len(self.names) if n is None else n for n in numbers], dtype=torch.int64)
