"""Checks of a network's settings, made before anything is allocated."""

from __future__ import annotations

from sfumato.errors import SettingsError

PARAMETERS = 20_000_000_000
"""The most parameters that a configuration may ask for."""


def check(owner: str, ok: bool, sentence: str) -> None:
    """Refuses a setting with one sentence."""
    if not ok:
        raise SettingsError(f"{owner}: {sentence}.")


def whole(owner: str, name: str, value: object, low: int, high: int) -> None:
    """Refuses what is not a whole number from low to high."""
    good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    check(owner, good, f"{name} must be a whole number from {low} to {high}, not {str(value)[:40]}")
