"""A run that reads captions by a pretrained encoder: its folder holds a copy and needs nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from corpora import told
from sfumato import noise
from sfumato.conditions.frozen import FrozenText
from sfumato.conditions.remembered import Remembered
from sfumato.conditions.tokens import train_tokenizer
from sfumato.data.prepare import prepare
from sfumato.errors import RunError
from sfumato.runs import load
from sfumato.training.recipes import pixels
from sfumato.training.run import train_run
from sfumato.training.settings import Habits

pytestmark = pytest.mark.slow

transformers: Any = pytest.importorskip("transformers")


def encoder(folder: Path) -> Path:
    """A small random CLIP text model with its tokenizer, as transformers writes them."""
    own = train_tokenizer(["dark on the left", "dark on the right"] * 3, 600, 16)
    own.save(folder / "own")
    config = transformers.CLIPTextConfig(
        vocab_size=len(own),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        eos_token_id=len(own) - 1,
        bos_token_id=len(own) - 2,
        pad_token_id=len(own) - 1,
    )
    with noise.seeded("frozen"):
        transformers.CLIPTextModel(config).save_pretrained(str(folder / "clip"))
    transformers.CLIPTokenizer.from_pretrained(str(folder / "own")).save_pretrained(str(folder / "clip"))
    return folder / "clip"


@pytest.mark.parametrize("pooled", [False, True])
def test_the_folder_is_the_model(tmp_path: Path, pooled: bool) -> None:
    source = encoder(tmp_path)
    data = prepare(told.bright(tmp_path / "pictures", 24), multiple=4, hold_out=0.1, cache=tmp_path / "cache")
    out, habits = tmp_path / "run", Habits("cpu", 0)
    train = {"steps": 4, "batch": 8, "validate": 0, "patience": 0}
    said = pixels(data, text=str(source), pooled=pooled, train=train)

    def losses(stop_after: int = 9) -> list[str]:
        found: list[str] = []
        stop = lambda: len(found) >= stop_after
        for step in train_run(data, said, out, habits=habits, stop=stop, sample_share=0.0):
            found.append(step.loss.hex())
        return found

    texts = ["dark on the left", ""]
    wanted = FrozenText(source, pooled).states(texts)
    assert len(losses(2)) == 2
    shutil.move(source, tmp_path / "gone")
    assert len(losses()) == 2  # it goes on without the folder that it was begun with
    run = load(out, "cpu")
    assert isinstance(run.text, FrozenText)
    assert torch.equal(run.text.states(texts), wanted)
    assert wanted.shape == (2, 1 if pooled else 16, 16)
    assert run.sample(2, prompt=texts, guidance=2, steps=2).shape == (2, 1, 8, 8)
    assert not any(name.startswith("text.") for name in run.model.weights())  # frozen: no part of the model
    config = out / "text_encoder" / "config.json"
    config.write_text(config.read_text().replace("quick_gelu", "gelu"))
    with pytest.raises(RunError, match="not the text encoder"):
        load(out, "cpu")


def test_what_was_said_is_remembered() -> None:
    calls: list[list[str]] = []

    class Counted:
        def states(self, texts: list[str]) -> torch.Tensor:
            calls.append(list(texts))
            return torch.tensor([[[float(len(text))]] for text in texts])

    kept = Remembered(Counted(), room=8)  # two numbers
    assert kept.states(["a", "bb", "a"]).flatten().tolist() == [1, 2, 1]
    assert kept.states(["bb", "ccc"]).flatten().tolist() == [2, 3]
    assert kept.states(["ccc", "a"]).flatten().tolist() == [3, 1]
    assert calls == [["a", "bb"], ["ccc"], ["ccc"]]  # what has no room is asked again
