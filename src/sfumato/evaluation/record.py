"""A metric is a record, not a number: what was measured, by whose eyes, on how many pictures, and how surely.

Two records may be compared only where everything but the generated pictures is the same: another resize,
another n or another reference moves a metric further than a better model does.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from sfumato.errors import SettingsError
from sfumato.records.facts import Name, Text, Total
from sfumato.records.part import Hash, Part
from sfumato.records.sentence import sentence

Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Setting = bool | int | float | str
PUBLISHED = "inception"
"""The extractor that FID and KID were published with, and the beginning of its variants' names."""
TITLES = {
    "fid": "FID",
    "fid-infinity": "FID-infinity",
    "sfid": "sFID",
    "kid": "KID",
    "is": "Inception score",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "clip-score": "CLIP score",
}


class Terms(Part):
    """Everything that a metric's value depends on beside the generated pictures themselves.

    `extractor`, `weights_sha256`, `resize`: what looked at the pictures. `real` and `generated` count them;
    `reference` and its hash say which real ones (0 and "" where a metric needs none). `group`: the class
    whose pictures alone were taken. `settings`: the metric's own, such as k or the kernel's degree. `seed`:
    of every choice that was drawn (which pictures, which subsets).
    """

    metric: Name
    extractor: Name
    weights_sha256: Hash
    resize: Text
    real: Total
    generated: Total
    reference: Text = ""
    reference_sha256: Hash | Literal[""] = ""
    group: Text | None = None
    settings: Annotated[dict[Name, Setting], Field(default_factory=dict)]
    seed: Seed = 0

    @property
    def title(self) -> str:
        """The metric's name for people, with the extractor's where that is not the published one: KID-lite0,
        FD-clip (the distance is Inception's FID by nobody else's eyes), FID-clean."""
        title = TITLES.get(self.metric, self.metric)
        if self.metric == "clip-score":
            return title
        if self.extractor.startswith(PUBLISHED):
            return title + self.extractor.removeprefix(PUBLISHED)
        return f"{title.replace('FID', 'FD')}-{self.extractor}"


class Baseline(Part):
    """The same metric between two sets of real pictures: what the best possible model would be given."""

    value: float
    low: float | None = None
    high: float | None = None
    real: Total
    generated: Total
    pictures: Text = ""


class Record(Part):
    """A metric's value with its 95 % interval, [low, high].

    `interval`: how it was found and what it is an interval of; None for both ends where there is none.
    `better`: which way is better. `name` and `sha256`: of the generated pictures. `warnings`: what a reader
    must know before believing the value, each a sentence.
    """

    format: Literal[1] = 1
    terms: Terms
    name: Text
    sha256: Hash
    value: float
    low: float | None = None
    high: float | None = None
    interval: Text = ""
    better: Literal["lower", "higher"]
    baseline: Baseline | None = None
    warnings: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _in_order(self) -> Record:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has both ends or none")
        if self.low is not None and self.high is not None and not self.low <= self.value <= self.high:
            raise ValueError(f"the value {self.value:g} is outside its interval")
        return self

    @property
    def group(self) -> str | None:
        """The class that was measured alone; None for all pictures."""
        return self.terms.group

    @property
    def as_real(self) -> bool:
        """Whether its interval reaches that of real pictures against real ones; False without a baseline."""
        base = self.baseline
        if base is None:
            return False
        if self.better == "lower":
            return _or(self.low, self.value) <= _or(base.high, base.value)
        return _or(self.high, self.value) >= _or(base.low, base.value)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return self.model_dump(mode="json")

    @staticmethod
    def of_json(value: object, where: Path | str = "this record") -> Record:
        """The record that a JSON value describes, read strictly. Raises SettingsError, one sentence."""
        try:
            return Record.model_validate_json(json.dumps(value), strict=True)
        except (ValidationError, RecursionError, TypeError, ValueError) as error:
            words = sentence(error) if isinstance(error, ValidationError) else str(error)
            raise SettingsError(f"{where}: no record of a metric ({words}): measure again") from None

    def lines(self) -> tuple[str, ...]:
        """For people: the value, then the baseline and the warnings where there are any."""
        told = [f"{self.terms.title:<24}{_figure(self.value, self.low, self.high)}"]
        if self.group is not None:
            told[0] += f"   {self.group}"
        if self.baseline is not None:
            base = self.baseline
            told.append(f"{'  real against real':<24}{_figure(base.value, base.low, base.high)}")
        return (*told, *(f"  {warning}" for warning in self.warnings))


def _or(end: float | None, value: float) -> float:
    """An end of an interval, the value itself where there is none."""
    return value if end is None else end


def _figure(value: float, low: float | None, high: float | None) -> str:
    """Five digits, and the interval where there is one."""
    return f"{value:.5g}" if low is None or high is None else f"{value:.5g}   {low:.5g} .. {high:.5g}"


class Comparison(NamedTuple):
    """a - b of the same metric, with the 95 % interval of the difference where both have one.

    `better`: "a" or "b" where the interval leaves 0 out; None where the two cannot be told apart.
    """

    title: str
    difference: float
    low: float | None
    high: float | None
    better: Literal["a", "b"] | None


def difference(a: Record, b: Record) -> Comparison:
    """How much a's value lies above b's.

    Ends by the square-and-add rule, which keeps the two intervals' own asymmetry (Zou & Donner 2008, eq. 11):
    low = a - b - sqrt((a - low_a)^2 + (high_b - b)^2), high likewise. That is for independent figures; two
    models that were measured against the same real pictures share that part of their error, so the interval
    is rather too wide than too narrow.

    Raises SettingsError, one sentence that names every difference, unless all terms are the same.
    """
    unlike = _unlike(a.terms, b.terms)
    if unlike:
        raise SettingsError(
            f"{a.name} and {b.name} were not measured alike, {'; '.join(unlike)}: measure both the same way"
        )
    value = a.value - b.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Comparison(a.terms.title, value, None, None, None)
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    better: Literal["a", "b"] | None = None
    if low > 0 or high < 0:
        better = "a" if (high < 0) == (a.better == "lower") else "b"
    return Comparison(a.terms.title, value, low, high, better)


def _unlike(a: Terms, b: Terms) -> list[str]:
    """What differs, in words; the reference's name is for people, its hash decides."""
    found: list[str] = []
    for field in Terms.model_fields:
        mine, other = getattr(a, field), getattr(b, field)
        if field == "settings":
            keys = sorted({*mine, *other})
            pairs = [(f"setting {key}", mine.get(key), other.get(key)) for key in keys]
        else:
            pairs = [(field.replace("_sha256", " hash"), mine, other)] if field != "reference" else []
        found += [f"{name} {_short(x)} and {_short(y)}" for name, x, y in pairs if x != y]
    return found


def _short(value: object) -> str:
    """A value for a sentence: hashes by their first digits."""
    text = "none" if value is None else str(value)
    return f"{text[:8]}..." if len(text) == 64 and " " not in text else text[:80]
