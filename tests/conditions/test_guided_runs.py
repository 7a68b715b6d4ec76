"""Recipes: what is asked reaches the network, and guidance adds the conditions one by one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from corpora import small, told
from sfumato.conditions.also import Also
from sfumato.conditions.schema import Wish
from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.guidance.mix import compose
from sfumato.level import Level
from sfumato.noise import Noise
from sfumato.runs import Recipe, Run

LEVEL = (
    Level.of(0.6, 0.8)
    if hasattr(Level, "of")
    else Level(torch.tensor(0.6).double(), torch.tensor(0.8).double())
)
X = Noise((1, 2)).normal((1, 8, 8))
ASKED: dict[str, Any] = {
    "classes": ["cat", "dog"],
    "prompt": ["a red cat", "a blue dog"],
    "set": [{"age": 2.0, "colour": "red"}, {"age": 9, "tags": "a|b"}],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return told.run(tmp_path_factory.mktemp("told") / "run")


def x0(denoise: Denoiser) -> Tensor:
    with torch.no_grad():
        return denoise(X, LEVEL).x0


def bare(run: Run, *wishes: Wish) -> Tensor:
    """What the model itself says to these wishes."""
    with torch.no_grad():
        return run.model(X, LEVEL, **run.conditions.rows(wishes)).x0


def wishes(run: Run, recipe: Recipe, *names: str) -> list[Wish]:
    return [run.conditions.kept(wish, names) for wish in recipe.wishes()]


def test_what_is_asked_is_what_the_network_is_told(run: Run) -> None:
    recipe = run.recipe(**ASKED)
    assert recipe.wishes() == (
        Wish(0, {"age": 2.0, "colour": "red"}, "a red cat"),
        Wish(1, {"age": 9.0, "tags": ("a", "b")}, "a blue dog"),
    )
    said = x0(run.denoiser(recipe))
    assert torch.equal(said, bare(run, *recipe.wishes()))
    for names in (["class"], ["age", "colour", "tags"], ["text"]):  # each of them matters
        left = [name for name in run.conditions.names if name not in names]
        assert float((bare(run, *wishes(run, recipe, *left)) - said).abs().max()) > 1e-4


def test_one_scale_for_all_is_classifier_free_guidance(run: Run) -> None:
    recipe = run.recipe(**ASKED, guidance=3)
    full, nothing = bare(run, *recipe.wishes()), bare(run, Wish(), Wish())
    guided = x0(run.denoiser(recipe))
    assert torch.allclose(guided, nothing + 3 * (full - nothing), atol=1e-5)
    every = dict.fromkeys(run.conditions.names, 3)
    assert torch.equal(x0(run.denoiser(run.recipe(**ASKED, guidance=every))), guided)


def test_scales_of_their_own_add_one_condition_after_the_other(run: Run) -> None:
    """d0 + s_class (d1 - d0) + (d2 - d1) + s_text (d3 - d2) (Brooks et al. 2023, eq. 3)."""
    recipe = run.recipe(**ASKED, guidance={"text": 5, "class": 2})
    kinds = wishes(run, recipe, "class")
    rest = wishes(run, recipe, "class", "age", "colour", "tags")
    d0, d1, d2, d3 = (bare(run, *one) for one in ([Wish()] * 2, kinds, rest, recipe.wishes()))
    wanted = d0 + 2 * (d1 - d0) + (d2 - d1) + 5 * (d3 - d2)
    assert torch.allclose(x0(run.denoiser(recipe)), wanted, atol=1e-4)


def test_a_negative_prompt_stands_where_the_prompt_is_not_told(run: Run) -> None:
    recipe = run.recipe(2, prompt="a red cat", negative="a blue dog", guidance=2)
    yes, no = bare(run, *[Wish(prompt="a red cat")] * 2), bare(run, *[Wish(prompt="a blue dog")] * 2)
    assert torch.allclose(x0(run.denoiser(recipe)), no + 2 * (yes - no), atol=1e-5)
    alone = run.recipe(2, negative="a blue dog", guidance=2)
    assert torch.allclose(x0(run.denoiser(alone)), no + 2 * (bare(run, Wish(), Wish()) - no), atol=1e-5)


def test_guidance_has_an_interval_and_is_held_back(run: Run) -> None:
    free = run.recipe(**ASKED, guidance=4)
    conditional = x0(run.denoiser(run.recipe(**ASKED)))
    inside = run.recipe(**ASKED, guidance=4, interval=(1, 2))  # sigma/alpha is 4/3 here
    assert torch.equal(x0(run.denoiser(inside)), x0(run.denoiser(free)))
    assert torch.equal(x0(run.denoiser(run.recipe(**ASKED, guidance=4, interval=(2, math.inf)))), conditional)
    softer = x0(run.denoiser(run.recipe(**ASKED, guidance=4, rescale=1.0)))
    std = lambda value: (X * 0.6 - value).flatten(1).std(1, correction=0)
    assert torch.allclose(std(softer), std(conditional), rtol=1e-4)  # v = (alpha x - x0) / sigma
    held = x0(run.denoiser(run.recipe(**ASKED, guidance=40, threshold=0.9)))
    assert float(held.abs().max()) <= 1


def test_and_and_not_are_a_composition(run: Run) -> None:
    """Of one kind, each is a condition by itself: d0 + s sum_i w_i (d_i - d0) (Liu et al. 2022)."""
    told = lambda wish: run.model.given(**run.conditions.rows([wish] * 2))
    texts = {"a red cat": 2.0, "two red dogs": 3.0, "a blue dog": -1.0}
    wanted = compose(told(Wish()), [(told(Wish(prompt=text)), scale) for text, scale in texts.items()])
    also = [Also("text", "two red dogs", 1.5), Also("TEXT", "a blue dog", -0.5)]
    recipe = run.recipe(2, prompt="a red cat", also=also, guidance=2)
    assert torch.allclose(x0(run.denoiser(recipe)), x0(wanted), atol=1e-5)
    alone = run.recipe(2, also=[Also("text", "a red cat"), *also], guidance={"text": 2})
    assert torch.allclose(x0(run.denoiser(alone)), x0(wanted), atol=1e-5)


def test_and_of_another_kind_is_told_with_the_rest(run: Run) -> None:
    """... + s_i w_i (d(rest and c_i) - d(rest)), also where there is a negative prompt and outside an
    interval."""
    also = [Also("class", "2", 0.5), Also("colour", "blue", -1), Also("text", "a blue dog", 2)]
    no, red = "two red dogs", {"colour": "red"}
    asked: dict[str, Any] = {"classes": "cat", "prompt": "a red cat", "set": red, "negative": no}
    scales = {"class": 3.0, "text": 2.0}
    said = run.recipe(2, **asked, also=also, guidance=scales)
    assert [one.value for one in said.also] == ["ox", "blue", "a blue dog"]
    say = lambda *wish: bare(run, *[Wish(*wish)] * 2)
    whole = say(0, red, "a red cat")
    first = x0(run.denoiser(run.recipe(2, **asked, guidance=scales)))
    ways = (
        0.5 * (say(2, red, "a red cat") - say(None, red, "a red cat")),
        -1 * (say(0, {"colour": "blue"}, "a red cat") - say(0, {}, "a red cat")),
        2 * (say(0, red, "a blue dog") - say(0, red, no)),
    )
    wanted = first + 3 * ways[0] + ways[1] + 2 * ways[2]
    assert torch.allclose(x0(run.denoiser(said)), wanted, atol=1e-4)
    outside = run.recipe(2, **asked, also=also, guidance=scales, interval=(2, 5))  # sigma/alpha is 4/3 here
    assert torch.allclose(x0(run.denoiser(outside)), whole + sum(ways), atol=1e-4)


def test_a_caption_is_read_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    assert run.model.text is not None
    read = run.model.text.forward
    monkeypatch.setattr(
        run.model.text, "forward", lambda tokens: (calls.append(len(tokens)), read(tokens))[1]
    )
    run.sample(2, prompt="a red cat", guidance=2, steps=6)
    assert calls == [2, 2]  # the conditional and the unconditional rows


def test_a_picture_does_not_depend_on_its_batch(run: Run) -> None:
    together = run.make(run.recipe(**ASKED, guidance=2, steps=4))
    alone = run.make(run.recipe(**ASKED, guidance=2, steps=4, batch=1))
    assert torch.allclose(together, alone, atol=1e-5)
    second = run.recipe(**ASKED, guidance=2, steps=4).take([1])
    assert second.wishes() == run.recipe(**ASKED).wishes()[1:]
    assert torch.allclose(run.make(second), together[1:], atol=1e-5)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "class": ({"classes": "cta"}, "did you mean cat"),
    "attribute": ({"set": {"agge": 1}}, "did you mean age"),
    "range": ({"set": {"age": 99}}, "from 0 to 10"),
    "option": ({"set": {"colour": "bleu"}}, "did you mean blue"),
    "counts": ({"prompt": ["a", "b"], "n": 3}, "do not agree"),
    "guidance of nothing": ({"guidance": 3}, "needs a class or age or colour or tags or a prompt"),
    "guidance of no condition": ({"classes": "cat", "guidance": {"prompt": 2}}, "guidance: no condition"),
    "guidance nan": ({"classes": "cat", "guidance": {"class": math.nan}}, "finite"),
    "guidance inf": ({"prompt": "x", "guidance": math.inf}, "finite"),
    "negative alone": ({"prompt": "x", "negative": "y"}, "above 1"),
    "interval": ({"prompt": "x", "guidance": 2, "interval": (3, 1)}, "nowhere"),
    "interval of one": ({"prompt": "x", "guidance": 2, "interval": (3,)}, "two values"),
    "rescale of nothing": ({"prompt": "x", "rescale": 0.5}, "are of guidance"),
    "interval of nothing": ({"prompt": "x", "interval": (0, 1)}, "are of guidance"),
    "rescale": ({"prompt": "x", "guidance": 2, "rescale": 3}, "from 0"),
    "and of nothing": ({"also": [Also("txt", "x")]}, "AND and NOT: no condition .* did you mean text"),
    "and of no class": ({"also": [Also("class", "cta")]}, "did you mean cat"),
    "and out of range": ({"also": [Also("age", 99)]}, "from 0 to 10"),
    "and of no words": ({"also": [Also("text", " ")]}, "text is empty"),
    "and nan": ({"also": [Also("text", "x", math.nan)]}, "finite"),
    "threshold": ({"prompt": "x", "threshold": 0.0}, "above 0"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_wish_is_one_sentence(what: str, run: Run) -> None:
    asked, words = WRONG[what]
    with pytest.raises(SettingsError, match=words) as found:
        run.sample(**asked, steps=2)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 400


def test_models_without_these_conditions_say_so(tmp_path: Path) -> None:
    plain = small.make(tmp_path / "run", small.card())
    for asked in ({"prompt": "x"}, {"set": {"age": 1}}, {"classes": "cat"}, {"negative": "x"}):
        with pytest.raises(SettingsError, match="trained without"):
            plain.sample(**asked)  # type: ignore[arg-type]
    assert plain.conditions.describe() == []
    with pytest.raises(SettingsError, match="AND and NOT need a model"):
        plain.sample(also=[Also("class", "cat")])


def test_a_picture_is_shown_beside_the_noise(tmp_path: Path) -> None:
    run = told.run(tmp_path / "run", picture=2)
    picture = Noise((5, 6)).normal((2, 8, 8))
    recipe = run.recipe(2, prompt="a red cat", guidance=2, steps=2)
    shown = x0(run.denoiser(recipe, picture))
    assert float((shown - x0(run.denoiser(recipe))).abs().max()) > 1e-4
    with torch.no_grad():  # the scale is the words': the picture is told to both
        rows = [run.conditions.rows([Wish(prompt=text)] * 2, picture) for text in ("a red cat", None)]
        yes, no = (run.model(X, LEVEL, **one).x0 for one in rows)
    assert torch.allclose(shown, no + 2 * (yes - no), atol=1e-5)
    assert torch.equal(run.sample(2, picture=picture, steps=2), run.make(run.recipe(2, steps=2), picture))
    with pytest.raises(SettingsError, match="must be"):
        run.sample(2, picture=picture[:, :1], steps=2)
