"""Prompt-to-prompt: the paper's three edits of maps, on tokens, on one layer, and on a whole network."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sfumato import plans
from sfumato.denoiser import Bound
from sfumato.editing.first_steps import FirstSteps
from sfumato.editing.job import finished
from sfumato.editing.prompt_to_prompt import PromptToPrompt, both, weighed, words
from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.model import Model
from sfumato.networks import UNetConfig, build
from sfumato.networks.attention import Attention
from sfumato.networks.probe import probing
from sfumato.noise import Noise, seeded
from sfumato.predictions import V
from sfumato.samplers import sampler
from sfumato.tables import Table

START, END = 90, 91
LEVELS = plans.trailing(Table.cosine(), 4)
NONE, ALL = FirstSteps.of(LEVELS, 0), FirstSteps.of(LEVELS, 1)


def row(*tokens: int, length: int = 8) -> list[int]:
    return [START, *tokens, *[END] * (length - 1 - len(tokens))]


@pytest.fixture(scope="module")
def model() -> Model:
    config = UNetConfig(
        in_channels=1,
        out_channels=1,
        channels=(8, 16),
        layers=1,
        groups=4,
        head_channels=8,
        attention=("none", "cross"),
        middle="cross",
        context_dim=6,
        zero_init=False,
    )
    with seeded("p2p"):
        return Model(build(config), Table.cosine(), V()).eval().requires_grad_(False)


def told(model: Model, seed: int, rows: int = 2) -> Bound:
    """A caption of eight tokens, by their states."""
    return model.given(context=Noise((seed,)).normal((8, 6), "caption").expand(rows, 8, 6))


def test_a_word_in_anothers_place_takes_its_map() -> None:
    aligned = words(row(1, 2, 3), row(1, 7, 3))
    assert torch.equal(aligned.mapper, torch.eye(8))
    assert bool((aligned.kept == 1).all())


def test_two_words_in_the_place_of_one_share_its_map() -> None:
    aligned = words(row(1, 2, 3), row(1, 7, 8, 3))
    assert aligned.mapper[2, 2:4].tolist() == [0.5, 0.5]
    assert float(aligned.mapper[3, 4]) == 1
    assert bool((aligned.kept[:5] == 1).all())


def test_an_added_word_keeps_its_own_map() -> None:
    aligned = words(row(1, 3), row(1, 7, 3))
    assert aligned.kept[:4].tolist() == [1, 1, 0, 1]
    assert float(aligned.mapper[2, 3]) == 1
    old, new = torch.rand(1, 2, 5, 8), torch.rand(1, 2, 5, 8)
    edited = weighed(aligned, [3], 2.0).edited(old, new)
    assert torch.equal(edited[..., 2], new[..., 2])
    assert torch.equal(edited[..., 1], old[..., 1])
    assert torch.equal(edited[..., 3], 2 * old[..., 2])


@dataclass(frozen=True)
class Given:
    """A probe that puts these maps in the place of any."""

    maps: Tensor
    places: tuple[str, ...] = ("cross",)

    def __call__(self, place: str, value: Tensor) -> Tensor:
        assert torch.allclose(value.sum(-1), torch.ones(()))
        return self.maps


def test_the_maps_of_a_layer_are_what_it_averages_by() -> None:
    """Attention is its maps times the values: with maps of our own it is our average, head by head."""
    with seeded("layer"):
        layer = Attention(8, 2, context_dim=6)
    tokens, context = Noise((0,)).normal((5, 8), "t"), Noise((0,)).normal((3, 6), "c")
    maps = torch.rand(1, 2, 5, 3)
    with probing(Given(maps)):
        got = layer(tokens, context)
    values = layer.to_v(context).reshape(1, 3, 2, 4).transpose(1, 2)
    want = layer.to_out[0]((maps @ values).transpose(1, 2).reshape(1, 5, 8))
    assert torch.allclose(got, want, atol=1e-6)
    with probing(Given(torch.eye(1), places=("self",))):
        assert torch.allclose(layer(tokens, context), layer(tokens, context), atol=1e-6)


def pictures(pairs: PromptToPrompt) -> Tensor:
    x = Noise((0, 1)).normal((1, 8, 8), "start")
    return finished(both(pairs, x, LEVELS), sampler("ddim"), Noise((0, 1, 0, 1)))


def alone(denoise: Bound) -> Tensor:
    """Down the same levels without a pair."""
    x = Noise((0, 1)).normal((1, 8, 8), "start")
    for i in range(len(LEVELS) - 1):
        e = denoise(x, LEVELS[i])
        x = float(LEVELS[i + 1].alpha) * e.x0 + float(LEVELS[i + 1].sigma) * e.eps
    return x.detach()


def test_nothing_is_kept_in_no_steps_and_the_same_caption_is_the_same_picture(model: Model) -> None:
    old, new, kept = told(model, 1), told(model, 2), words(row(1, 2), row(1, 3))
    free = pictures(PromptToPrompt(old, new, kept, NONE, NONE))
    assert torch.allclose(free, alone(new), atol=1e-5)
    same = pictures(PromptToPrompt(old, old, words(row(1, 2), row(1, 2)), ALL, ALL))
    assert torch.allclose(same, alone(old), atol=1e-5)
    moved = pictures(PromptToPrompt(old, new, kept, ALL, ALL))
    assert float((moved - free).abs().max()) > 1e-3


def test_words_without_weight_are_as_if_nothing_was_said(model: Model) -> None:
    """Values have no bias: maps of weight 0 bring what a caption of zeros brings. Weight 1 changes
    nothing."""
    level, x = LEVELS[1], Noise((0, 1)).normal((1, 8, 8), "x")
    caption, empty = told(model, 4), model.given(context=torch.zeros(2, 8, 6))
    aligned = words(row(1, 2), row(1, 2))
    for factor, want in ((1.0, caption), (0.0, empty)):
        pairs = PromptToPrompt(caption, caption, weighed(aligned, range(8), factor), ALL, NONE)
        assert torch.allclose(pairs(torch.cat([x, x]), level).x0[2:], want(x, level).x0, atol=1e-5)


def test_pairs_are_pairs_and_shares_are_shares(model: Model) -> None:
    pairs = PromptToPrompt(told(model, 1, 1), told(model, 2, 1), None, NONE, ALL)
    with pytest.raises(SettingsError, match="pairs"):
        pairs(torch.zeros(3, 1, 8, 8), LEVELS[0])
    with pytest.raises(SettingsError, match="share"):
        FirstSteps.of(LEVELS, 1.5)
    half = FirstSteps.of(LEVELS, 0.5)
    assert [half.holds(level) for level in LEVELS] == [True, True, False, False, False]
    assert not NONE.holds(LEVELS[0])
    assert ALL.holds(LEVELS[3])
    assert not half.holds(Level.of(1.0, 0.0))


def test_rows_are_taken_by_pairs(model: Model) -> None:
    old, new = told(model, 1), told(model, 2)
    pairs = PromptToPrompt(old, new, words(row(1, 2), row(1, 3)), ALL, ALL)
    x = Noise((0, 1, 2, 3)).normal((1, 8, 8), "x")
    whole = pairs(x, LEVELS[1]).x0
    part = pairs.take([1, 3])(x[[1, 3]], LEVELS[1]).x0
    assert torch.allclose(part, whole[[1, 3]], atol=1e-5)
