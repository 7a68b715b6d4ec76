"""`sfumato sample --balanced`: as many pictures of every class as the run's classifier finds."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sfumato.cli.telling import on_one_line
from sfumato.errors import SettingsError
from sfumato.evaluation.balanced import Balanced, balanced
from sfumato.runs import Recipe, Run

EACH = 8


def check_balanced(
    run: Run, asked: Sequence[str], prompts: Sequence[str], others: Sequence[object]
) -> tuple[list[str | None], list[str] | None]:
    """The class and the prompt of a picture before it is chosen. `others`: what was asked for beside it, that
    makes no sense with it. Raises SettingsError."""
    told = [one.strip().lower() for one in asked] == ["none"]
    if run.classes and not told:
        raise SettingsError(
            f"{run.name} is told its classes: --class all draws as many of each (--class none --balanced "
            "chooses from what it draws untold)"
        )
    if (asked and not told) or any(one is not None for one in others):
        raise SettingsError("--balanced is a number of every class, -n: leave --class and --per-class out")
    if len(prompts) > 1:
        raise SettingsError("--balanced chooses among pictures of one kind: give one --prompt at a time")
    return [None], list(prompts) or None


def choose(run: Run, recipe: Recipe, number: int | None) -> Balanced:
    """The pictures to keep, told on the way."""
    found = balanced(run, recipe, EACH if number is None else number, on_one_line("chosen"))
    for line in found.lines():
        print(line, file=sys.stderr)
    return found
