"""What a training took: time, and an estimate of its energy that says how rough it is."""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.errors import SettingsError

LAPTOP, CARD = 15.0, 300.0
"""Watts of a laptop's processor and of a large graphics card: where nobody says, somewhere between."""
UNSURE = 0.5
"""The nominal power of a processor tells the energy to within a half: it seldom draws exactly that, and the
rest of the machine draws too."""


@dataclass(frozen=True)
class Energy:
    """seconds of training; kilowatt-hours, from `low` to `high`; watts: as somebody said them, or None."""

    seconds: float
    watts: float | None
    low: float
    high: float

    def lines(self) -> list[str]:
        """In sentences, the assumption first."""
        took = f"Training took {duration(self.seconds)}."
        span = f"{_amount(self.low)} to {_amount(self.high)}"
        if self.watts is None:
            return [
                took,
                f"The power was not measured: between a laptop's processor ({LAPTOP:g} W) and a large "
                f"graphics card ({CARD:g} W) that is {span}. Say the nominal power of yours with --watts.",
            ]
        middle = _amount(self.seconds * self.watts / 3.6e6)
        return [
            took,
            f"At {self.watts:g} W, as it was said, that is about {middle}. The power was not measured: it "
            f"may be off by a half either way, {span}.",
        ]


def estimate(seconds: float | int, watts: float | int | None = None) -> Energy:
    """The energy of so many seconds: seconds x watts / 3.6e6 kWh. Raises SettingsError for a power that
    cannot be."""
    if watts is not None and not 0 < watts < 1e7:
        raise SettingsError(f"--watts is the power of the machine, above 0, not {watts:g}")
    low, high = (LAPTOP, CARD) if watts is None else (watts * (1 - UNSURE), watts * (1 + UNSURE))
    each = seconds / 3.6e6
    return Energy(float(seconds), None if watts is None else float(watts), each * low, each * high)


def duration(seconds: float | int) -> str:
    """A time for people: 6 min 0 s, 3 h 12 min, 2 days 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days {whole % 86400 // 3600} h"


def _amount(kwh: float) -> str:
    return f"{kwh * 1000:.2g} Wh" if kwh < 0.1 else f"{kwh:.2g} kWh" if kwh < 10 else f"{kwh:,.0f} kWh"
