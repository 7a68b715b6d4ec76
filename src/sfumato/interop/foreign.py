"""Values of a foreign config.json, each read as one kind: what is of another kind is refused by its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato.errors import SettingsError

Values = Mapping[str, Any]


def cannot(key: str, value: object) -> SettingsError:
    """The refusal of a setting, by its key."""
    return SettingsError(f"config.json: {key} = {str(value)[:60]!r} is not supported.")


def whole(values: Values, key: str) -> int:
    """A whole number."""
    value = values[key]
    if not isinstance(value, int) or isinstance(value, bool):
        raise cannot(key, value)
    return value


def number(values: Values, key: str) -> float:
    """A number."""
    value = values[key]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise cannot(key, value)
    return float(value)


def flag(values: Values, key: str) -> bool:
    """True or false."""
    if not isinstance(values[key], bool):
        raise cannot(key, values[key])
    return values[key]


def wholes(values: Values, key: str) -> tuple[int, ...]:
    """A list of whole numbers, at most 12."""
    value = values[key]
    if not isinstance(value, list | tuple) or len(value) > 12:
        raise cannot(key, value)
    return tuple(whole({key: item}, key) for item in value)


def whole_or_each(values: Values, key: str) -> int | tuple[int, ...]:
    """One whole number, or one for each resolution."""
    return wholes(values, key) if isinstance(values[key], list | tuple) else whole(values, key)


def maybe(values: Values, key: str) -> int | None:
    """A whole number or nothing."""
    return None if values[key] is None else whole(values, key)


def names(values: Values, key: str, count: int) -> list[str]:
    """A list of so many words."""
    value = values[key]
    if (
        not isinstance(value, list | tuple)
        or len(value) != count
        or not all(isinstance(v, str) for v in value)
    ):
        raise cannot(key, value)
    return list(value)
