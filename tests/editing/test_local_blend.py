"""Local blend: where words are is read from maps that are known; everything else stays, to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sfumato import plans
from sfumato.editing.first_steps import FirstSteps
from sfumato.editing.job import finished
from sfumato.editing.local_blend import LocalBlend, Places
from sfumato.editing.prompt_to_prompt import PromptToPrompt, both, weighed, words
from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.networks.attention import Attention
from sfumato.noise import Noise
from sfumato.predictions import Estimate
from sfumato.samplers import sampler
from sfumato.tables import Table

LEVELS = plans.trailing(Table.cosine(), 4)
NONE = FirstSteps.of(LEVELS, 0)
START, A, CAT, DOG, END = range(5)
SIDE = 8


@dataclass(frozen=True)
class Looking:
    """A denoiser whose left half looks at one token of its caption, and whose right half at another: x0 is
    what these tokens say. Keys are the first two numbers of a token, its value is the third."""

    context: Tensor

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        layer = Attention(3, 1, context_dim=3, bias=False)
        with torch.no_grad():
            layer.to_q.weight.copy_(100 * torch.eye(3))
            layer.to_k.weight.copy_(torch.diag(torch.tensor([1.0, 1.0, 0.0])))
            layer.to_v.weight.copy_(torch.diag(torch.tensor([0.0, 0.0, 1.0])))
            layer.to_out[0].weight.copy_(torch.eye(3))
            layer.to_out[0].bias.zero_()
        left = (torch.arange(SIDE) < SIDE // 2).float().expand(SIDE, SIDE)
        places = torch.stack([left, 1 - left, torch.zeros(SIDE, SIDE)], -1).reshape(1, -1, 3)
        said = layer(places.expand(len(x), -1, -1), self.context.expand(len(x), -1, -1))
        return Estimate.of(x, level, x0=said[..., 2].unflatten(1, (1, SIDE, SIDE)).detach())

    def take(self, rows: Sequence[int]) -> Looking:
        return self

    def check(self, level: Level) -> None:
        return None


def caption(a: float, animal: float) -> Looking:
    """START, "a", the animal, END: the right half is drawn as `a` says, the left one as the animal does."""
    return Looking(torch.tensor([[-1.0, -1, 0], [0, 1, a], [1, 0, animal], [-1, -1, 0]]))


OLD, NEW = [START, A, CAT, END], [START, A, DOG, END]


def changed(share: float | None) -> tuple[Tensor, Tensor]:
    """The old picture, and the new one whose caption says other things of both halves."""
    aligned = words(OLD, NEW)
    local = None if share is None else (Places(aligned.gone, share), Places(aligned.come, share))
    pairs = PromptToPrompt(caption(-0.5, 0.25), caption(0.5, -0.75), aligned, NONE, NONE, local)
    x = Noise((0, 1)).normal((1, SIDE, SIDE), "start")
    whole = pairs if local is None else LocalBlend(pairs, *local)
    job = both(whole, x, LEVELS)
    made = finished(job, sampler("ddim"), Noise((0, 1, 0, 1)))
    return finished(both(caption(-0.5, 0.25), x, LEVELS), sampler("ddim"), Noise((0, 1, 0, 1))), made


def test_the_picture_changes_where_the_word_is_and_nowhere_else() -> None:
    old, new = changed(0.3)
    half = SIDE // 2
    assert torch.allclose(new[..., :half], torch.tensor(-0.75))
    assert torch.equal(new[..., half:], old[..., half:])
    assert torch.allclose(old[..., half:], torch.tensor(-0.5))


def test_without_it_all_that_the_caption_says_changes() -> None:
    _, new = changed(None)
    assert torch.allclose(new[..., SIDE // 2 :], torch.tensor(0.5))


def test_words_that_go_come_or_are_weighed_are_the_words() -> None:
    """Padding is none, and what stands in both captions is none."""
    row = lambda *tokens: [90, *tokens, *[91] * (7 - len(tokens))]
    added = words(row(1, 3), row(1, 7, 8, 3))
    assert (added.gone.nonzero().flatten().tolist(), added.come.nonzero().flatten().tolist()) == ([], [2, 3])
    other = words(row(1, 2, 3), row(1, 7, 8, 3))
    assert (other.gone.nonzero().flatten().tolist(), other.come.nonzero().flatten().tolist()) == ([2], [2, 3])
    same = words(row(1, 2), row(1, 2))
    assert not same.gone.any()
    assert weighed(same, [2], 2.0).come.nonzero().flatten().tolist() == [2]


def test_maps_of_all_sizes_and_steps_are_one() -> None:
    """Of a picture of 4 x 8: layers of 2 x 4 and 4 x 8 places that look at the word in one column of 2."""
    places = Places(torch.tensor([0.0, 1.0]), 0.5)
    assert not bool(places.mask(torch.zeros(1, 3, 4, 8)).any())
    for height in (2, 4):
        looked = torch.zeros(1, 1, height, 2 * height, 2)
        looked[..., 0] = 1
        looked[..., : height // 2, 1] = 0.8
        places.hear(looked.flatten(2, 3).expand(1, 2, -1, 2), (4, 8))
    want = torch.zeros(1, 1, 4, 8, dtype=torch.bool)
    want[..., :2] = True
    assert torch.equal(places.mask(torch.zeros(1, 3, 4, 8)), want)


def test_a_share_that_nothing_reaches_is_refused() -> None:
    with pytest.raises(SettingsError, match="share"):
        Places(torch.ones(2), 1.0)
