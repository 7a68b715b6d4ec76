"""Words of the command line that say what is wished: attributes, scales of guidance, an interval, a
fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import get_args

from sfumato.conditions.also import Also
from sfumato.conditions.attributes import number
from sfumato.data.fit import Resize
from sfumato.errors import SettingsError
from sfumato.folders.classifier import WEIGHTS
from sfumato.guides.classifier import names_of
from sfumato.runs import Run


def settings_of(said: Sequence[str], option: str = "--set") -> dict[str, str] | None:
    """What --set says, each NAME=VALUE; None where it says nothing."""
    found: dict[str, str] = {}
    for one in said:
        name, equals, value = one.partition("=")
        if not (equals and name.strip()):
            raise SettingsError(f"{option} {one[:60]!r}: say it as NAME=VALUE, as in age=0.7")
        if name.strip() in found:
            raise SettingsError(f"{option} says {name.strip()!r} twice: say it once")
        found[name.strip()] = value.strip()
    return found or None


def also_of(joined: Sequence[str], barred: Sequence[str]) -> list[Also]:
    """What --and and --not say, each a prompt or NAME=VALUE, with its :WEIGHT, as in "at night:0.5"."""
    said = [("--and", 1, one) for one in joined] + [("--not", -1, one) for one in barred]
    return [_also(option, sign, one) for option, sign, one in said]


def _also(option: str, sign: int, said: str) -> Also:
    what, _, behind = said.rpartition(":")
    try:
        weight = float(behind) if what else 1.0
    except ValueError:
        what, weight = "", 1.0
    if not 0 < weight < math.inf:
        raise SettingsError(f"{option} {said[:60]!r}: its weight is a number above 0, as in {what[:40]}:0.5")
    name, equals, value = (what or said).partition("=")
    return (
        Also(name.strip(), value.strip(), sign * weight)
        if equals
        else Also("text", name.strip(), sign * weight)
    )


def resize_of(said: str) -> Resize:
    """What --resize says."""
    found = next((one for one in get_args(Resize) if one == said), None)
    if found is None:
        raise SettingsError(f"--resize is one of {', '.join(get_args(Resize))}, not {said!r}")
    return found


def scale_of(said: str | None) -> float | dict[str, float] | None:
    """What --guidance says: one number, or NAME=NUMBER by commas for single conditions."""
    if said is None:
        return None
    if "=" not in said:
        return _number(said, "--guidance")
    parts = settings_of([part.strip() for part in said.split(",") if part.strip()], "--guidance") or {}
    return {name: _number(value, f"--guidance {name}") for name, value in parts.items()}


def interval_of(said: str | None) -> tuple[float, float] | None:
    """What --interval says: LOW,HIGH."""
    if said is None:
        return None
    parts = said.split(",")
    if len(parts) != 2:
        raise SettingsError(f"--interval {said!r}: two values of sigma/alpha, as in 0.2,5")
    low, high = (_number(part, "--interval") for part in parts)
    return low, high


def possible(run: Run) -> Iterator[str]:
    """What the run's model can be told, and a command that tells it something."""
    conditions, name = run.conditions, run.name
    lines = [*conditions.describe(), *_judged(run)]
    if not lines:
        yield f"{name} takes no conditions: sfumato sample {name} -n 16"
        return
    yield f"{name} can be told"
    yield from (f"  {line}" for line in lines)
    words = [f'--class "{conditions.classes.names[0]}"'] if conditions.classes is not None else []
    for item in conditions.attributes.items:
        value = item.example()
        words.append(f'--set "{item.name}={"|".join(value) if isinstance(value, tuple) else value}"')
    words += ['--prompt "..."'] if conditions.text is not None else []
    if words:
        yield f"  sfumato sample {name} {' '.join(words)}"


def _judged(run: Run) -> list[str]:
    """What its classifier, if it has one, can be asked for."""
    if not (run.path / WEIGHTS).is_file():
        return []
    names = names_of(run.path)
    listed = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return [f"--classifier-guidance SCALE --class NAME, by its classifier: {listed}"]


def _number(said: str, option: str) -> float:
    words = said.strip().lower()
    value = number(words)
    if value is None and words not in ("nan", "inf", "-inf"):
        raise SettingsError(f"{option} is a number, not {said.strip()[:60]!r}")
    return float(words) if value is None else value
