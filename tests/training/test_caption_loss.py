"""The caption loss: its least is the spread of the pictures about their caption's mean; it moves the text
encoder and its own head alone, and goes on from what it saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from corpora import told
from sfumato.data.prepare import prepare
from sfumato.errors import SettingsError
from sfumato.forward import noised
from sfumato.level import Level
from sfumato.model import Model
from sfumato.networks.text import TextConfig, TextTransformer
from sfumato.noise import Noise, seeded
from sfumato.predictions import Estimate, V
from sfumato.schedules import Cosine
from sfumato.training.caption_loss import CaptionLoss
from sfumato.training.companion import Companion
from sfumato.training.objectives import Trial
from sfumato.training.recipes import pixels

CONFIG = TextConfig(vocabulary=6, width=16, layers=1, heads=2, hidden=32, length=4, end=5)
TOKENS = torch.tensor([[4, 0, 5, 5], [4, 1, 2, 5]]).repeat(8, 1)
"""Two captions, eight times each."""
SPREAD = 0.2


def pictures() -> Tensor:
    """One mean for each caption, and noise of which no caption says anything."""
    means = Noise((1, 2)).normal((1, 8, 8), "means").clamp(-1, 1).repeat(8, 1, 1, 1)
    return means + SPREAD * Noise(tuple(range(16))).normal((1, 8, 8), "spread")


def model() -> Model:
    with seeded(0, "weights"):
        return Model(torch.nn.Linear(1, 1), Cosine(), V(), text=TextTransformer(CONFIG))


def trial(x0: Tensor) -> Trial:
    level = Level(torch.tensor(0.6).double(), torch.tensor(0.8).double())
    eps = Noise(tuple(range(len(x0)))).normal(x0.shape[1:], "eps")
    estimate = Estimate.of(noised(x0, eps, level), level, x0=torch.zeros_like(x0))
    return Trial(x0, eps, level, estimate, told={"tokens": TOKENS})


def taught(m: Model, term: CaptionLoss, steps: int) -> list[float]:
    """The losses of these steps, of the encoder by plain Adam."""
    assert m.text is not None
    optimiser = torch.optim.Adam(m.text.parameters(), lr=1e-3)
    asked, losses = trial(pictures()), list[float]()
    for _ in range(steps):
        own = term.watch(asked, torch.zeros(16), range(16))
        assert own is not None
        assert own.shape == (16,)
        losses.append(float(own.detach().mean()))
        own.mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        term.learn()
    return losses


def test_the_least_is_the_spread_about_each_captions_mean() -> None:
    """Regression's best answer is the conditional mean; a share scales the loss."""
    x0 = pictures()
    means = torch.stack([x0[i::2].mean(0) for i in (0, 1)]).repeat(8, 1, 1, 1)
    least = float((x0 - means).square().mean())
    m, term = model(), CaptionLoss(16, (1, 8, 8), share=0.5)
    assert isinstance(term, Companion)
    term.begin(m, 16, torch.device("cpu"))
    losses = taught(m, term, 200)
    assert losses[0] > 4 * 0.5 * least
    assert losses[-1] == pytest.approx(0.5 * least, rel=0.05)


def test_it_moves_the_encoder_and_its_head_alone() -> None:
    m, term = model(), CaptionLoss(16, (1, 8, 8))
    term.begin(m, 16, torch.device("cpu"))
    own = term.watch(trial(pictures()), torch.zeros(16), range(16))
    assert own is not None
    own.sum().backward()
    assert m.text is not None
    assert all(
        p.grad is not None and float(p.grad.abs().max()) > 0 for p in m.text.parameters() if p.ndim > 1
    )
    assert all(p.grad is None for p in m.network.parameters())
    before = [p.detach().clone() for p in term.head.parameters()]
    term.learn()
    assert all(not torch.equal(a, b) for a, b in zip(before, term.head.parameters()))


def test_large_pictures_are_seen_in_small() -> None:
    """Averages over areas: halves of a picture of two tones."""
    term = CaptionLoss(16, (3, 64, 32))
    assert (term.size, term.head[-1].out_features) == ((16, 16), 3 * 16 * 16)


def test_it_goes_on_from_what_it_saved() -> None:
    m, whole = model(), CaptionLoss(16, (1, 8, 8))
    whole.begin(m, 16, torch.device("cpu"))
    taught(m, whole, 3)
    kept = {name: value.clone() for name, value in whole.tensors().items()}
    assert m.text is not None
    words = {name: value.clone() for name, value in m.text.state_dict().items()}
    expected = taught(m, whole, 3)
    again, resumed = model(), CaptionLoss(16, (1, 8, 8), seed=9)
    resumed.begin(again, 16, torch.device("cpu"))
    resumed.restore(kept)
    assert again.text is not None
    again.text.load_state_dict(words)
    assert taught(again, resumed, 3) == expected


def test_who_has_it_and_who_is_refused(tmp_path: Path) -> None:
    data = prepare(told.bright(tmp_path / "pictures", 24), multiple=4, cache=tmp_path / "cache")
    length = {"steps": 1}
    settings = pixels(data, train=length, text="own")
    assert [c.name for c in settings.companions(settings.card(data))] == ["caption"]
    without = pixels(data, train=length, text="own", caption_loss=0.0)
    assert without.companions(without.card(data)) == ()
    with pytest.raises(SettingsError, match="--text own"):
        pixels(data, train=length, text="none", caption_loss=1.0)
    with pytest.raises(SettingsError, match="share of 0 or more"):
        pixels(data, train=length, text="own", caption_loss=-1.0)
    with pytest.raises(SettingsError, match="it has none"):
        CaptionLoss(16, (1, 8, 8)).begin(Model(torch.nn.Linear(1, 1), Cosine(), V()), 1, torch.device("cpu"))
