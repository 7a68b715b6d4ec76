"""The text transformer against transformers' CLIPTextModel, with every weight random: the same numbers, both
ways."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sfumato import noise
from sfumato.conditions.encoder import load_encoder, read_text_config, save_encoder
from sfumato.errors import ModelFileError, SettingsError
from sfumato.networks.text import PREFIX, TextConfig, TextTransformer, named

CONFIGS = {
    "small": TextConfig(vocabulary=50, width=32, layers=2, heads=4, hidden=128, length=12, end=49),
    "exact gelu": TextConfig(
        vocabulary=40, width=24, layers=1, heads=2, hidden=40, length=8, end=39, activation="gelu"
    ),
    "deep": TextConfig(
        vocabulary=30, width=16, layers=4, heads=1, hidden=64, length=77, end=29, norm_eps=1e-6
    ),
    "an end before the last": TextConfig(
        vocabulary=50, width=32, layers=2, heads=8, hidden=96, length=10, end=7
    ),
}


def encoder(config: TextConfig) -> TextTransformer:
    """Every parameter random, biases and norms too."""
    with noise.seeded("text"):
        network = TextTransformer(config)
    draws = noise.Noise((5,))
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter += 0.1 * draws.normal(parameter.shape, number)[0]
    return network.eval()


def tokens(config: TextConfig, rows: int = 5) -> Tensor:
    """Random tokens with an end token somewhere, at another place in each row."""
    out = (noise.Noise((3,)).uniform((rows, config.length), "tokens")[0] * config.vocabulary).long()
    out = torch.where(out == config.end, 0, out)
    for row in range(rows):
        out[row, 1 + (3 * row) % (config.length - 1) :] = config.end
    return out


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_says_the_same_from_our_folder(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = CONFIGS[name]
    network, asked = encoder(config), tokens(config)
    save_encoder(tmp_path, config, network.state_dict())
    peer, told = transformers.CLIPTextModel.from_pretrained(str(tmp_path), output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    with torch.no_grad():
        ours, theirs = network(asked), peer.eval()(asked)
    torch.testing.assert_close(ours.states, theirs.last_hidden_state, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.pooled, theirs.pooler_output, rtol=0, atol=1e-5)


@pytest.mark.parametrize("spelling", ["as transformers writes it", "with the prefix"])
def test_we_say_the_same_from_their_folder(spelling: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = CONFIGS["small"]
    theirs = transformers.CLIPTextConfig(**{k: v for k, v in config.to_json().items() if v is not None})
    with noise.seeded("peer"):
        peer = transformers.CLIPTextModel(theirs).eval()
    peer.save_pretrained(str(tmp_path))
    if spelling == "with the prefix":
        from safetensors.torch import load_file, save_file

        plain = load_file(tmp_path / "model.safetensors")
        with_prefix = {PREFIX + name.removeprefix(PREFIX): tensor for name, tensor in plain.items()}
        places = {PREFIX + "embeddings.position_ids": torch.arange(config.length)[None]}  # of old files
        save_file(with_prefix | places, tmp_path / "model.safetensors", {"format": "pt"})
    asked = tokens(config)
    with torch.no_grad():
        torch.testing.assert_close(
            load_encoder(tmp_path)(asked).states, peer(asked).last_hidden_state, rtol=0, atol=1e-5
        )
    assert read_text_config(tmp_path) == config


def test_names_are_written_with_the_prefix(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    config = CONFIGS["small"]
    bare = {name.removeprefix(PREFIX): tensor for name, tensor in encoder(config).state_dict().items()}
    save_encoder(tmp_path, config, bare, {"of": "a run"})
    written = load_file(tmp_path / "model.safetensors")
    assert written.keys() == TextTransformer(config).state_dict().keys() == named(bare).keys()
    assert all(name.startswith(PREFIX) for name in written)


def test_no_token_sees_a_later_one() -> None:
    """What follows the end changes neither the states before it nor the pooled one, to the bit."""
    config = CONFIGS["small"]
    network, asked = encoder(config), tokens(config)
    other = asked.clone()
    ends = (asked == config.end).int().argmax(1)
    for row, end in enumerate(ends.tolist()):
        other[row, end + 1 :] = 3
    with torch.no_grad():
        a, b = network(asked), network(other)
    assert torch.equal(a.pooled, b.pooled)
    for row, end in enumerate(ends.tolist()):
        assert torch.equal(a.states[row, : end + 1], b.states[row, : end + 1])
        assert torch.equal(a.pooled[row], a.states[row, end])
        assert end == config.length - 1 or not torch.equal(a.states[row, end + 1], b.states[row, end + 1])


def test_half_precision_on_disk_is_computed_in_full(tmp_path: Path) -> None:
    config = CONFIGS["small"]
    network = encoder(config)
    save_encoder(tmp_path, config, {name: t.half() for name, t in network.state_dict().items()})
    opened = load_encoder(tmp_path)
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in opened.parameters())
    for name, tensor in opened.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name].half().float())


def test_the_old_end_token_2_means_the_last(tmp_path: Path) -> None:
    said = {**CONFIGS["small"].to_json(), "eos_token_id": 2}
    assert TextConfig.from_json(said).end == 49
    assert TextConfig.from_json({"model_type": "clip", "text_config": said}) == CONFIGS["small"]


def _json(folder: Path, **changes: object) -> None:
    said = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**said, **changes}))


def _tensors(folder: Path, change: object) -> None:
    config = CONFIGS["small"]
    state = dict(encoder(config).state_dict())
    name = PREFIX + "final_layer_norm.weight"
    match change:
        case "missing":
            del state[name]
        case "foreign":
            state["text_model.more"] = torch.zeros(1)
        case "shape":
            state[name] = torch.zeros(3)
        case _:
            state[name] = torch.full((32,), float("nan"))
    from safetensors.torch import save_file

    save_file(state, folder / "model.safetensors")


DAMAGE = {
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "no settings": lambda f: (f / "config.json").unlink(),
    "a list": lambda f: (f / "config.json").write_text("[]"),
    "another kind": lambda f: _json(f, model_type="bert"),
    "another activation": lambda f: _json(f, hidden_act="relu"),
    "heads that do not divide": lambda f: _json(f, num_attention_heads=5),
    "a width of text": lambda f: _json(f, hidden_size="32"),
    "immense": lambda f: _json(f, hidden_size=65536, intermediate_size=1_000_000, num_hidden_layers=1024),
    "a pickle": lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04K\x01."),
    **{kind: lambda f, kind=kind: _tensors(f, kind) for kind in ("missing", "foreign", "shape", "nan")},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused_in_one_sentence(damage: str, tmp_path: Path) -> None:
    config = CONFIGS["small"]
    save_encoder(tmp_path, config, encoder(config).state_dict())
    DAMAGE[damage](tmp_path)
    with pytest.raises(ModelFileError) as caught:
        load_encoder(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_encoders_weights_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not written"):
        save_encoder(tmp_path, replace(CONFIGS["small"], width=64), encoder(CONFIGS["small"]).state_dict())
    assert not (tmp_path / "model.safetensors").exists()


def test_too_many_tokens_are_refused() -> None:
    config = CONFIGS["small"]
    with pytest.raises(SettingsError, match="places for 12"):
        encoder(config)(torch.zeros(1, 13, dtype=torch.int64))
