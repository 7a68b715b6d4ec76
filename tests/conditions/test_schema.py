"""All conditions of a model in one value: what is told, what is hidden, what is refused."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from corpora import small, told
from sfumato.conditions.classes import Classes
from sfumato.conditions.schema import Conditions, Shown, Wish
from sfumato.data.dataset import Batch
from sfumato.errors import SettingsError
from sfumato.noise import Noise
from sfumato.training.telling import Telling

WORDS = told.tokenizer()
ALL = Conditions(Classes(small.CLASSES, True), told.ATTRIBUTES, WORDS, Shown((2, 4, 4)))
WISH = Wish(1, {"age": 2.0, "colour": "red"}, "a red cat")
PICTURE = Noise((1,)).normal((2, 4, 4))


def test_every_condition_has_its_row() -> None:
    rows = ALL.rows([WISH, Wish()], PICTURE)
    assert rows["classes"].tolist() == [1, 3]
    assert torch.equal(rows["vector"], told.ATTRIBUTES.rows([WISH.values, {}]))
    assert torch.equal(rows["tokens"], WORDS.rows(["a red cat", ""]))
    assert torch.equal(rows["picture"], PICTURE.expand(2, -1, -1, -1))
    assert ALL.names == ("picture", "class", "age", "colour", "tags", "text")
    assert Conditions().rows([Wish()]) == {}
    assert Conditions(classes=Classes(("a",), null=False)).names == ()


def test_hidden_conditions_are_the_missing_ones() -> None:
    """Row k hides condition k; the last row hides all: the rows of a user who did not say them."""
    count = len(ALL.names) + 1
    full = ALL.rows([WISH] * count, PICTURE)
    which = {
        name: torch.tensor([k in (i, count - 1) for k in range(count)]) for i, name in enumerate(ALL.names)
    }
    hidden = ALL.hidden(full, which)
    for k, name in enumerate(ALL.names):
        left = ALL.kept(WISH, [other for other in ALL.names if other != name])
        wanted = ALL.rows([left], None if name == "picture" else PICTURE)
        assert all(torch.equal(hidden[key][k : k + 1], wanted[key]) for key in wanted), name
    nothing = ALL.nothing(1)
    assert all(torch.equal(hidden[key][-1:], nothing[key]) for key in nothing)


def test_samples_of_the_data_are_wishes_too() -> None:
    columns = ({"age": "2", "colour": "red", "other": "x"}, {"age": "n/a"})
    batch = Batch(torch.zeros(2, 1, 4, 4), torch.tensor([1, 2]), ("a red cat", ""), ("a", "b"), (), columns)
    wishes = ALL.wishes(batch)
    assert wishes == (WISH, Wish(2))
    assert Conditions().wishes(batch) == (Wish(), Wish())
    assert ALL.wishes(batch, {"colour": ["red", "blue"]})[1].values == {"colour": "blue"}


@pytest.mark.parametrize(
    ("conditions", "asked", "words"),
    [
        (Conditions(), {"prompts": ["x"]}, "trained without captions"),
        (Conditions(), {"values": [{"age": 1}]}, "trained without attributes"),
        (Conditions(), {"classes": ["cat"]}, "trained without classes"),
        (Conditions(classes=ALL.classes), {"prompts": ["x"]}, "it takes --class NAME"),
        (ALL, {"classes": ["cta"]}, "did you mean cat"),
        (ALL, {"prompts": ["x" * 20_000]}, "20,000 letters"),
    ],
)
def test_a_wrong_wish_is_one_sentence(conditions: Conditions, asked: dict[str, list], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as found:
        conditions.asked(1, **asked)
    assert "\n" not in str(found.value)


def test_pictures_of_another_shape_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"\(2, 2, 4, 4\)"):
        ALL.rows([WISH] * 2, PICTURE.expand(3, -1, -1, -1))
    with pytest.raises(SettingsError, match="not told a picture"):
        Conditions().rows([WISH], PICTURE)


@pytest.mark.parametrize("wrong", [PICTURE.byte(), PICTURE * float("nan")])
def test_pictures_that_are_not_of_finite_floats_are_refused(wrong: Tensor) -> None:
    with pytest.raises(SettingsError, match="finite floats"):
        ALL.rows([WISH], wrong)


def test_it_says_what_is_possible() -> None:
    said = "\n".join(ALL.describe())
    for words in (
        "cat, dog, ox",
        "--set age=...: from 0 to 10",
        "one of red, blue",
        "any of a, b, c",
        "--prompt",
    ):
        assert words in said


def test_what_is_hidden_in_training_follows_the_shares() -> None:
    """A share `drop` is told nothing; of twice that share each condition is hidden by a coin of its own."""
    telling, n, drop = Telling(ALL), 4000, 0.15
    full = ALL.rows([WISH] * n, PICTURE)
    left = telling.hidden(full, drop, range(n), seed=3)
    nothing = ALL.nothing(1)
    # of the six, three show by tensors of their own
    same = {
        key: (left[key] == nothing[key]).reshape(n, -1).all(1) for key in ("classes", "tokens", "picture")
    }
    patterns = Counter(zip(*(value.tolist() for value in same.values()), strict=True))
    none = (1 - 3 * drop) + 2 * drop / 8
    every = drop + 2 * drop / 8
    for pattern in patterns:
        share = none if not any(pattern) else every if all(pattern) else 2 * drop / 8
        assert abs(patterns[pattern] / n - share) < 4 * math.sqrt(share * (1 - share) / n), pattern
    assert len(patterns) == 8
    again = telling.hidden({k: v[50:60] for k, v in full.items()}, drop, range(50, 60), seed=3)
    assert all(torch.equal(again[key], left[key][50:60]) for key in again)  # by position alone


def test_one_condition_is_hidden_as_it_always_was() -> None:
    """Ho & Salimans (2022): a share of the classes, by one draw a position."""
    classes = torch.arange(300) % 3
    hidden = told.ABC.hidden({"classes": classes}, 0.2, range(300), 7)["classes"]
    draw = Noise.of(7, "drop", places=range(300)).uniform((), "drop") < 0.2
    assert torch.equal(hidden, torch.where(draw, 3, classes))
