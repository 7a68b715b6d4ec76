"""Schedules as plain values: what a model's card says of them, and back.

Each kind is closed: a tag and bounded numbers, checked before anything is made from them. No name in a file
is ever looked up as a class.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import torch
from pydantic import Field

from sfumato import learned, schedules, tables
from sfumato.errors import SettingsError
from sfumato.records.part import Part
from sfumato.schedules import Schedule

Count = Annotated[int, Field(ge=1, le=100_000)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Share = Annotated[float, Field(gt=0, le=1)]
Real = Annotated[float, Field(ge=-1e6, le=1e6)]


class RectifiedFlow(Part):
    kind: Literal["rectified_flow"] = "rectified_flow"


class Cosine(Part):
    kind: Literal["cosine"] = "cosine"
    s: Annotated[float, Field(ge=0, le=10)] = 0.008


class Linear(Part):
    kind: Literal["linear"] = "linear"
    lo: Positive = 0.1
    hi: Positive = 20.0


class ScaledLinear(Part):
    kind: Literal["scaled_linear"] = "scaled_linear"
    lo: Positive = 0.85
    hi: Positive = 12.0


class ConstantBeta(Part):
    kind: Literal["constant_beta"] = "constant_beta"
    beta: Positive = 10.0


class LinearAlphaBar(Part):
    kind: Literal["linear_alpha_bar"] = "linear_alpha_bar"
    beta: Share = 1.0


class Sigmoid(Part):
    kind: Literal["sigmoid"] = "sigmoid"
    start: Annotated[float, Field(ge=-300, le=300)] = -3.0
    end: Annotated[float, Field(ge=-300, le=300)] = 3.0
    tau: Annotated[float, Field(ge=0.01, le=1e6)] = 1.0


class VE(Part):
    kind: Literal["ve"] = "ve"
    lo: Positive = 0.002
    hi: Positive = 80.0


class LogLinear(Part):
    kind: Literal["log_linear"] = "log_linear"
    gamma_min: Annotated[float, Field(ge=-100, le=100)] = -13.3
    gamma_max: Annotated[float, Field(ge=-100, le=100)] = 5.0


Units = Annotated[
    tuple[Annotated[float, Field(ge=-1e6, le=1e6)], ...], Field(min_length=1, max_length=10_000)
]


class Learned(Part):
    """VDM's monotone network, unit by unit."""

    kind: Literal["learned"] = "learned"
    gamma_min: Annotated[float, Field(ge=-100, le=100)]
    gamma_max: Annotated[float, Field(ge=-100, le=100)]
    slopes: Units
    centres: Units
    heights: Units


class NamedTable(Part):
    """What all named tables have."""

    steps: Count = 1000
    zero_terminal_snr: bool = False


class TableLinear(NamedTable):
    kind: Literal["table_linear"] = "table_linear"
    lo: Share = 1e-4
    hi: Share = 0.02


class TableScaledLinear(NamedTable):
    kind: Literal["table_scaled_linear"] = "table_scaled_linear"
    lo: Share = 0.00085
    hi: Share = 0.012


class TableCosine(NamedTable):
    kind: Literal["table_cosine"] = "table_cosine"
    s: Annotated[float, Field(ge=0, le=10)] = 0.008
    largest: Share = 0.999


class TableConstant(NamedTable):
    kind: Literal["table_constant"] = "table_constant"
    beta: Share = 0.01


Ratios = Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1, max_length=100_000)]


class TableNodes(Part):
    """The user's own table, node by node: alpha is the root of alpha-bar; sigma is kept too, so nothing
    rounds."""

    kind: Literal["table"] = "table"
    alpha: Ratios
    sigma: Ratios


Table = TableLinear | TableScaledLinear | TableCosine | TableConstant | TableNodes
Curve = (
    RectifiedFlow
    | Cosine
    | Linear
    | ScaledLinear
    | ConstantBeta
    | LinearAlphaBar
    | Sigmoid
    | VE
    | LogLinear
    | Learned
)


class Shifted(Part):
    """Another pace on one of the curves above; a shift of a shift is one shift."""

    kind: Literal["shifted"] = "shifted"
    base: Annotated[Curve | Table, Field(discriminator="kind")]
    b: Annotated[float, Field(ge=1e-6, le=1e6)]


AnySchedule = Curve | Table | Shifted
ScheduleSettings = Annotated[AnySchedule, Field(discriminator="kind")]


def make_table(said: Table) -> tables.Table:
    """The table that the settings mean. Raises SettingsError for one that does not grow noisier."""
    match said:
        case TableLinear():
            table = tables.Table.linear(said.steps, said.lo, said.hi)
        case TableScaledLinear():
            table = tables.Table.scaled_linear(said.steps, said.lo, said.hi)
        case TableCosine():
            table = tables.Table.cosine(said.steps, said.s, said.largest)
        case TableConstant():
            table = tables.Table.constant(said.beta, said.steps)
        case TableNodes():
            return tables.Table(said.alpha, said.sigma)
    return table.zero_terminal_snr() if said.zero_terminal_snr else table


def make_schedule(said: AnySchedule) -> Schedule:
    """The schedule that the settings mean."""
    match said:
        case RectifiedFlow():
            return schedules.RectifiedFlow()
        case Cosine():
            return schedules.Cosine(said.s)
        case Linear():
            return schedules.Linear(said.lo, said.hi)
        case ScaledLinear():
            return schedules.ScaledLinear(said.lo, said.hi)
        case ConstantBeta():
            return schedules.ConstantBeta(said.beta)
        case LinearAlphaBar():
            return schedules.LinearAlphaBar(said.beta)
        case Sigmoid():
            return schedules.Sigmoid(said.start, said.end, said.tau)
        case VE():
            return schedules.VE(said.lo, said.hi)
        case LogLinear():
            return schedules.LogLinear(said.gamma_min, said.gamma_max)
        case Learned():
            return learned.Learned(said.gamma_min, said.gamma_max, said.slopes, said.centres, said.heights)
        case Shifted():
            return schedules.Shifted(make_schedule(said.base), said.b)
        case _:
            return make_table(said)


def unknown(what: str, thing: object, instead: str) -> SettingsError:
    """What is said of a thing that no card can describe."""
    kind = type(thing).__name__
    return SettingsError(f"a model with a {what} of the class {kind} cannot be saved: use {instead}")


def describe_table(table: tables.Table) -> Table:
    """A named table where one makes these very numbers, otherwise the numbers."""
    t, betas = table.steps, table.betas
    lo, hi = (float(f"{float(b):.9g}") for b in (betas[0], betas[-1]))
    guesses: list[Table] = [TableLinear(steps=t), TableScaledLinear(steps=t), TableCosine(steps=t)]
    guesses += [TableCosine(steps=t, largest=1.0), TableConstant(steps=t, beta=lo)]
    guesses += [TableLinear(steps=t, lo=lo, hi=hi), TableScaledLinear(steps=t, lo=lo, hi=hi)]
    guesses += [g.model_copy(update={"zero_terminal_snr": True}) for g in guesses]
    for guess in guesses:
        try:
            made = make_table(guess)
        except SettingsError:  # this guess is no table at all, so it is not this one
            continue
        if made == table:
            return guess
    return TableNodes(alpha=table.alpha, sigma=table.sigma)


def describe_schedule(schedule: Schedule) -> AnySchedule:
    """The inverse of `make_schedule`. Raises SettingsError for a schedule of the user's own class."""
    match schedule:
        case schedules.RectifiedFlow():
            return RectifiedFlow()
        case schedules.Cosine():
            return Cosine(s=schedule.s)
        case schedules.Linear():
            return Linear(lo=schedule.lo, hi=schedule.hi)
        case schedules.ScaledLinear():
            return ScaledLinear(lo=schedule.lo, hi=schedule.hi)
        case schedules.ConstantBeta():
            return ConstantBeta(beta=schedule.beta)
        case schedules.LinearAlphaBar():
            return LinearAlphaBar(beta=schedule.beta)
        case schedules.Sigmoid():
            return Sigmoid(start=schedule.start, end=schedule.end, tau=schedule.tau)
        case schedules.VE():
            return VE(lo=schedule.lo, hi=schedule.hi)
        case schedules.LogLinear():
            return LogLinear(gamma_min=schedule.gamma_min, gamma_max=schedule.gamma_max)
        case learned.Learned():
            return Learned(
                gamma_min=schedule.gamma_min,
                gamma_max=schedule.gamma_max,
                slopes=schedule.slopes,
                centres=schedule.centres,
                heights=schedule.heights,
            )
        case tables.Table():
            return describe_table(schedule)
        case schedules.Shifted():
            base = describe_schedule(schedule.base)
            if isinstance(base, Shifted):
                return Shifted(base=base.base, b=base.b * schedule.b)
            return Shifted(base=base, b=schedule.b)
        case _:
            raise unknown("schedule", schedule, "one of sfumato.schedules, or Table.sampled(yours, 1000)")


def schedule_hash(schedule: Schedule) -> str:
    """A hash of the levels themselves, whatever made them: 64 hexadecimal digits.

    Angle and log-norm of every node of a table, or of 1001 times of a curve, rounded to 1e-8 so that the last
    bit of another machine's sine does not matter.
    """
    if isinstance(schedule, tables.Table):
        level = schedule.nodes()
    else:
        level = schedule.level(torch.linspace(0, 1, 1001, dtype=torch.float64))
    numbers = torch.stack([level.angle, level.norm.log()])
    return hashlib.sha256((numbers * 1e8).round().to(torch.int64).numpy().tobytes()).hexdigest()
