"""What a sweep tries: options of `sfumato train`, each with its values, and which of all combinations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfumato.conditions.nearest import unknown
from sfumato.data.dataset import DataSet
from sfumato.errors import SettingsError
from sfumato.networks import SIZES
from sfumato.noise import permutation
from sfumato.training.recipes import RunSettings, pixels

Value = float | int | str | bool
Kind = type[float] | type[int] | type[str] | type[bool]
TRAIN: dict[str, Kind] = {
    "lr": float,
    "batch": int,
    "accumulate": int,
    "optimiser": str,
    "warmup": int,
    "floor": float,
    "weight_decay": float,
    "temperature": float,
    "clip": float,
    "ema": float,
    "averages": int,
    "drop": float,
    "weight": str,
    "gamma": float,
    "bias": float,
    "huber": float,
    "bound": float,
    "levels": str,
    "seed": int,
}
RUN: dict[str, Kind] = {
    "model": str,
    "schedule": str,
    "prediction": str,
    "shift": float,
    "zero_snr": bool,
    "dropout": float,
    "learned_variance": bool,
    "self_conditioning": bool,
    "adversarial": float,
    "caption_loss": float,
    "flip": bool,
    "brightness": float,
    "contrast": float,
    "saturation": float,
    "balance": float,
    "conditioning": str,
    "class_input": str,
}
"""The options that can be tried, as `TrainSettings` and `RunSettings` call them."""
ALSO = {"width": "model", "learning_rate": "lr"}
"""Other words for some: a network's width is that of its size."""
MOST = 10_000
"""The most combinations that are drawn from."""
USUAL = 12
"""So many of them where nobody says how many."""


@dataclass(frozen=True)
class Axis:
    """An option and the values that are tried."""

    name: str
    values: tuple[Value, ...]


def option(name: str) -> str:
    """The option of `sfumato train` for a setting."""
    return f"--{name.replace('_', '-')}"


def read_axis(text: str) -> Axis:
    """What NAME=VALUE,VALUE,... says. Raises SettingsError: no such option (with the nearest), no value."""
    said, equals, values = text.partition("=")
    name = said.strip().lower().lstrip("-").replace("-", "_")
    name = ALSO.get(name, name)
    parts = [part.strip() for part in values.split(",") if part.strip()]
    if not (equals and name and parts):
        raise SettingsError(f"--try {text[:60]!r}: say it as NAME=VALUE,VALUE, as in lr=1e-4,3e-4,1e-3")
    kind = (TRAIN | RUN).get(name)
    if kind is None:
        raise unknown("--try: no such option of sfumato train", said.strip(), [*TRAIN, *RUN, *ALSO])
    return Axis(name, tuple(dict.fromkeys(_value(name, kind, part) for part in parts)))


def _value(name: str, kind: Kind, text: str) -> Value:
    words = {"true": True, "yes": True, "false": False, "no": False}
    try:
        if kind is bool:
            return words[text.lower()]
        value = kind(text)
    except (ValueError, KeyError):
        meant = "true or false" if kind is bool else "a whole number" if kind is int else "a number"
        raise SettingsError(f"--try {name}: {text[:40]!r} is not {meant}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"--try {name}: {text[:40]!r} is not a finite number")
    return value


def read_axes(said: Sequence[str]) -> tuple[Axis, ...]:
    """All that --try says. Raises SettingsError for an option that is said twice."""
    axes = tuple(read_axis(one) for one in said)
    names = [axis.name for axis in axes]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"--try says {name} twice: give all its values at once, by commas")
    return axes


def usual_axes(data: DataSet, device: str) -> tuple[Axis, ...]:
    """What is tried where nobody says: the learning rate around its default, the width, the schedule and
    dropout."""
    usual = pixels(data, device=device, train={"steps": 1})
    sizes = list(SIZES)
    at = sizes.index(usual.model)
    rates = tuple(float(f"{usual.train.lr * times:.2g}") for times in (0.3, 1.0, 3.0))
    return (
        Axis("lr", rates),
        Axis("model", tuple(sizes[at : at + 2])),
        Axis("schedule", ("cosine", "linear")),
        Axis("dropout", (0.0, 0.1)),
    )


def combinations(axes: Sequence[Axis], count: int | None, seed: int) -> list[dict[str, Value]]:
    """The trials: all combinations, or `count` of them (None: a dozen where there are more), in an order that
    the seed draws, so that a part of a grid covers it evenly and more trials begin with the same ones.

    Raises SettingsError for more than ten thousand combinations and for a count below 1.
    """
    total = math.prod(len(axis.values) for axis in axes)
    if count is not None and count < 1:
        raise SettingsError(f"--trials {count}: give a whole number from 1")
    if total > MOST:
        raise SettingsError(f"{total:,} combinations are more than {MOST:,}: try fewer values of each")
    order = permutation(total, seed, "sweep").tolist()
    return [_combination(axes, place) for place in order[: USUAL if count is None else count]]


def _combination(axes: Sequence[Axis], place: int) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for axis in reversed(axes):
        place, at = divmod(place, len(axis.values))
        found[axis.name] = axis.values[at]
    return {axis.name: found[axis.name] for axis in axes}


def settings_of(
    data: DataSet, said: Mapping[str, Value], length: Mapping[str, float | int], seed: int, device: str
) -> RunSettings:
    """The run of one trial: what it says, all else as `sfumato train` has it on this data. Raises
    SettingsError for what cannot be, naming the trial."""
    train: dict[str, Any] = {"seed": seed, **length}
    train |= {name: value for name, value in said.items() if name in TRAIN}
    others: dict[str, Any] = {name: value for name, value in said.items() if name in RUN}
    try:
        return pixels(data, device=device, train=train, **others)
    except SettingsError as error:
        raise SettingsError(f"the trial {words(said)} cannot be: {error}") from None


def words(said: Mapping[str, Value]) -> str:
    """A trial in words: lr 0.001, model tiny."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in said.items()) or "as it is"


def _shown(value: Value) -> str:
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def options(said: Mapping[str, Value]) -> list[str]:
    """A trial as options of `sfumato train`."""
    out: list[str] = []
    for name, value in said.items():
        if isinstance(value, bool):
            out += [option(name)] if value else []
        else:
            out += [option(name), repr(value) if isinstance(value, float) else str(value)]
    return out
