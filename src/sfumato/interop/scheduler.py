"""A discrete process as diffusers' scheduler_config.json says it, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sfumato.errors import SettingsError
from sfumato.interop.diffusers import VERSION
from sfumato.predictions import Clean, Epsilon, Prediction, V
from sfumato.records.schedules import TableCosine, TableLinear, TableScaledLinear, describe_table
from sfumato.schedules import Schedule
from sfumato.tables import Table

DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "clip_sample_range": 1.0,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
}
"""DDPMScheduler's settings and their defaults; DDIMScheduler's are the same without the variance."""
READ = {"DDPMScheduler", "DDIMScheduler"}
MOST_STEPS = 100_000


def prediction_type(prediction: Prediction) -> str | None:
    """diffusers' word for a prediction, None if it has none."""
    match prediction:
        case Epsilon():
            return "epsilon"
        case Clean():
            return "sample"
        case V(data=1.0, sign=1.0):
            return "v_prediction"
        case _:
            return None


def scheduler_to_diffusers(
    schedule: Schedule, prediction: Prediction, *, clip: float | None = None, learned_variance: bool = False
) -> dict[str, Any] | None:
    """What scheduler_config.json holds for a DDPMScheduler; None where it cannot express the process.

    `clip` is the range of x0 that is kept while sampling, None for no clipping. Steps are spaced "trailing",
    as our samplers space them.
    """
    said = prediction_type(prediction)
    if not isinstance(schedule, Table) or said is None:
        return None
    values = {
        **DEFAULTS,
        **_betas(schedule),
        "num_train_timesteps": schedule.steps,
        "variance_type": "learned_range" if learned_variance else "fixed_small",
        "clip_sample": clip is not None,
        "clip_sample_range": 1.0 if clip is None else clip,
        "prediction_type": said,
        "timestep_spacing": "trailing",
    }
    return {"_class_name": "DDPMScheduler", "_diffusers_version": VERSION, **values}


def _betas(table: Table) -> dict[str, Any]:
    match describe_table(table):
        case TableLinear(lo=lo, hi=hi, zero_terminal_snr=zero):
            named = {"beta_schedule": "linear", "beta_start": lo, "beta_end": hi}
        case TableScaledLinear(lo=lo, hi=hi, zero_terminal_snr=zero):
            named = {"beta_schedule": "scaled_linear", "beta_start": lo, "beta_end": hi}
        case TableCosine(s=0.008, largest=0.999, zero_terminal_snr=zero):
            named = {"beta_schedule": "squaredcos_cap_v2"}
        case _:
            return {"trained_betas": [float(beta) for beta in table.betas]}
    return {**named, "rescale_betas_zero_snr": zero}


def _refused(key: str, value: object) -> SettingsError:
    return SettingsError(f"scheduler_config.json: {key} = {str(value)[:60]!r} is not supported.")


def _number(values: Mapping[str, Any], key: str, low: float | int, high: float | int) -> float:
    value = values[key]
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= value <= high:
        raise _refused(key, value)
    return float(value)


def _flag(values: Mapping[str, Any], key: str) -> bool:
    if not isinstance(values[key], bool):
        raise _refused(key, values[key])
    return values[key]


def table_from_diffusers(values: Mapping[str, Any]) -> Table:
    """The table of a DDPMScheduler or DDIMScheduler. Raises SettingsError naming the key that cannot be
    honoured."""
    name = values.get("_class_name")
    if name not in READ:
        raise SettingsError(
            f"scheduler_config.json: _class_name {str(name)[:60]!r} is none of {', '.join(sorted(READ))}."
        )
    full = {**DEFAULTS, **values}
    steps = full["num_train_timesteps"]
    if type(steps) is not int or not 1 <= steps <= MOST_STEPS:
        raise _refused("num_train_timesteps", steps)
    if full["trained_betas"] is not None:
        betas = full["trained_betas"]
        if (
            not isinstance(betas, list)
            or len(betas) != steps
            or not all(type(b) in (int, float) for b in betas)
        ):
            raise SettingsError(
                "scheduler_config.json: trained_betas is not one number for each training step."
            )
        table = Table.from_betas([float(b) for b in betas])
    else:
        lo, hi = (_number(full, key, 0, 1) for key in ("beta_start", "beta_end"))
        match full["beta_schedule"]:
            case "linear":
                table = Table.linear(steps, lo, hi)
            case "scaled_linear":
                table = Table.scaled_linear(steps, lo, hi)
            case "squaredcos_cap_v2":
                table = Table.cosine(steps)
            case other:
                raise _refused("beta_schedule", other)
    return table.zero_terminal_snr() if _flag(full, "rescale_betas_zero_snr") else table


def prediction_from_diffusers(values: Mapping[str, Any]) -> Prediction:
    """The prediction that a scheduler's settings name. Raises SettingsError."""
    match {**DEFAULTS, **values}["prediction_type"]:
        case "epsilon":
            return Epsilon()
        case "sample":
            return Clean()
        case "v_prediction":
            return V()
        case other:
            raise _refused("prediction_type", other)


def clip_from_diffusers(values: Mapping[str, Any]) -> float | None:
    """The range to which x0 is clipped while sampling, None where it is not. Raises SettingsError."""
    full = {**DEFAULTS, **values}
    if _flag(full, "thresholding"):
        raise SettingsError("scheduler_config.json: thresholding = True is not supported.")
    return _number(full, "clip_sample_range", 1e-6, 1e6) if _flag(full, "clip_sample") else None
