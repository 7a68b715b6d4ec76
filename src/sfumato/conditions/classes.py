"""Classes by name or number."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
            text = asked.strip()
            if text in self.names:
                return self.names.index(text)
            lower = [name.lower() for name in self.names]
            if lower.count(text.lower()) == 1:
                return lower.index(text.lower())
            if not (text.isascii() and text.isdigit() and len(text) < 9):
                near = difflib.get_close_matches(text.lower(), lower, n=3)
                shown = [self.names[lower.index(name)] for name in near] or list(self.names[:8])
                more = ", ..." if not near and len(self.names) > 8 else ""
                raise SettingsError(
                    f"no class is called {text[:60]!r}: {'did you mean' if near else 'there are'} "
                    f"{', '.join(shown)}{more}" + ("?" if near else "")
                )
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
