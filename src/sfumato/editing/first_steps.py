"""The first share of a way down: what holds while the rough forms are decided, and not while details are."""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.errors import SettingsError
from sfumato.level import Level, Levels


@dataclass(frozen=True)
class FirstSteps:
    """Holds at levels noisier than an angle; looks between the nodes of a grid included."""

    angle: float

    @staticmethod
    def of(levels: Levels, share: float | int) -> FirstSteps:
        """The first `share` of the moves down these levels: none for 0, all for 1. Raises SettingsError for a
        share outside."""
        check_share(share, "a share of")
        return FirstSteps(float(levels[round(share * (len(levels) - 1))].angle))

    def holds(self, level: Level) -> bool:
        """Whether this level is one of them."""
        return float(level.angle.max()) > self.angle + 1e-12


def check_share(share: float | int, option: str) -> None:
    """Raises SettingsError, by this name, for a share of the steps that is none."""
    if not 0 <= share <= 1:
        raise SettingsError(f"{option} {share:g}: give a share of the steps from 0, none, to 1, all")
