"""Attributes: what is meant, what it becomes, and which columns are some."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpora.told import ATTRIBUTES
from sfumato.conditions.attributes import FREQUENCIES, Attributes, Choice, Labels, Number, split
from sfumato.conditions.columns import attributes_of, kind_of, offered, told
from sfumato.errors import SettingsError

AGE, COLOUR, TAGS = ATTRIBUTES.items


def test_a_number_is_told_by_its_place_in_the_range() -> None:
    """1, u, sin and cos of pi u 2^j; both ends are told apart although the waves are periodic."""
    wide = Number("age", -2.0, 6.0)
    assert wide.features(6.0)[:2] == [1.0, 1.0]
    u = 0.25
    waves = [wave(2**j * math.pi * u) for j in range(FREQUENCIES) for wave in (math.sin, math.cos)]
    assert wide.features(0.0) == pytest.approx([1.0, u, *waves])
    assert math.dist(wide.features(-2.0), wide.features(6.0)) > 1


@given(st.floats(0, 10), st.floats(0, 10))
def test_near_numbers_have_near_features_and_others_others(a: float, b: float) -> None:
    apart = math.dist(AGE.features(a), AGE.features(b))
    assert abs(a - b) / 10 - 1e-12 <= apart <= 30 * abs(a - b) / 10 + 1e-12


def test_choices_and_labels_are_flags() -> None:
    assert COLOUR.features("blue") == [1, 0, 1]
    assert TAGS.features(("a", "c")) == [1, 1, 0, 1]
    assert TAGS.features(()) == [1, 0, 0, 0]  # known to have none, which is not the same as not known
    assert all(item.width == len(item.features(item.example())) for item in ATTRIBUTES.items)


@pytest.mark.parametrize(
    ("item", "said", "value"),
    [
        (AGE, "2.5", 2.5),
        (AGE, 3, 3.0),
        (AGE, " 1e1 ", 10.0),
        (COLOUR, "Blue", "blue"),
        (Choice("n", ("1", "2")), 2, "2"),
        (Choice("n", ("1", "2")), 2.0, "2"),
        (TAGS, "c|a", ("a", "c")),
        (TAGS, "b, a", ("a", "b")),
        (TAGS, '["c"]', ("c",)),
        (TAGS, ["b", "b"], ("b",)),
        (TAGS, "", ()),
    ],
)
def test_what_is_said_is_understood(item: Number | Choice | Labels, said: str, value: object) -> None:
    assert item.parse(said) == value
    assert item.parse(item.parse(said)) == value  # as it is read back from a picture's file


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"age": "11"}, "from 0 to 10"),
        ({"age": -0.001}, "from 0 to 10"),
        ({"age": "nan"}, "a number from 0 to 10, not 'nan'"),
        ({"age": math.inf}, "a number from 0 to 10"),
        ({"age": "old"}, "not 'old'"),
        ({"colour": "bleu"}, "did you mean blue"),
        ({"colour": "x"}, "there are red, blue"),
        ({"tags": "a|d"}, "tags cannot be 'd'"),
        ({"ages": 1}, "did you mean age"),
        ({"size": 1}, "there are age, colour, tags"),
    ],
)
def test_a_wrong_value_is_one_sentence(said: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as found:
        ATTRIBUTES.parse(said)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 200


def test_missing_is_zero_and_hiding_is_missing() -> None:
    values = [{"age": 2.0, "colour": "red", "tags": ("b",)}, {"age": 3.0}, {}]
    rows = ATTRIBUTES.rows(values)
    assert rows.shape == (3, ATTRIBUTES.width)
    assert float(rows[2].abs().sum()) == 0
    which = {"age": torch.tensor([True, False, True]), "tags": torch.tensor([True, True, False])}
    kept = [{"colour": "red"}, {"age": 3.0}, {}]
    assert torch.equal(ATTRIBUTES.hide(rows, which), ATTRIBUTES.rows(kept))
    assert torch.equal(ATTRIBUTES.hide(rows, {}), rows)
    assert Attributes().rows([{}, {}]).shape == (2, 0)


@pytest.mark.parametrize("name", ["class", "text", "picture", " ", "a=b"])
def test_names_that_mean_something_else_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be called"):
        Attributes((Choice(name, ("a",)),))
    with pytest.raises(SettingsError, match="two attributes"):
        Attributes((Choice("x", ("a",)), Number("x", 0.0, 1.0)))


def test_kinds_are_found_from_the_values() -> None:
    assert kind_of([f"{i / 7:.3f}" for i in range(40)]) == "number"
    assert kind_of([str(i % 5) for i in range(40)]) == "choice"  # few numbers: grades, years
    assert kind_of(["cat", "dog"] * 3) == "choice"
    assert kind_of(["a|b", "b", "a", "b|c", "c|a", "c"]) == "labels"
    assert kind_of(["a,b", "b", "a", "b,a"]) == "labels"
    assert kind_of(["arts", "light, film", *["music", "sport"] * 20]) == "choice"  # one name with a comma
    assert kind_of([f"picture-{i}" for i in range(40)]) is None
    assert kind_of([f"a sentence of its own, number {i}" for i in range(40)]) is None
    assert kind_of(["same"] * 9) is None
    assert split("[1, 2]") == ["1", "2"]


def test_columns_become_attributes() -> None:
    rows = [
        {
            "age": str(i),
            "kind": "even" if i % 2 == 0 else "odd",
            "id": f"no-{i}",
            "tags": "x|y" if i % 3 else "x",
        }
        for i in range(30)
    ]
    rows[4]["age"], rows[5]["kind"] = "n/a", ""
    assert offered(rows) == {"age": "number", "kind": "choice", "tags": "labels"}
    found = attributes_of(rows, ["age", "kind", "tags"])
    assert found.items == (
        Number("age", 0.0, 29.0),
        Choice("kind", ("even", "odd")),
        Labels("tags", ("x", "y")),
    )
    values = told(found, rows)
    assert values[7] == {"age": 7.0, "kind": "odd", "tags": ("x", "y")}
    assert "age" not in values[4]
    assert "kind" not in values[5]
    assert isinstance(attributes_of(rows, ["age:choice"]).items[0], Choice)
    assert isinstance(attributes_of(rows, ["id:choice"]).items[0], Choice)
    for wanted, words in (
        ("agee", "did you mean age"),
        ("id", "say id:number, id:choice or id:labels"),
        ("kind:number", "holds '.*', which is no number"),
    ):
        with pytest.raises(SettingsError, match=words):
            attributes_of(rows, [wanted])
    with pytest.raises(SettingsError, match="no columns"):
        attributes_of([{}, {}], ["age"])
