"""What a user does not say of a run, filled in from the data, the model and what is said; with reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from sfumato.card import SamplerSettings
from sfumato.errors import SettingsError
from sfumato.networks import learning_rate
from sfumato.training.process import Process

SAMPLES = 1000
"""Pictures that a judge looks at."""
_BATCHES = {"tiny": 64, "small": 64, "base": 64, "large": 32}
_DECAYS = {"tiny": 0.999, "small": 0.9995, "base": 0.9999, "large": 0.9999}
_LOOK_EVERY = 12_800
"""Images between two looks at the held-out pictures: a look costs about as much as 170 images."""
_PATIENCE = 20
_SIDE = 64
"""The side of the pictures, in pixels, that the cosine schedule is in the right place for."""


def pace(said: dict[str, Any], model: str, images: int) -> list[str]:
    """The batch, the learning rate, the average."""
    reasons: list[str] = []
    size = model.removeprefix("dit-")
    said.setdefault("batch", min(_BATCHES[size], max(8, images)))
    if said["batch"] < 1:
        raise SettingsError(f"--batch must be at least 1, not {said['batch']}")
    if "lr" not in said:
        said["lr"] = learning_rate(model) * math.sqrt(said["batch"] / _BATCHES[size])
        reasons.append(
            f"learning rate {said['lr']:.2g}: for a {model} network and a batch of {said['batch']}"
        )
    said.setdefault("ema", _DECAYS[size])
    return reasons


def placed(others: Mapping[str, Any], height: int, width: int) -> tuple[dict[str, Any], list[str]]:
    """The other settings with the prediction and the shift of the schedule. Pictures above 64 pixels a side
    want the cosine schedule as much noisier as they are larger (Hoogeboom et al. 2023)."""
    reasons: list[str] = []
    out = dict(others)
    schedule = out.setdefault("schedule", "cosine")
    if out.get("prediction") is None:
        out["prediction"] = "edm" if schedule == "ve" else "v"
        if schedule == "ve":
            reasons.append("prediction edm: with ve, the network of Karras et al. (2022)")
    if out.get("shift") is None:
        times = float(f"{math.sqrt(height * width) / _SIDE:.3g}")
        out["shift"] = times if schedule == "cosine" and times > 1 else 1.0
        if out["shift"] != 1:
            reasons.append(f"shift {times:g}: the cosine schedule is in its place at {_SIDE} pixels a side")
    return out, reasons


def end(process: Process) -> list[str]:
    """What a schedule that does not end in pure noise does to brightness."""
    last = process.curve().level(torch.ones((), dtype=torch.float64))
    left = float(last.alpha / last.norm)
    if left <= 0.01 or process.schedule == "ve":
        return []
    return [
        f"the {process.schedule} schedule ends with {left:.3f} of the signal left, so very dark and very "
        "bright pictures come out greyer than they are (Lin et al. 2024): cosine has no such limit"
        + (", nor has a table with --zero-snr" if process.is_table else "")
    ]


def loss(said: dict[str, Any], others: Mapping[str, Any]) -> list[str]:
    """The loss, as the prediction, the schedule and what is learned beside want it."""
    reasons: list[str] = []
    if others.get("schedule") == "learned" and "weight" not in said:
        said["weight"] = "bound"
        reasons.append("weight bound: it is what a learned schedule is learned by")
    if others.get("prediction") == "mean" and "weight" not in said:
        said["weight"] = "ddpm"
        reasons.append("weight ddpm: the squared error of the mean over the step's variance, as published")
    own = {name: name for name in ("v", "flow", "edm")}
    said.setdefault("weight", own.get(others.get("prediction", "v"), "simple"))
    if others.get("prediction") == said["weight"] == "edm" and not said.get("bound"):
        said.setdefault("levels", "log-normal-sigma")
    if others.get("learned_variance") and said["weight"] != "bound" and "bound" not in said:
        said["bound"] = 0.001
        reasons.append("bound 0.001: that share of it, beside the loss, teaches the variance")
    return reasons


def looks(said: dict[str, Any], others: Mapping[str, Any], held: bool) -> list[str]:
    """When the model is looked at, and how long it may go without becoming better."""
    reasons = _metrics(said, others) if others.get("metrics") else []
    by_loss = said.get("best_by", "loss") == "loss"
    if held:
        said.setdefault("validate", max(1, round(_LOOK_EVERY / said["batch"])))
    else:
        said["validate"] = 0
        said["patience"] = 0 if by_loss else said.get("patience", _PATIENCE)
        reasons.append(f"no validation{' and no early stopping' if by_loss else ''}: no picture is held out")
    if said["validate"] or not by_loss:
        said.setdefault("patience", _PATIENCE)
    return reasons


def _metrics(said: dict[str, Any], others: Mapping[str, Any]) -> list[str]:
    """How often the judge looks: so seldom that drawing costs about a tenth of the time. To ask the model
    once about a picture costs a third of training on it."""
    samples, steps = others.get("metric_samples", SAMPLES), sampler(others).steps
    cost = samples * steps / 3
    said.setdefault("metrics_every", math.ceil(10 * cost / 1000) * 1000)
    every, names = said["metrics_every"], ", ".join(others["metrics"])
    return [
        f"metrics {names} every {every:,} images: {samples:,} samples of {steps} steps cost about as much as "
        f"training on {cost:,.0f} images ({cost / max(every, 1):.0%}), and then "
        f"{others.get('extractor', 'lite0')} looks at each"
    ]


def sampler(others: Mapping[str, Any]) -> SamplerSettings:
    """How a run draws where nobody says it."""
    if others.get("learned_variance"):
        return SamplerSettings(name="ddpm-learned", steps=50)
    return SamplerSettings()
