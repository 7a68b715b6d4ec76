"""Attributes: what is known of a picture beside its class and its caption, as features that a network takes.

Every attribute begins with a "present" flag; a value that is missing, or hidden in training, is all zeros.
The features of all attributes stand side by side in one vector.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.conditions.nearest import match, unknown
from sfumato.errors import SettingsError

Value = str | float | tuple[str, ...]
"""A value as it is kept: an option's name, a number, or the names of several."""
Said = str | int | float | Sequence[str]
"""A value as a user or a table says it."""

RESERVED = ("class", "text", "picture")
"""Conditions of their own, which no attribute may be called."""
FREQUENCIES = 4
MOST_OPTIONS = 4096


@runtime_checkable
class Attribute(Protocol):
    """One thing that can be told of a picture."""

    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int:
        """How many features it has, the flag among them."""
        ...

    def parse(self, said: Said) -> Value:
        """The value that is meant. Raises SettingsError that says what is possible."""
        ...

    def features(self, value: Value) -> list[float]:
        """`width` numbers, the first of them 1."""
        ...

    def possible(self) -> str:
        """What it can be, in words."""
        ...

    def example(self) -> Value:
        """One value that it can have."""
        ...


@dataclass(frozen=True)
class Choice:
    """One of several names: a flag and a one-hot vector."""

    name: str
    options: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_options(self.name, self.options)

    @property
    def width(self) -> int:
        return 1 + len(self.options)

    def parse(self, said: Said) -> str:
        return _option(self.name, self.options, said)

    def features(self, value: Value) -> list[float]:
        return [1.0, *(float(option == value) for option in self.options)]

    def possible(self) -> str:
        return _listed("one of", self.options)

    def example(self) -> str:
        return self.options[0]


@dataclass(frozen=True)
class Labels:
    """Any number of several names at once: a flag and a multi-hot vector. In text they are a JSON list, or
    parted by | or by commas."""

    name: str
    options: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_options(self.name, self.options)

    @property
    def width(self) -> int:
        return 1 + len(self.options)

    def parse(self, said: Said) -> tuple[str, ...]:
        parts = split(said) if isinstance(said, str) else said if isinstance(said, Sequence) else [said]
        found = {_option(self.name, self.options, part) for part in parts}
        return tuple(option for option in self.options if option in found)

    def features(self, value: Value) -> list[float]:
        held = value if isinstance(value, tuple) else ()
        return [1.0, *(float(option in held) for option in self.options)]

    def possible(self) -> str:
        return _listed("any of", self.options)

    def example(self) -> tuple[str, ...]:
        return self.options[:2]


@dataclass(frozen=True)
class Number:
    """A real number between `low` and `high`, the range of the training data.

    With u = (value - low) / (high - low) its features are a flag, u, and sin and cos of 2^j pi u for a few j,
    by which a small network tells near values apart (Tancik et al. 2020, "Fourier features let networks learn
    high frequency functions in low dimensional domains", section 6.1).
    """

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise SettingsError(f"{self.name}: a number needs a range, not {self.low:g} to {self.high:g}")

    @property
    def width(self) -> int:
        return 2 + 2 * FREQUENCIES

    def parse(self, said: Said) -> float:
        value = number(said)
        if value is None:
            raise SettingsError(f"{self.name} is a number {self.possible()}, not {str(said)[:60]!r}")
        if not self.low <= value <= self.high:
            raise SettingsError(
                f"{self.name} {value:g} lies outside what the model was trained on: give a number "
                f"{self.possible()}"
            )
        return value

    def features(self, value: Value) -> list[float]:
        u = (float(value) - self.low) / (self.high - self.low) if isinstance(value, int | float) else 0.0
        waves = [wave(2**j * math.pi * u) for j in range(FREQUENCIES) for wave in (math.sin, math.cos)]
        return [1.0, u, *waves]

    def possible(self) -> str:
        return f"from {self.low:g} to {self.high:g}"

    def example(self) -> float:
        return float(f"{(self.low + self.high) / 2:.3g}")


@dataclass(frozen=True)
class Attributes:
    """All attributes of a model, in the order of their features. Raises SettingsError where names clash."""

    items: tuple[Attribute, ...] = ()

    def __post_init__(self) -> None:
        for name in self.names:
            if self.names.count(name) > 1:
                raise SettingsError(f"two attributes are called {name!r}: name each once")
            if name in RESERVED or not name.strip() or "=" in name:
                raise SettingsError(f"an attribute cannot be called {name!r}: give its column another name")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(item.name for item in self.items)

    @property
    def width(self) -> int:
        """How many features there are."""
        return sum(item.width for item in self.items)

    def named(self, name: str) -> Attribute:
        """The attribute of this name. Raises SettingsError with the nearest names."""
        at = match(name, self.names)
        if at is None:
            raise unknown("no attribute is called", name, self.names)
        return self.items[at]

    def parse(self, said: Mapping[str, Said | None]) -> dict[str, Value]:
        """The values that are meant, by the attributes' own names; None is not told."""
        found = {self.named(name): value for name, value in said.items()}
        return {item.name: item.parse(value) for item, value in found.items() if value is not None}

    def rows(self, values: Sequence[Mapping[str, Value]]) -> Tensor:
        """What the network takes, (B, width) float32: zeros where an attribute is not among the values."""
        out: list[list[float]] = []
        for told in values:
            row: list[float] = []
            for item in self.items:
                held = item.name in told
                row += item.features(told[item.name]) if held else [0.0] * item.width
            out.append(row)
        return torch.tensor(out, dtype=torch.float32).reshape(len(values), self.width)

    def hide(self, rows: Tensor, which: Mapping[str, Tensor]) -> Tensor:
        """The same rows, (B, width), with the features of an attribute zero where `which` (B,) says so."""
        parts: list[Tensor] = []
        for item, part in zip(self.items, rows.split([item.width for item in self.items], 1), strict=True):
            gone = which.get(item.name)
            parts.append(part if gone is None else part * ~gone[:, None].to(part.device))
        return torch.cat(parts, dim=1) if parts else rows


def number(said: object) -> float | None:
    """The finite number that is meant, if any."""
    try:
        value = float(said) if isinstance(said, str | int | float) else math.nan
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def split(text: str) -> list[str]:
    """Several labels in one text: a JSON list, or parted by | or else by commas."""
    if text.strip().startswith("["):
        try:
            held: object = json.loads(text)
        except (ValueError, RecursionError):
            held = None
        if isinstance(held, list):
            return [str(one).strip() for one in held if one is not None and str(one).strip()]
    parts = text.split("|" if "|" in text else ",")
    return [part.strip() for part in parts if part.strip()]


def _option(name: str, options: tuple[str, ...], said: object) -> str:
    asked = f"{said:g}" if isinstance(said, float) else str(said)
    at = match(asked, options)
    if at is None:
        raise unknown(f"{name} cannot be", asked, options)
    return options[at]


def _check_options(name: str, options: tuple[str, ...]) -> None:
    if not 1 <= len(options) <= MOST_OPTIONS or len(set(options)) < len(options):
        raise SettingsError(f"{name}: 1 to {MOST_OPTIONS:,} different options, not {len(options):,}")


def _listed(start: str, options: tuple[str, ...]) -> str:
    more = f" and {len(options) - 12} more" if len(options) > 12 else ""
    return f"{start} {', '.join(options[:12])}{more}"
