"""The networks against diffusers' own, with every weight random: the same numbers, both ways."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sfumato import noise
from sfumato.errors import SettingsError
from sfumato.interop.diffusers import config_from_diffusers, config_to_diffusers, why_not_diffusers
from sfumato.networks import SIZES, Config, DiTConfig, UNet, UNetConfig, build, preset

SMALL = UNetConfig(channels=(32, 64), layers=1, groups=8, head_channels=8, attention=("none", "self"))
CROSS = replace(SMALL, attention=("cross", "none"), middle="cross", heads=4, context_dim=24)
DIT = DiTConfig(image_size=8, heads=2, head_channels=16, layers=2, classes=10)

CONFIGS: dict[str, Config] = {
    "ddpm": UNetConfig(
        channels=(32, 32, 64),
        attention=("none", "self", "none"),
        head_channels=None,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    ),
    "diffusers' defaults": UNetConfig(
        channels=(32, 64, 64, 96), attention=("none", "self", "self", "self"), head_channels=8
    ),
    "scale_shift": replace(SMALL, conditioning="scale_shift"),
    "scale_shift, middle not normalised": replace(SMALL, conditioning="scale_shift", middle_norm=False),
    "resnet": replace(SMALL, resampling="resnet", channels=(32, 64, 64), attention=("self", "none", "self")),
    "resnet, scale_shift": replace(SMALL, resampling="resnet", conditioning="scale_shift", layers=2),
    "no attention": replace(SMALL, attention=(), middle="none"),
    "wide heads": replace(SMALL, head_channels=32, attention=("self", "self")),
    "classes": replace(SMALL, classes=10),
    "null class": replace(SMALL, classes=10, null_class=True),
    "padding 0": replace(SMALL, downsample_padding=0),
    "grey": replace(SMALL, in_channels=1, out_channels=1),
    "learned variance": replace(SMALL, out_channels=6, time_channels=48),
    "one resolution": replace(SMALL, channels=(32,), attention=("self",)),
    "caption": CROSS,
    "caption, linear": replace(
        CROSS, linear_projection=True, channels=(32, 64, 64), attention=("cross", "cross", "none")
    ),
    "caption, deep": replace(
        CROSS, heads=(2, 4), layers=(1, 2), transformer_layers=(2, 1), attention=("cross", "cross")
    ),
    "caption, classes": replace(CROSS, classes=5, conditioning="scale_shift"),
    "caption, attributes": replace(CROSS, vector=6),
    "caption as a whole": replace(CROSS, context_heads=4),
    "caption as a whole, class": replace(CROSS, context_heads=2, classes=5, null_class=True),
    "dit": DIT,
    "dit, learned variance": replace(DIT, out_channels=6, patch=4),
    "dit, no classes": replace(DIT, classes=None, in_channels=4, out_channels=4, heads=4),
    "dit, no bias": replace(DIT, attention_bias=False, head_channels=24),
}
SIZES_TO_TRY = {"ddpm": (16, 24), "grey": (12, 20), "caption": (8, 16)}
BIGGER_GRID = {"dit": (16, 16)}


def theirs_of(config: Config) -> nn.Module:
    import diffusers

    values = config_to_diffusers(config)
    assert values is not None
    kind = getattr(diffusers, values["_class_name"])
    network = kind.from_config(values)
    saved = {k: v for k, v in network.config.items() if not k.startswith("_")}
    listed = {k: list(v) if isinstance(v, tuple) else v for k, v in saved.items()}
    assert {k: v for k, v in values.items() if not k.startswith("_")} == listed
    return network.eval()


def randomise(network: nn.Module, *key: object) -> None:
    """Every weight, also those that start at zero or one; of a size that keeps the activations near one."""
    for name, weight in network.named_parameters():
        draw = noise.Noise.of(*key, name, places=[0]).normal(tuple(weight.shape))[0]
        with torch.no_grad():
            weight.copy_(draw / max(1, weight[0].numel()) ** 0.5 if weight.ndim > 1 else 0.5 + 0.2 * draw)


def inputs(config: Config, size: tuple[int, int]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    x = noise.Noise((1, 2, 3)).normal((config.in_channels, *size))
    given: dict[str, Tensor] = {}
    if config.classes is not None:
        last = config.classes if isinstance(config, DiTConfig) or config.null_class else config.classes - 1
        given["classes"] = torch.tensor([0, 3, last])
    if isinstance(config, UNetConfig) and config.vector is not None:
        given["vector"] = noise.Noise((7, 8, 9)).normal((config.vector,))
    if isinstance(config, UNetConfig) and config.middle == "cross":
        assert config.context_dim is not None
        given["context"] = noise.Noise((4, 5, 6)).normal((7, config.context_dim))
    return x, torch.tensor([0.0, 17.0, 999.0]), given


def ask(theirs: nn.Module, config: Config, x: Tensor, t: Tensor, given: dict[str, Tensor]) -> Tensor:
    classes = given.get("classes", given.get("vector"))
    if isinstance(config, DiTConfig) and classes is None:
        classes = torch.zeros(len(x), dtype=torch.int64)
    if "context" in given:
        return theirs(x, t, given["context"], class_labels=classes).sample
    return theirs(x, t, class_labels=classes).sample


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_numbers_and_weights_both_ways(name: str) -> None:
    config = CONFIGS[name]
    theirs, ours = theirs_of(config), build(config).eval()
    size = SIZES_TO_TRY.get(name, BIGGER_GRID.get(name, (8, 8)))
    x, t, given = inputs(config, size)
    for source, target in ((theirs, ours), (ours, theirs)):
        randomise(source, "weights", source is ours)
        target.load_state_dict(source.state_dict(), strict=True)
        with torch.no_grad():
            expected, found = ask(theirs, config, x, t, given), ours(x, t, **given)
        assert found.shape == expected.shape
        assert 0.05 < float(expected.std()) < 50
        assert float((found - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("name", ["resnet, scale_shift", "caption", "dit"])
def test_the_same_gradients(name: str) -> None:
    config = CONFIGS[name]
    theirs, ours = theirs_of(config), build(config).eval()
    randomise(theirs, "gradients")
    ours.load_state_dict(theirs.state_dict())
    x, t, given = inputs(config, (8, 8))
    ask(theirs, config, x, t, given).square().mean().backward()
    ours(x, t, **given).square().mean().backward()
    found = dict(ours.named_parameters())
    for key, weight in theirs.named_parameters():
        assert weight.grad is not None
        gradient = found[key].grad
        if gradient is None:  # a layer of DiT that diffusers keeps and never uses
            raise AssertionError(key)
        torch.testing.assert_close(
            gradient, weight.grad, rtol=1e-3, atol=1e-5 * (1 + float(weight.grad.abs().max()))
        )


@pytest.mark.parametrize("name", CONFIGS)
def test_settings_there_and_back(name: str) -> None:
    config = CONFIGS[name]
    values = config_to_diffusers(config)
    assert values is not None
    back = config_from_diffusers(values)
    assert config_to_diffusers(back) == values
    with torch.device("meta"):
        a, b = build(config).state_dict(), build(back).state_dict()
    assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}


@pytest.mark.parametrize("size", SIZES)
def test_presets_open_in_diffusers(size: str) -> None:
    config = preset(size, channels=1, image_size=(28, 28), classes=10)
    values = config_to_diffusers(config)
    assert values is not None
    assert values["_class_name"] == "UNet2DModel"
    assert values["num_class_embeds"] == 11


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (replace(SMALL, dims=1), "dimensions"),
        (replace(DIT, dims=3), "dimensions"),
        (replace(SMALL, skips=False), "skip"),
        (replace(SMALL, classes=3, class_input="concat"), "class"),
        (replace(CROSS, middle="self"), "middle"),
        (replace(SMALL, vector=6), "attributes"),
        (replace(CROSS, vector=6, classes=5), "both"),
        (replace(CROSS, resampling="resnet"), "convolution"),
        (replace(SMALL, layers=(1, 2)), "layers"),
        (replace(SMALL, heads=2, attention=("self", "self")), "width"),
        (replace(SMALL, middle_norm=False), "normalises"),
    ],
)
def test_what_diffusers_cannot_express_has_a_reason(config: Config, word: str) -> None:
    assert config_to_diffusers(config) is None
    assert word in str(why_not_diffusers(config))


UNET = {
    "_class_name": "UNet2DModel",
    **{k: v for k, v in (config_to_diffusers(SMALL) or {}).items() if k[0] != "_"},
}
CONDITION = {**(config_to_diffusers(CROSS) or {})}
TRANSFORMER = {**(config_to_diffusers(DIT) or {})}


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"_class_name": "UNet3DConditionModel"}, "_class_name"),
        ({}, "_class_name"),
        ({**UNET, "colour": 3}, "colour"),
        ({**UNET, "act_fn": "gelu"}, "act_fn"),
        ({**UNET, "time_embedding_type": "fourier"}, "time_embedding_type"),
        ({**UNET, "center_input_sample": True}, "center_input_sample"),
        ({**UNET, "class_embed_type": "timestep"}, "class_embed_type"),
        ({**UNET, "mid_block_type": None}, "mid_block_type"),
        ({**UNET, "mid_block_scale_factor": 2}, "mid_block_scale_factor"),
        ({**UNET, "resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift"),
        ({**UNET, "down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "down_block_types"),
        ({**UNET, "up_block_types": ["UpBlock2D", "UpBlock2D"]}, "up_block_types"),
        ({**UNET, "downsample_type": 5, "down_block_types": ["AttnDownBlock2D"] * 2}, "up_block_types"),
        ({**UNET, "layers_per_block": 10**9}, "layers"),
        ({**UNET, "layers_per_block": "many"}, "layers_per_block"),
        ({**UNET, "norm_num_groups": None}, "norm_num_groups"),
        ({**UNET, "block_out_channels": [16384, 16384]}, "block_out_channels"),
        ({**UNET, "block_out_channels": [32] * 10**6}, "block_out_channels"),
        ({**UNET, "num_class_embeds": 10**12}, "classes"),
        ({**UNET, "attention_head_dim": 7}, "head_channels"),
        ({**UNET, "attn_norm_num_groups": 4}, "attn_norm_num_groups"),
        ({**UNET, "dropout": float("nan")}, "dropout"),
        ({**CONDITION, "addition_embed_type": "text_time"}, "addition_embed_type"),
        ({**CONDITION, "class_embed_type": "simple_projection"}, "class_embed_type"),
        ({**CONDITION, "class_embed_type": "projection", "num_class_embeds": 3}, "class_embed_type"),
        ({**CONDITION, "class_embed_type": "projection"}, "projection_class_embeddings_input_dim"),
        ({**CONDITION, "only_cross_attention": True}, "only_cross_attention"),
        ({**CONDITION, "conv_in_kernel": 5}, "conv_in_kernel"),
        ({**CONDITION, "transformer_layers_per_block": 10**9}, "transformer_layers"),
        ({**CONDITION, "cross_attention_dim": [8, 8]}, "cross_attention_dim"),
        ({**TRANSFORMER, "num_layers": 10**9}, "layers"),
        ({**TRANSFORMER, "norm_type": "ada_norm"}, "norm_type"),
        ({**TRANSFORMER, "activation_fn": "geglu"}, "activation_fn"),
        ({**TRANSFORMER, "num_attention_heads": 1000, "attention_head_dim": 4096}, "width"),
        (
            {**TRANSFORMER, "num_attention_heads": 512, "attention_head_dim": 128, "num_layers": 1000},
            "parameters",
        ),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused_by_name(values: dict[str, object], key: str) -> None:
    with pytest.raises(SettingsError, match=key) as refusal:
        config_from_diffusers(values)
    assert len(str(refusal.value)) < 300


def test_names_of_training_scripts_are_passed_over() -> None:
    extra = {
        "decay": 0.9999,
        "inv_gamma": 1.0,
        "_diffusers_version": "0.1",
        "_name_or_path": "x",
        "act_fn": "swish",
    }
    assert config_from_diffusers({**UNET, **extra}) == config_from_diffusers(UNET)


def test_weights_stay_in_the_layout_of_our_convolutions_after_loading() -> None:
    ours = UNet(SMALL)
    ours.load_state_dict(theirs_of(SMALL).state_dict())
    assert ours.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
