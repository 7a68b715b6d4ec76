"""Records: strictly in and out of JSON, and compared only where they were measured alike."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.errors import SettingsError
from sfumato.evaluation.record import Baseline, Record, Terms, difference


def terms(**changed: Any) -> Terms:
    said: dict[str, Any] = {
        "metric": "kid",
        "extractor": "lite0",
        "weights_sha256": "a" * 64,
        "resize": "bicubic, to 224 x 224",
        "real": 500,
        "generated": 400,
        "reference": "digits",
        "reference_sha256": "b" * 64,
        "settings": {"degree": 3},
        "seed": 1,
    }
    return Terms(**(said | changed))


def record(value: float = 1.0, below: float = 0.5, above: float = 0.25, **changed: Any) -> Record:
    return Record(
        terms=terms(**changed),
        name="run",
        sha256="c" * 64,
        value=value,
        low=value - below,
        high=value + above,
        interval="95 %",
        better="lower",
        baseline=Baseline(value=0.0, low=-0.1, high=0.1, real=500, generated=400, pictures="held out"),
        warnings=("of few pictures",),
    )


@given(
    value=st.floats(-1e9, 1e9),
    settings=st.dictionaries(
        st.text(min_size=1, max_size=9), st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text()
    ),
    group=st.none() | st.text(),
)
def test_json_and_back(value: float, settings: dict[str, Any], group: str | None) -> None:
    made = record(value, settings=settings, group=group)
    text = json.dumps(made.to_json(), allow_nan=False)
    assert Record.of_json(json.loads(text)) == made


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sharpness": 1}, "sharpness"),
        ({"value": "1"}, "value"),
        ({"value": math.nan}, "finite"),
        ({"value": 5.0}, "outside its interval"),
        ({"low": None}, "both ends or none"),
        ({"format": 2}, "format"),
        ({"sha256": "c" * 63}, "sha256"),
        ({"better": "larger"}, "better"),
        ({"terms": {}}, r"terms\.metric"),
    ],
)
def test_what_is_no_record_is_refused_in_one_sentence(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        Record.of_json(record().to_json() | changed, "records.json")
    assert str(caught.value).startswith("records.json: no record of a metric (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, [], "kid"])
def test_other_values_are_no_records(value: object) -> None:
    with pytest.raises(SettingsError, match="no record of a metric"):
        Record.of_json(value)


def test_every_difference_of_the_terms_is_named() -> None:
    changes = {
        "metric": "fid",
        "extractor": "clip",
        "weights_sha256": "d" * 64,
        "resize": "bilinear",
        "real": 10,
        "generated": 11,
        "reference_sha256": "e" * 64,
        "group": "seven",
        "settings": {"k": 3},
        "seed": 2,
    }
    for name, value in changes.items():
        with pytest.raises(SettingsError, match="were not measured alike"):
            difference(record(), record(**{name: value}))
    with pytest.raises(SettingsError) as caught:
        difference(record(), record(**changes))
    for words in (
        "metric kid and fid", "extractor lite0 and clip", "weights hash aaaaaaaa... and dddddddd...",
        "resize bicubic, to 224 x 224 and bilinear", "real 500 and 10", "generated 400 and 11",
        "reference hash bbbbbbbb... and eeeeeeee...", "group none and seven", "setting degree 3 and none",
        "setting k none and 3", "seed 1 and 2",
    ):  # fmt: skip
        assert words in str(caught.value)


def test_the_reference_s_name_and_the_generated_pictures_may_differ() -> None:
    other = record(2.0, reference="the same digits").model_copy(update={"sha256": "d" * 64, "name": "other"})
    assert difference(record(), other).difference == -1


def test_the_interval_of_a_difference() -> None:
    """Square and add (Zou & Donner 2008): asymmetric ends cross over."""
    found = difference(record(3.0, 0.3, 0.4), record(1.0, 0.5, 1.2))
    assert found.difference == 2
    assert found.low == pytest.approx(2 - math.hypot(0.3, 1.2))
    assert found.high == pytest.approx(2 + math.hypot(0.4, 0.5))
    assert found.better == "b"  # lower is better
    assert difference(record(1.0), record(1.1)).better is None
    higher = [one.model_copy(update={"better": "higher"}) for one in (record(3.0), record(1.0))]
    assert difference(*higher).better == "a"
    bare = record().model_copy(update={"low": None, "high": None})
    assert difference(record(2.0), bare)[1:] == (1.0, None, None, None)


def test_titles_say_by_whose_eyes() -> None:
    titles = {
        ("kid", "inception"): "KID",
        ("kid", "lite0"): "KID-lite0",
        ("fid", "inception"): "FID",
        ("fid", "clip"): "FD-clip",
        ("fid", "inception-clean"): "FID-clean",
        ("fid-infinity", "dinov2"): "FD-infinity-dinov2",
        ("sfid", "lite0"): "sFD-lite0",
        ("clip-score", "clip"): "CLIP score",
    }
    for (metric, extractor), title in titles.items():
        assert terms(metric=metric, extractor=extractor).title == title


def test_lines_for_people() -> None:
    lines = record(group="seven").lines()
    assert lines[0].split() == ["KID-lite0", "1", "0.5", "..", "1.25", "seven"]
    assert lines[1].split() == ["real", "against", "real", "0", "-0.1", "..", "0.1"]
    assert lines[2].strip() == "of few pictures"
