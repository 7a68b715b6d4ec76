"""A small CLIP: its loss against sums written out, its training, its folder; CLIP guidance by ours and by
transformers' CLIPModel."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato import noise
from sfumato.cli import run as command
from sfumato.conditions.clip import FrozenClip, SmallClip, on_white, open_clip, save_clip
from sfumato.data.dataset import DataSet
from sfumato.data.prepare import prepare
from sfumato.denoiser import Exact
from sfumato.errors import DataError, ModelFileError, RunError, SettingsError
from sfumato.files import read_tensors, write_tensors
from sfumato.guidance.clip import LogClip, clip_guided, clip_log_prob, cutout
from sfumato.level import Level
from sfumato.noise import Noise
from sfumato.predictions import Estimate
from sfumato.training.clip import ClipSettings, ClipTraining, Recall, captioned, contrastive

pytestmark = pytest.mark.slow

COLOURS = ("red", "green", "blue", "white")
SETTINGS = ClipSettings(steps=25, batch=32, vocabulary=540, warmup=5, noisy=0.5)


def squares(path: Path, count: int = 160, captions: bool = True) -> Path:
    """Squares of four colours on dark noise, with captions that say so."""
    which = np.arange(count) * 7 % 4
    shown = (Noise((1,)).uniform((count, 16, 16, 3), "squares")[0] * 60).byte().numpy()
    for i, colour in enumerate(which):
        shown[i, 4:12, 4:12] = 255 if colour == 3 else np.eye(3)[colour] * 255
    texts = {"captions": np.array([f"a {COLOURS[c]} square" for c in which])} if captions else {}
    np.savez(path, images=shown, **texts)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    root = tmp_path_factory.mktemp("squares")
    return prepare(squares(root / "squares.npz"), cache=root / "cache", hold_out=0.2)


@pytest.fixture(scope="module")
def pair(data: DataSet) -> SmallClip:
    training = ClipTraining(data, SETTINGS, device="cpu", workers=0)
    assert len(list(training.steps())) == 25
    return training.pair()


def test_the_loss_is_the_sums_of_the_papers() -> None:
    """Two ways, and with equal captions sharing what is right (rows 0 and 2)."""
    logits = Noise((2,)).normal((4, 4), "logits")[0].double()
    captions = ["a", "b", "a", "c"]
    same = torch.tensor([[float(x == y) for y in captions] for x in captions], dtype=torch.float64)
    total = 0.0
    for table in (logits.tolist(), logits.T.tolist()):
        for i, row in enumerate(table):
            rights = [j for j in range(4) if captions[j] == captions[i]]
            log_all = math.log(sum(math.exp(v) for v in row))
            total += sum(log_all - row[j] for j in rights) / len(rights) / 4
    assert float(contrastive(logits, same)) == pytest.approx(total / 2, rel=1e-12)
    blind = contrastive(torch.zeros(4, 4), torch.eye(4))
    assert float(blind) == pytest.approx(math.log(4), rel=1e-6)


def test_it_learns_what_captions_say(pair: SmallClip, data: DataSet) -> None:
    """Of pictures that it never saw nearly all find their caption; by chance a quarter would."""
    said = pair.about["recall"]
    assert said["captions"] == 4
    assert said["first"] > 0.9
    held = data.held_out()
    noisy = 0.8 * (0.8 * held.images + 0.6 * Noise.of(0, places=range(len(held))).normal((3, 16, 16)))
    label = torch.full((len(held),), 1000 * math.atan2(0.6, 0.8) / (math.pi / 2))
    texts = [f"a {colour} square" for colour in COLOURS]
    nearest = (pair.see(noisy, label) @ pair.read(texts).T).argmax(1).tolist()
    right = [texts[n] == caption for n, caption in zip(nearest, held.captions or (), strict=True)]
    assert sum(right) > 0.8 * len(right)


def test_recall_counts_captions_that_are_nearer(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    training = ClipTraining(data, SETTINGS, device="cpu", workers=0)
    held = [(data.captions or ())[row][0] for row in data.held.tolist()]
    different = list(dict.fromkeys(held))
    places = torch.eye(4)
    seen = torch.stack([places[(different.index(text) + 1) % 4] for text in held]) * 0.9
    seen[0] = places[different.index(held[0])]
    monkeypatch.setattr(training.network, "see", lambda pictures: seen[: len(pictures)])
    monkeypatch.setattr(training.network, "read", lambda tokens: places[: len(tokens)])
    assert training.recall() == Recall(1 / len(held), 1.0, len(held), 4)


def test_equal_settings_give_equal_pairs_whatever_reads_ahead(data: DataSet) -> None:
    settings = ClipSettings(steps=3, batch=8, vocabulary=520, warmup=1)
    states = []
    for workers in (0, 2):
        training = ClipTraining(data, settings, device="cpu", workers=workers)
        losses = [step.loss for step in training.steps()]
        states.append((losses, training.network.state_dict()))
    assert states[0][0] == states[1][0]
    assert all(torch.equal(tensor, states[1][1][name]) for name, tensor in states[0][1].items())


def test_the_folder_opens_with_its_path(pair: SmallClip, tmp_path: Path) -> None:
    save_clip(tmp_path / "pair", pair)
    again = open_clip(tmp_path / "pair")
    assert isinstance(again, SmallClip)
    pictures = Noise((0, 1)).normal((3, 16, 16), "pictures")
    assert torch.equal(again.see(pictures), pair.see(pictures))
    assert torch.equal(again.read(["a red square"]), pair.read(["a red square"]))
    assert again.recalled == pair.recalled
    assert re.search(r"nearest to their own caption among 4 \(chance 25\.0%\)", again.recalled)
    assert not any(p.requires_grad for p in again.network.parameters())
    with pytest.raises(RunError, match="is there already"):
        save_clip(tmp_path / "pair", pair)


def _card(folder: Path, **changes: object) -> None:
    said = json.loads((folder / "clip.json").read_text("utf-8"))
    (folder / "clip.json").write_text(json.dumps({**said, **changes}))


def _nan(folder: Path) -> None:
    tensors, _ = read_tensors(folder / "model.safetensors")
    bad = {name: torch.full_like(tensor, math.nan) for name, tensor in tensors.items()}
    write_tensors(folder / "model.safetensors", bad)


DAMAGE = {
    "no numbers": _nan,
    "no card": lambda f: (f / "clip.json").unlink(),
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "no tokenizer": lambda f: (f / "tokenizer" / "vocab.json").unlink(),
    "another version": lambda f: _card(f, format=2),
    "no tower": lambda f: _card(f, image=None),
    "a strange tower": lambda f: _card(f, image={"wings": 2}),
    "another tower": lambda f: _card(f, image={"outputs": 7, "channels": [32]}),
    "another vocabulary": lambda f: _card(f, text={"vocab_size": 9, "eos_token_id": 8}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused_in_one_sentence(damage: str, pair: SmallClip, tmp_path: Path) -> None:
    save_clip(tmp_path / "pair", pair)
    DAMAGE[damage](tmp_path / "pair")
    with pytest.raises(ModelFileError) as caught:
        open_clip(tmp_path / "pair")
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Linear:
    """A pair that sees the first pixel alone: captions are numbers."""

    noisy: bool = True
    factor: float = 2.0

    def see(self, pictures: Tensor, label: Tensor | None = None) -> Tensor:
        return pictures.flatten(1)[:, :2]

    def read(self, texts: Any) -> Tensor:
        return torch.tensor([[float(text or "9"), 1.0] for text in texts])


def test_guidance_by_a_pair_is_the_tilted_gaussian() -> None:
    """Data N(0, 1) and log p(caption | x0) = a x0 + const: the conditional is N(a, 1), whose posterior mean
    is that of N(0, 1) plus a sigma^2 / r^2; both by x0 and, for what is linear in x, by the noisy x."""
    level = Level.of(0.6, 0.8)
    r2 = 0.6**2 + 0.8**2
    exact = Exact(lambda x, at: at.alpha * x / (at.alpha**2 + at.sigma**2))
    x = Noise((1, 2, 3)).normal((2, 1, 1), "x").double()
    texts = ["0.5", "-1", ""]
    steered = clip_guided(exact, Linear(), texts, 1.0, through=True)(x, level)
    tilt = torch.tensor([[2 * 0.5, 2.0], [-2.0, 2.0], [0.0, 0.0]], dtype=torch.float64)[..., None, None]
    wanted = 0.6 * x / r2 + tilt * 0.8**2 / r2
    torch.testing.assert_close(steered.x0, wanted, rtol=0, atol=1e-12)
    beside = clip_guided(exact, Linear(), texts, 1.0)  # on the noisy x, which Linear says it knows
    torch.testing.assert_close(beside(x, level).x0, wanted, rtol=0, atol=1e-12)
    part = beside.take([1])(x[1:2], level)
    assert torch.equal(part.x0, beside(x, level).x0[1:2])


def test_a_trained_pair_pulls_towards_its_caption(pair: SmallClip) -> None:
    """Steered, the guess itself moves up the pair's own log-probability, at every level and both ways."""
    x = Noise((4, 5)).normal((3, 16, 16), "x")
    plain = Exact(lambda x, level: level.alpha * x / (level.alpha**2 + level.sigma**2))
    texts = ["a red square", "a blue square"]
    judge = clip_log_prob(pair, texts, through=True)
    for sigma in (0.2, 0.6, 0.95):
        level = Level.of(math.sqrt(1 - sigma**2), sigma)
        before = judge(plain(x, level))
        for options in ({"through": True}, {"through": False}, {"cutouts": 2}):
            after = judge(clip_guided(plain, pair, texts, 0.5, **options)(x, level))
            if options.get("through") is not False:
                assert bool((after > before).all())
            assert bool((after != before).all())
    assert not clip_log_prob(pair, texts).through
    assert clip_log_prob(pair, texts, cutouts=2).through


def test_a_gradient_that_is_right(pair: SmallClip) -> None:
    """The slope along a line by differences, crops included."""
    texts = ["a green square"]
    level = Level.of(0.8, 0.6)
    x = Noise((6,)).normal((3, 16, 16), "x")
    way = torch.nn.functional.normalize(Noise((7,)).normal((3, 16, 16), "way"), dim=(1, 2, 3))
    wish = clip_log_prob(pair, texts, cutouts=3)
    at = lambda shift: wish(Estimate.of(x, level, x0=x + shift * way))
    shift = torch.zeros((), requires_grad=True)
    (slope,) = torch.autograd.grad(at(shift).sum(), shift)
    differences = float(at(0.02) - at(-0.02)) / 0.04
    assert float(slope) == pytest.approx(differences, rel=0.03, abs=0.01)


def test_crops_are_parts_of_the_picture_at_its_size() -> None:
    """A picture that is linear in its place stays linear in a crop, less steep by the crop's side."""
    ramp = torch.linspace(-1, 1, 64).expand(1, 1, 64, 64)
    sides = []
    for number in range(6):
        crop = cutout(ramp, number)
        assert crop.shape == ramp.shape
        inner = crop[0, 0, 32, 8:-8].diff()
        torch.testing.assert_close(inner, inner.mean().expand_as(inner), rtol=0.05, atol=1e-4)
        sides.append(float(inner.mean() * 63 / 2))
    assert min(sides) > 0.48
    assert max(sides) < 0.92
    assert len({round(side, 2) for side in sides}) > 3


def test_mistakes_are_told_in_a_sentence(pair: SmallClip) -> None:
    with pytest.raises(SettingsError, match="3 channels, not 1"):
        pair.see(torch.zeros(1, 1, 16, 16))
    with pytest.raises(SettingsError, match="noisy pictures of 16 x 16 alone, not of 32 x 24"):
        pair.see(torch.zeros(1, 3, 24, 32), torch.ones(1))
    assert pair.see(torch.zeros(1, 3, 24, 32)).shape == (1, 128)
    with pytest.raises(SettingsError, match="clean pictures alone"):
        clip_log_prob(Linear(noisy=False), ["1"], through=False)
    with pytest.raises(SettingsError, match="cutouts"):
        clip_log_prob(pair, ["a"], cutouts=-1)
    with pytest.raises(SettingsError, match="at least 2"):
        ClipSettings(steps=1, batch=1)
    with pytest.raises(SettingsError, match="from 0 to 1"):
        ClipSettings(steps=1, noisy=1.5)


def test_pictures_without_captions_are_left_out_and_too_few_refused(data: DataSet, tmp_path: Path) -> None:
    from dataclasses import replace

    some = replace(data, captions=tuple(c if i % 2 else () for i, c in enumerate(data.captions or ())))
    kept = captioned(some)
    assert all(row % 2 for row in [*kept.train.tolist(), *kept.held.tolist()])
    few = replace(data, captions=tuple(c if i < 9 else () for i, c in enumerate(data.captions or ())))
    with pytest.raises(DataError, match="at least 16"):
        captioned(few)
    squares(tmp_path / "bare.npz", 20, captions=False)
    with pytest.raises(DataError, match="no captions"):
        captioned(prepare(tmp_path / "bare.npz", cache=tmp_path / "cache"))


def test_the_command_trains_and_refuses_a_taken_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train-clip", str(squares(tmp_path / "s.npz", 60)), "--out", str(tmp_path / "pair")]
    words += ["--steps", "2", "--batch", "8", "--vocabulary", "520", "--cache", str(tmp_path / "cache")]
    words += ["--hold-out", "0.3", "--device", "cpu"]
    assert command(words) == 0
    assert "held-out pictures" in capsys.readouterr().out
    assert isinstance(open_clip(tmp_path / "pair"), SmallClip)
    assert command(words) == 1
    assert "is there already" in capsys.readouterr().err


@pytest.fixture(scope="module")
def pretrained(pair: SmallClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIPModel of transformers, with random weights."""
    transformers: Any = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("pretrained")
    pair.tokenizer.save(folder)
    n = len(pair.tokenizer)
    text = {"vocab_size": n, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 16, "eos_token_id": n - 1}
    text |= {"bos_token_id": n - 2, "pad_token_id": n - 1}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 4}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    with noise.seeded("clip"):
        transformers.CLIPModel(config).save_pretrained(str(folder))
    return folder


def test_a_pretrained_clip_says_what_transformers_says(pretrained: Path) -> None:
    import transformers

    pair = open_clip(pretrained)
    assert isinstance(pair, FrozenClip)
    model: Any = transformers.CLIPModel.from_pretrained(str(pretrained)).eval()
    tokenizer: Any = transformers.CLIPTokenizer.from_pretrained(str(pretrained))
    shown = (Noise((1,)).uniform((3, 16, 16, 3), "shown")[0] * 256).byte()
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    values = ((shown.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    texts = ["a red square", "white", ""]
    with torch.no_grad():
        out = model(pixel_values=values, **tokenizer(texts, return_tensors="pt", padding=True))
        pictures = shown.permute(0, 3, 1, 2).float() / 127.5 - 1
        ours = pair.factor * pair.see(pictures) @ pair.read(texts).T
    torch.testing.assert_close(ours, out.logits_per_image, rtol=0, atol=1e-4)


def test_a_pretrained_clip_guides_pictures_of_any_size_and_kind(pretrained: Path) -> None:
    pair = open_clip(pretrained)
    plain = Exact(lambda x, level: level.alpha * x / (level.alpha**2 + level.sigma**2))
    level = Level.of(0.8, 0.6)
    for channels in (1, 3, 4):
        x = Noise((1, 2)).normal((channels, 24, 20), "x")
        wish = clip_log_prob(pair, ["red", "white"])
        assert wish.through
        guided = clip_guided(plain, pair, ["red", "white"], 0.1)(x, level)
        assert bool((wish(guided) > wish(plain(x, level))).all())
    assert torch.equal(
        on_white(torch.tensor([0.5, 0.5, 0.5, -1.0])[None, :, None, None]), torch.ones(1, 3, 1, 1)
    )
    with pytest.raises(SettingsError, match="2 channels"):
        pair.see(torch.zeros(1, 2, 16, 16))
    with pytest.raises(SettingsError, match="clean pictures alone"):
        pair.see(torch.zeros(1, 3, 16, 16), torch.ones(1))


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no CLIP here"):
        open_clip(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelFileError, match="no safetensors"):
        open_clip(tmp_path)
    assert isinstance(LogClip(Linear(), torch.zeros(1, 2)).take([0]), LogClip)
