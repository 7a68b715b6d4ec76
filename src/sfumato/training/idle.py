"""What was said of a run and would do nothing in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato.errors import SettingsError
from sfumato.training.settings import TrainSettings

_OF = (("gamma", "weight", "min-snr"), ("bias", "weight", "sigmoid"), ("temperature", "optimiser", "sgld"))
"""A setting, and the choice that alone reads it."""


def check_idle(
    said: Mapping[str, Any], train: TrainSettings, *, told: bool, classes: bool, colours: bool, captions: bool
) -> None:
    """Raises SettingsError for the first option that nothing reads.

    said: what was said of the training; train: what became of it. told: whether the model is told anything.
    classes, colours, captions: whether there are any, or nobody asked how they enter, vary or are learned.
    """
    for name, choice, value in _OF:
        chosen = getattr(train, choice)
        if name in said and chosen != value:
            raise SettingsError(
                f"--{name} is of --{choice} {value}, and this run has {chosen}: add that, or leave it out"
            )
    if said.get("drop") and not told:
        raise SettingsError("--drop hides what a model is told, and this one is told nothing: leave it out")
    if not classes:
        raise SettingsError("--class-input is how a class enters, and this model is told none: leave it out")
    if not captions:
        raise SettingsError(
            "--caption-loss teaches a text encoder of the model's own (--text own), and this run has none: "
            "leave it out"
        )
    if not colours:
        raise SettingsError("--saturation is of colours, and these pictures are grey: leave it out")
