"""Network settings as diffusers' config.json says them, and back. Weights need no map: names are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato.errors import SettingsError
from sfumato.interop.diffusers_defaults import AVERAGE, CLASSES, READ
from sfumato.interop.foreign import Values, cannot, flag, maybe, names, number, whole, whole_or_each, wholes
from sfumato.networks import Config, DiTConfig, UNetConfig, parameter_count
from sfumato.networks.limits import PARAMETERS

VERSION = "0.35.0"
"""The version of diffusers whose settings are written; later ones read them."""


def why_not_diffusers(config: Config) -> str | None:
    """Why diffusers cannot express a network, in one sentence; None where it can."""
    if config.dims != 2:
        return f"diffusers' networks are for images, and this one has {config.dims} dimensions."
    if isinstance(config, DiTConfig):
        return None
    if not config.skips:
        return "diffusers' U-Nets have skip connections, and this one has none."
    if config.classes is not None and config.class_input != "embedding":
        return "diffusers' U-Nets take a class by embedding, and this one as maps beside its input."
    if config.vector is not None and config.classes is not None:
        return "diffusers' U-Nets take a class or a vector of attributes, and this one takes both."
    kinds = {config.attention_at(level) for level in range(len(config.channels))}
    if "cross" in kinds | {config.middle}:
        if config.middle != "cross" or "self" in kinds:
            return "UNet2DConditionModel attends to the context in its middle and wherever it attends at all."
        if config.resampling != "conv":
            return "UNet2DConditionModel resamples by convolution."
        return None
    if config.vector is not None:
        return "UNet2DModel takes no vector of attributes."
    if len({config.layers_at(level) for level in range(len(config.channels))}) > 1:
        return "UNet2DModel has as many layers at each resolution."
    if len(_head_channels(config)) > 1:
        return "UNet2DModel has heads of one width at every resolution."
    if not config.middle_norm and config.conditioning == "add":
        return "UNet2DModel normalises before the attention in its middle unless conditioning is scale_shift."
    return None


def config_to_diffusers(config: Config) -> dict[str, Any] | None:
    """What config.json of a diffusers folder holds, complete; None where diffusers cannot express it.

    `why_not_diffusers` then says why. A null class is one more row of the embedding there.
    """
    if why_not_diffusers(config) is not None:
        return None
    if isinstance(config, DiTConfig):
        name, values = "DiTTransformer2DModel", _dit_values(config)
    elif config.middle == "cross":
        name, values = "UNet2DConditionModel", _condition_values(config)
    else:
        name, values = "UNet2DModel", _unet_values(config)
    return {"_class_name": name, "_diffusers_version": VERSION, **CLASSES[name], **values}


def config_from_diffusers(values: Values) -> Config:
    """The configuration of the network that a diffusers config.json describes.

    Missing settings have diffusers' defaults. An unknown class or setting, a value that our networks cannot
    honour and an absurd size raise a SettingsError that names the key, before anything is allocated. A null
    class cannot be told from another there: it counts as a class.
    """
    name = values.get("_class_name")
    if not isinstance(name, str) or name not in CLASSES:
        raise SettingsError(f"config.json: _class_name {str(name)[:60]!r} is none of {', '.join(CLASSES)}.")
    defaults, read = CLASSES[name], READ[name]
    for key, value in values.items():
        if key.startswith("_") or key in AVERAGE:
            continue
        if key not in defaults:
            raise SettingsError(f"config.json: {name} has no setting {key[:60]!r}.")
        if key not in read and value != defaults[key] and not _nothing(key, value):
            raise cannot(key, value)
    full = {**defaults, **values}
    if name == "DiTTransformer2DModel":
        config: Config = _dit_config(full)
    elif name == "UNet2DModel":
        config = _unet_config(full)
    else:
        config = _condition_config(full)
    if parameter_count(config) > PARAMETERS:
        raise SettingsError(
            f"config.json: block_out_channels or layers ask for more than {PARAMETERS:.0e} parameters."
        )
    return config


def _nothing(key: str, value: object) -> bool:
    """Other spellings of a default that change nothing."""
    return (key, value) in {("act_fn", "swish"), ("mid_block_only_cross_attention", False)}


def _head_channels(config: UNetConfig) -> set[int | None]:
    """The widths of heads that occur; None is one head as wide as the network."""
    if config.heads is None:
        return {config.head_channels}
    last = len(config.channels) - 1
    levels = [level for level in range(last + 1) if config.attention_at(level) != "none"]
    levels += [last] if config.middle != "none" else []
    return {config.channels[level] // config.heads_at(level) for level in levels} or {8}


def _shared_values(config: UNetConfig) -> dict[str, Any]:
    size = config.image_size
    layers = config.layers
    return {
        "sample_size": None if size is None else size[0] if len(set(size)) == 1 else list(size),
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "time_embedding_dim": config.time_channels,
        "freq_shift": config.freq_shift,
        "flip_sin_to_cos": config.flip_sin_to_cos,
        "block_out_channels": list(config.channels),
        "layers_per_block": list(layers) if isinstance(layers, tuple) else layers,
        "downsample_padding": config.downsample_padding,
        "dropout": config.dropout,
        "norm_num_groups": config.groups,
        "norm_eps": config.norm_eps,
        "resnet_time_scale_shift": "scale_shift" if config.conditioning == "scale_shift" else "default",
        "num_class_embeds": config.class_rows or None,
    }


def _unet_values(config: UNetConfig) -> dict[str, Any]:
    resnet = config.resampling == "resnet"
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if resnet else ("DownBlock2D", "UpBlock2D")
    kinds = [config.attention_at(level) for level in range(len(config.channels))]
    kept = config.groups if config.conditioning == "scale_shift" and config.middle_norm else None
    return {
        **_shared_values(config),
        "layers_per_block": config.layers_at(0),
        "down_block_types": [plain[0] if kind == "none" else "AttnDownBlock2D" for kind in kinds],
        "up_block_types": [plain[1] if kind == "none" else "AttnUpBlock2D" for kind in reversed(kinds)],
        "downsample_type": config.resampling,
        "upsample_type": config.resampling,
        "attention_head_dim": next(iter(_head_channels(config))),
        "attn_norm_num_groups": kept,
        "add_attention": config.middle == "self",
    }


def _condition_values(config: UNetConfig) -> dict[str, Any]:
    levels = range(len(config.channels))
    cross = [config.attention_at(level) == "cross" for level in levels]
    heads = [config.heads_at(level) if cross[level] or level == levels[-1] else 1 for level in levels]
    if isinstance(config.heads, int):
        heads = [config.heads] * len(levels)
    layers = config.transformer_layers
    return {
        **_shared_values(config),
        "down_block_types": ["CrossAttnDownBlock2D" if c else "DownBlock2D" for c in cross],
        "up_block_types": ["CrossAttnUpBlock2D" if c else "UpBlock2D" for c in reversed(cross)],
        "attention_head_dim": heads[0]
        if len(set(heads)) == 1
        else heads,  # there the number of heads has this name
        "class_embed_type": None if config.vector is None else "projection",
        "projection_class_embeddings_input_dim": config.vector,
        "cross_attention_dim": config.context_dim,
        "addition_embed_type": None if config.context_heads is None else "text",
        "addition_embed_type_num_heads": config.context_heads or 64,
        "transformer_layers_per_block": list(layers) if isinstance(layers, tuple) else layers,
        "use_linear_projection": config.linear_projection,
    }


def _dit_values(config: DiTConfig) -> dict[str, Any]:
    return {
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_channels,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_layers": config.layers,
        "dropout": config.dropout,
        "attention_bias": config.attention_bias,
        "sample_size": config.image_size,
        "patch_size": config.patch,
        "num_embeds_ada_norm": config.classes or 0,
        "norm_eps": config.norm_eps,
    }


def _kinds(values: Values, key: str, kinds: Mapping[str, str]) -> tuple[str, ...]:
    """What each block's name means, or a refusal."""
    said = names(values, key, len(wholes(values, "block_out_channels")))
    for name in said:
        if name not in kinds:
            raise cannot(key, name)
    return tuple(kinds[name] for name in said)


def _shared_config(full: Values) -> dict[str, Any]:
    size = full["sample_size"]
    if size is not None:
        size = (
            wholes(full, "sample_size")
            if isinstance(size, list | tuple)
            else (whole(full, "sample_size"),) * 2
        )
    shift = full["resnet_time_scale_shift"]
    if shift not in ("default", "scale_shift"):
        raise cannot("resnet_time_scale_shift", shift)
    return {
        "in_channels": whole(full, "in_channels"),
        "out_channels": whole(full, "out_channels"),
        "image_size": size,
        "channels": wholes(full, "block_out_channels"),
        "layers": whole_or_each(full, "layers_per_block"),
        "groups": whole(full, "norm_num_groups"),
        "norm_eps": number(full, "norm_eps"),
        "conditioning": "scale_shift" if shift == "scale_shift" else "add",
        "downsample_padding": whole(full, "downsample_padding"),
        "dropout": number(full, "dropout"),
        "time_channels": maybe(full, "time_embedding_dim"),
        "flip_sin_to_cos": flag(full, "flip_sin_to_cos"),
        "freq_shift": number(full, "freq_shift"),
        "classes": maybe(full, "num_class_embeds"),
    }


def _unet_config(full: Values) -> UNetConfig:
    down = {"DownBlock2D": "none", "ResnetDownsampleBlock2D": "none", "AttnDownBlock2D": "self"}
    up = {"UpBlock2D": "none", "ResnetUpsampleBlock2D": "none", "AttnUpBlock2D": "self"}
    attention = _kinds(full, "down_block_types", down)
    if _kinds(full, "up_block_types", up) != attention[::-1]:
        raise cannot("up_block_types", full["up_block_types"])
    middle = "self" if flag(full, "add_attention") else "none"
    shared = _shared_config(full)
    groups = maybe(full, "attn_norm_num_groups")
    if groups not in (None, shared["groups"]):
        raise cannot("attn_norm_num_groups", groups)
    return UNetConfig(
        **shared,
        attention=attention,
        middle=middle,
        head_channels=maybe(full, "attention_head_dim"),
        middle_norm=groups is not None or shared["conditioning"] == "add",
        resampling=_resampling(full),
    )


def _resampling(full: Values) -> str:
    """How a UNet2DModel resamples. Blocks with attention obey the setting, the others their own name."""
    found: set[str] = set()
    for types, key in (("down_block_types", "downsample_type"), ("up_block_types", "upsample_type")):
        for name in full[types][:-1]:
            kind = full[key] if name.startswith("Attn") else "resnet" if name.startswith("Resnet") else "conv"
            if kind not in ("conv", "resnet"):
                raise cannot(key, kind)
            found.add(kind)
    if len(found) > 1:
        raise cannot("downsample_type", "a mixture of conv and resnet")
    return found.pop() if found else "conv"


def _condition_config(full: Values) -> UNetConfig:
    attention = _kinds(full, "down_block_types", {"DownBlock2D": "none", "CrossAttnDownBlock2D": "cross"})
    if (
        _kinds(full, "up_block_types", {"UpBlock2D": "none", "CrossAttnUpBlock2D": "cross"})
        != attention[::-1]
    ):
        raise cannot("up_block_types", full["up_block_types"])
    return UNetConfig(
        **_shared_config(full),
        attention=attention,
        middle="cross",
        heads=whole_or_each(full, "attention_head_dim"),  # there the number of heads has this name
        context_dim=whole(full, "cross_attention_dim"),
        context_heads=_context_heads(full),
        transformer_layers=whole_or_each(full, "transformer_layers_per_block"),
        vector=_vector(full),
        linear_projection=flag(full, "use_linear_projection"),
    )


def _vector(full: Values) -> int | None:
    """The features that a projection takes in place of a class."""
    kind = full["class_embed_type"]
    if kind not in (None, "projection") or (kind is not None and full["num_class_embeds"] is not None):
        raise cannot("class_embed_type", kind)
    return None if kind is None else whole(full, "projection_class_embeddings_input_dim")


def _context_heads(full: Values) -> int | None:
    """The heads that pool the context as a whole, where that enters beside the time."""
    kind = full["addition_embed_type"]
    if kind not in (None, "text"):
        raise cannot("addition_embed_type", kind)
    return None if kind is None else whole(full, "addition_embed_type_num_heads")


def _dit_config(full: Values) -> DiTConfig:
    ins = whole(full, "in_channels")
    return DiTConfig(
        in_channels=ins,
        out_channels=maybe(full, "out_channels") or ins,
        image_size=whole(full, "sample_size"),
        patch=whole(full, "patch_size"),
        heads=whole(full, "num_attention_heads"),
        head_channels=whole(full, "attention_head_dim"),
        layers=whole(full, "num_layers"),
        dropout=number(full, "dropout"),
        attention_bias=flag(full, "attention_bias"),
        norm_eps=number(full, "norm_eps"),
        classes=whole(full, "num_embeds_ada_norm") or None,
    )
