"""Predictions and labels as plain values: what a model's card says of them, and back. Schedules are in
`records.schedules`, which makes the same promises."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sfumato import model as models
from sfumato import predictions
from sfumato.model import Label
from sfumato.predictions import Prediction
from sfumato.records.part import Part
from sfumato.records.schedules import Count, Positive, Table, describe_table, make_table, unknown


class Plain(Part):
    """A prediction without numbers of its own."""

    kind: Literal["epsilon", "clean", "score", "flow"]

    def make(self) -> Prediction:
        match self.kind:
            case "epsilon":
                return predictions.Epsilon()
            case "clean":
                return predictions.Clean()
            case "score":
                return predictions.Score()
            case "flow":
                return predictions.Flow()


class V(Part):
    kind: Literal["v"] = "v"
    data: Positive = 1.0
    sign: Literal[1, -1] = 1


class Mean(Part):
    kind: Literal["mean"] = "mean"
    table: Annotated[Table, Field(discriminator="kind")]


AnyPrediction = Plain | V | Mean
PredictionSettings = Annotated[AnyPrediction, Field(discriminator="kind")]


class Steps(Part):
    kind: Literal["steps"] = "steps"
    steps: Count = 1000


class LogSigma(Part):
    kind: Literal["log_sigma"] = "log_sigma"


AnyLabel = Steps | LogSigma
LabelSettings = Annotated[AnyLabel, Field(discriminator="kind")]


def make_prediction(said: AnyPrediction) -> Prediction:
    """The prediction that the settings mean."""
    match said:
        case Plain():
            return said.make()
        case V():
            return predictions.V(said.data, float(said.sign))
        case Mean():
            return predictions.Mean(make_table(said.table))


def make_label(said: AnyLabel) -> Label:
    """The label that the settings mean."""
    return models.Steps(said.steps) if isinstance(said, Steps) else models.LogSigma()


def describe_prediction(prediction: Prediction) -> AnyPrediction:
    """The inverse of `make_prediction`. Raises SettingsError for a prediction of the user's own class."""
    match prediction:
        case predictions.Epsilon():
            return Plain(kind="epsilon")
        case predictions.Clean():
            return Plain(kind="clean")
        case predictions.Score():
            return Plain(kind="score")
        case predictions.Flow():
            return Plain(kind="flow")
        case predictions.V() if abs(prediction.sign) == 1:
            return V(data=prediction.data, sign=1 if prediction.sign > 0 else -1)
        case predictions.Mean():
            return Mean(table=describe_table(prediction.table))
        case _:
            raise unknown("prediction", prediction, "one of sfumato.predictions")


def describe_label(label: Label) -> AnyLabel:
    """The inverse of `make_label`. Raises SettingsError for a label of the user's own class."""
    if isinstance(label, models.Steps):
        return Steps(steps=label.steps)
    if isinstance(label, models.LogSigma):
        return LogSigma()
    raise unknown("label", label, "Steps or LogSigma")
