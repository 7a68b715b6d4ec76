"""Losses and distributions of levels by the names that settings and the command line know."""

from __future__ import annotations

from sfumato.errors import SettingsError
from sfumato.schedules import Schedule
from sfumato.tables import Table
from sfumato.training.adaptive import Adaptive, MeanLoss, SecondMoment
from sfumato.training.levels import LogitNormal, LogNormalSigma, Stratified, Uniform, Where
from sfumato.training.weights import (
    CLEAN_LOSS,
    FLOW_LOSS,
    P2,
    SIMPLE,
    V_LOSS,
    Ddpm,
    Edm,
    InverseVariance,
    MinSnr,
    SigmoidWeight,
    Weight,
)

WEIGHTS = (
    "simple", "x0", "v", "flow", "min-snr", "p2", "sigmoid", "edm", "inverse-variance", "ddpm", "bound",
)  # fmt: skip
LEVELS = ("stratified", "uniform", "logit-normal", "log-normal-sigma", "importance", "fitted")
EVEN = ("stratified", "uniform", "importance", "fitted")
"""Those that the variational bound can be trained with: every time counts alike, whatever is drawn."""


def weight_named(
    name: str, schedule: Schedule, *, gamma: float = 5.0, bias: float = 0.0, data: float = 0.5
) -> Weight:
    """The weight of this name but "bound"; gamma of min-snr, bias of sigmoid, data of edm. Raises
    SettingsError for a table's weight without a table."""
    match name:
        case "min-snr":
            return MinSnr(gamma)
        case "p2":
            return P2()
        case "sigmoid":
            return SigmoidWeight(bias)
        case "edm":
            return Edm(data)
        case "inverse-variance" | "ddpm":
            if not isinstance(schedule, Table):
                raise SettingsError(
                    f"--weight {name} is about the steps of a table: choose --schedule cosine, linear or "
                    "scaled-linear"
                )
            return InverseVariance(schedule) if name == "inverse-variance" else Ddpm(schedule)
        case _:
            return {"simple": SIMPLE, "x0": CLEAN_LOSS, "v": V_LOSS, "flow": FLOW_LOSS}[name]


def where_named(name: str) -> Where:
    """The distribution of training levels of this name."""
    match name:
        case "uniform":
            return Uniform()
        case "logit-normal":
            return LogitNormal()
        case "log-normal-sigma":
            return LogNormalSigma()
        case "importance":
            return Adaptive(SecondMoment)
        case "fitted":
            return Adaptive(MeanLoss)
        case _:
            return Stratified()
