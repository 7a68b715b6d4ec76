"""AND and NOT: further conditions of every picture, each in a call of its own (Liu et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sfumato.conditions.attributes import Said, Value
from sfumato.conditions.nearest import match, unknown
from sfumato.conditions.schema import Conditions, Wish
from sfumato.errors import SettingsError


@dataclass(frozen=True)
class Also:
    """One condition by its name ("class", an attribute's, "text"), what it shall be, and its weight: above 0
    it is AND, below 0 NOT."""

    name: str
    value: Said
    weight: float | int = 1.0

    def wish(self, conditions: Conditions, rest: Wish) -> Wish:
        """The rest of a picture's wish with this in its own place."""
        if self.name == "class":
            (alone,) = conditions.asked(1, classes=[str(self.value)])
            return replace(rest, label=alone.label)
        if self.name == "text":
            return replace(rest, prompt=conditions.prompt(str(self.value)))
        return replace(rest, values={**rest.values, **conditions.attributes.parse({self.name: self.value})})

    def plain(self, conditions: Conditions) -> Value:
        """The value as it is kept: of a class its name."""
        wish = self.wish(conditions, Wish())
        if wish.label is not None and conditions.classes is not None:
            return conditions.classes.names[wish.label]
        return wish.prompt or wish.values[self.name]


def joined(conditions: Conditions, asked: Sequence[Also]) -> tuple[Also, ...]:
    """What is asked for, by the conditions' own names. Raises SettingsError, one sentence: a condition that
    the model does not have or cannot be left untold, a value that it cannot have, a weight that is no
    number."""
    names = [name for name in conditions.names if name != "picture"]
    found: list[Also] = []
    for one in asked:
        at = match(one.name, names)
        if at is None:
            if not names:
                raise SettingsError(
                    "AND and NOT need a model that is told a class, attributes or captions, and knows what "
                    "it is not to be told them: leave them out"
                )
            if one.name == "text":
                raise SettingsError(
                    "AND and NOT: this model was trained without captions: say NAME=VALUE, of "
                    f"{' or '.join(names)}"
                )
            raise unknown("AND and NOT: no condition is called", one.name, names)
        if not math.isfinite(one.weight):
            raise SettingsError(f"AND and NOT: a weight of {one.weight}: give a finite number")
        if isinstance(one.value, str) and not one.value.strip():
            raise SettingsError(f"AND and NOT: {names[at]} is empty: say what it shall be")
        own = replace(one, name=names[at], weight=float(one.weight))
        found.append(replace(own, value=own.plain(conditions)))
    return tuple(found)
