"""The settings of three of diffusers' networks, with their defaults, and those that ours can honour."""

from __future__ import annotations

from typing import Any

_COMMON: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "layers_per_block": 2,
    "class_embed_type": None,
    "num_class_embeds": None,
}
UNET: dict[str, Any] = {
    **_COMMON,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "downsample_type": "conv",
    "upsample_type": "conv",
    "attn_norm_num_groups": None,
    "add_attention": True,
    "num_train_timesteps": None,
}
"""UNet2DModel's settings and their defaults."""

CONDITION: dict[str, Any] = {
    **_COMMON,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": [
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    ],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [320, 640, 1280, 1280],
    "only_cross_attention": False,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "num_attention_heads": None,
    "dual_cross_attention": False,
    "use_linear_projection": False,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "upcast_attention": False,
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "projection_class_embeddings_input_dim": None,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "mid_block_only_cross_attention": None,
    "cross_attention_norm": None,
    "addition_embed_type_num_heads": 64,
}
"""UNet2DConditionModel's settings and their defaults."""

DIT: dict[str, Any] = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": None,
    "num_layers": 28,
    "dropout": 0.0,
    "norm_num_groups": 32,
    "attention_bias": True,
    "sample_size": 32,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "upcast_attention": False,
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-5,
}
"""DiTTransformer2DModel's settings and their defaults."""

CLASSES: dict[str, dict[str, Any]] = {
    "UNet2DModel": UNET,
    "UNet2DConditionModel": CONDITION,
    "DiTTransformer2DModel": DIT,
}
READ: dict[str, set[str]] = {
    "UNet2DModel": {
        *(
            "sample_size",
            "in_channels",
            "out_channels",
            "time_embedding_dim",
            "freq_shift",
            "flip_sin_to_cos",
        ),
        *(
            "down_block_types",
            "up_block_types",
            "block_out_channels",
            "layers_per_block",
            "downsample_padding",
        ),
        *("downsample_type", "upsample_type", "dropout", "attention_head_dim", "norm_num_groups", "norm_eps"),
        *("attn_norm_num_groups", "resnet_time_scale_shift", "add_attention", "num_class_embeds"),
        "num_train_timesteps",  # read by learned time embeddings alone, which are refused
    },
    "UNet2DConditionModel": {
        *(
            "sample_size",
            "in_channels",
            "out_channels",
            "time_embedding_dim",
            "freq_shift",
            "flip_sin_to_cos",
        ),
        *(
            "down_block_types",
            "up_block_types",
            "block_out_channels",
            "layers_per_block",
            "downsample_padding",
        ),
        *("dropout", "attention_head_dim", "norm_num_groups", "norm_eps", "resnet_time_scale_shift"),
        *("num_class_embeds", "cross_attention_dim", "transformer_layers_per_block", "use_linear_projection"),
        *("class_embed_type", "projection_class_embeddings_input_dim"),
        *("addition_embed_type", "addition_embed_type_num_heads"),
        "upcast_attention",  # no matter in float32
    },
    "DiTTransformer2DModel": {
        *(
            "num_attention_heads",
            "attention_head_dim",
            "in_channels",
            "out_channels",
            "num_layers",
            "dropout",
        ),
        *("attention_bias", "sample_size", "patch_size", "num_embeds_ada_norm", "norm_eps"),
        *("norm_num_groups", "upcast_attention"),  # not used by diffusers either; no matter in float32
    },
}
"""The settings that our networks can honour; every other must have the value that means nothing special."""

AVERAGE = {
    "decay",
    "min_decay",
    "optimization_step",
    "update_after_step",
    "use_ema_warmup",
    "inv_gamma",
    "power",
}
"""Written beside the settings by diffusers' training scripts; they say nothing of the network."""
