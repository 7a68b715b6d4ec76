"""Frozen text encoders: small random models that transformers itself wrote, asked by us and by itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato import noise
from sfumato.conditions.frozen import FrozenText
from sfumato.conditions.tokens import train_tokenizer
from sfumato.errors import ModelFileError, SettingsError

transformers: Any = pytest.importorskip("transformers")

TEXTS = ["red heart", "", "a blue car, red"]
SMALL = {"vocab_size": 10, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32}


def words(padding: bool) -> Any:
    """A tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    listed = ["[UNK]", "[PAD]", "red", "heart", "a", "</s>", "blue", "car"]
    engine = Tokenizer(models.WordLevel({word: i for i, word in enumerate(listed)}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "[UNK]", "eos_token": "</s>"} | ({"pad_token": "[PAD]"} if padding else {})
    return transformers.PreTrainedTokenizerFast(tokenizer_object=engine, **special)


def clip_config(vocabulary: int) -> Any:
    text = {"vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 16, "eos_token_id": vocabulary - 1}
    text |= {"bos_token_id": vocabulary - 2, "pad_token_id": vocabulary - 1}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 8}
    return transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("frozen")
    own = train_tokenizer(["red heart", "a blue car"] * 3, 600, 16)
    own.save(root / "own")
    clip_words = transformers.CLIPTokenizer.from_pretrained(str(root / "own"))
    t5 = transformers.T5Config(vocab_size=10, d_model=32, d_kv=16, d_ff=32, num_layers=2, num_heads=2)
    gpt = transformers.GPT2Config(
        vocab_size=10, n_embd=32, n_layer=2, n_head=2, n_positions=20, bos_token_id=5, eos_token_id=5
    )
    vit = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    bert = transformers.BertConfig(**SMALL, intermediate_size=64)
    with noise.seeded("frozen"):
        made = {
            "clip": (transformers.CLIPModel(clip_config(len(own))), clip_words),
            "bert": (transformers.BertModel(bert), words(True)),
            "bert, with a head": (transformers.BertForMaskedLM(bert), words(True)),
            "t5": (transformers.T5ForConditionalGeneration(t5), words(True)),
            "gpt": (transformers.GPT2LMHeadModel(gpt), words(False)),
            "vit": (transformers.ViTModel(vit), words(True)),
        }
    for name, (model, tokenizer) in made.items():
        model.save_pretrained(str(root / name))
        tokenizer.save_pretrained(str(root / name))
    clip = made["clip"][0]
    clip.text_model.save_pretrained(str(root / "diffusers" / "text_encoder"))
    clip_words.save_pretrained(str(root / "diffusers" / "tokenizer"))
    return {path.name: path for path in root.iterdir()}


def by_itself(folder: Path, text: str, family: str) -> tuple[Tensor, Tensor]:
    """One caption without any padding through transformers alone: its states (n, D), pooled (D,)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    kinds = {"clip": "CLIPTextModel", "t5": "T5EncoderModel", "bert": "BertModel", "gpt": "GPT2Model"}
    model = getattr(transformers, kinds[family]).from_pretrained(str(folder)).eval()
    with torch.no_grad():
        out = model(**tokenizer([text], return_tensors="pt"))
    states = out.last_hidden_state[0]
    pooled = {"clip": out.get("pooler_output", [None])[0], "gpt": states[-1]}
    return states, pooled.get(family, states.mean(0))


@pytest.mark.parametrize("family", ["clip", "bert", "t5", "gpt"])
def test_states_are_those_that_transformers_gives_without_padding(
    family: str, folders: dict[str, Path]
) -> None:
    frozen, pooled = FrozenText(folders[family]), FrozenText(folders[family], pooled=True)
    assert (frozen.width, pooled.length) == (32, 1)
    assert frozen.length == {"clip": 16, "gpt": 20}.get(family, 77)
    states, one = frozen.states(TEXTS), pooled.states(TEXTS)
    assert states.shape == (3, frozen.length, 32)
    assert states.dtype == torch.float32
    for row in (0, 2):
        wanted, whole = by_itself(folders[family], TEXTS[row], family)
        torch.testing.assert_close(states[row, : len(wanted)], wanted, rtol=0, atol=2e-6)
        assert not states[row, len(wanted) :].any()
        torch.testing.assert_close(one[row, 0], whole, rtol=0, atol=2e-6)
    assert states[1].isfinite().all()  # of the empty caption at least one state
    assert states[1].any()
    assert one[1].any()


@pytest.mark.parametrize("family", ["clip", "bert", "t5", "gpt"])
def test_a_caption_alone_is_a_caption_among_others(family: str, folders: dict[str, Path]) -> None:
    frozen = FrozenText(folders[family], length=8)
    many = frozen.states(TEXTS * 30)
    assert many.shape == (90, 8, 32)
    torch.testing.assert_close(many[61], frozen.states(TEXTS[1:2])[0], rtol=0, atol=1e-6)
    assert frozen.states([]).shape == (0, 8, 32)


def test_a_diffusers_folder_and_another_head_open_as_well(folders: dict[str, Path]) -> None:
    whole, part = FrozenText(folders["clip"]), FrozenText(folders["diffusers"])
    assert torch.equal(whole.states(TEXTS), part.states(TEXTS))
    assert FrozenText(folders["bert, with a head"]).states(TEXTS).any()


def test_the_fingerprint_follows_the_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    assert FrozenText(folders["bert"]).fingerprint == FrozenText(folders["bert"], pooled=True).fingerprint
    assert FrozenText(folders["bert"]).fingerprint != FrozenText(folders["bert, with a head"]).fingerprint
    for path in folders["bert"].iterdir():  # the same in two folders, as in a run's
        part = "text_encoder" if path.name in ("config.json", "model.safetensors") else "tokenizer"
        (tmp_path / part).mkdir(exist_ok=True)
        (tmp_path / part / path.name).write_bytes(path.read_bytes())
    assert FrozenText(tmp_path).fingerprint == FrozenText(folders["bert"]).fingerprint


def test_what_is_no_text_encoder_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="'vit' is no text encoder"):
        FrozenText(folders["vit"])
    with pytest.raises(ModelFileError, match="no such folder"):
        FrozenText(tmp_path / "none")
    with pytest.raises(ModelFileError, match="no safetensors"):
        FrozenText(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ModelFileError, match=r"a pickle .* never opened"):
        FrozenText(tmp_path)


def test_weights_that_are_missing_are_not_made_up(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in folders["bert"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelFileError, match=r"weights lack 'encoder\.layer\.1\.output\.dense\.weight'"):
        FrozenText(tmp_path)


def test_code_in_the_folder_is_not_run(folders: dict[str, Path], tmp_path: Path) -> None:
    import json

    for path in folders["bert"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    said = json.loads((tmp_path / "config.json").read_text())
    said |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(said))
    (tmp_path / "mine.py").write_text("raise SystemExit('run')")
    with pytest.raises(ModelFileError, match="transformers cannot open it"):
        FrozenText(tmp_path)


def test_without_transformers_one_sentence_says_what_to_install(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SettingsError, match=r"pip install -c constraints.txt '.\[hf\]'"):
        FrozenText(folders["bert"])
