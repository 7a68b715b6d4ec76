"""A text transformer: CLIP's, by transformers' names and numbers (Radford et al. 2021).

Parameter names are those of CLIPTextModel with the prefix `text_model.`, as every program but the newest
writes them; `named` brings both spellings to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import SettingsError
from sfumato.networks.attention import attend
from sfumato.networks.limits import PARAMETERS, check, whole

PREFIX = "text_model."
ACTIVATIONS = ("quick_gelu", "gelu")
_FIELDS = {
    "vocabulary": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "intermediate_size",
    "length": "max_position_embeddings",
    "activation": "hidden_act",
    "norm_eps": "layer_norm_eps",
    "end": "eos_token_id",
}
"""Our names and transformers'."""


@dataclass(frozen=True)
class TextConfig:
    """The settings of a text transformer. Every field is plain JSON; a wrong one raises a SettingsError."""

    vocabulary: int = 2048
    """How many tokens there are."""
    width: int = 128
    layers: int = 2
    heads: int = 4
    hidden: int = 512
    """Width inside a feed-forward block, usually four times the width."""
    length: int = 77
    """The most tokens of a caption, start and end counted."""
    end: int = 2047
    """The number of the end token, whose state stands for the whole caption."""
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        ranges = {
            "vocabulary": (1, 10_000_000),
            "width": (1, 65536),
            "layers": (1, 1024),
            "heads": (1, 1024),
            "hidden": (1, 1_000_000),
            "length": (1, 1_000_000),
            "end": (0, self.vocabulary - 1),
        }
        for name, (low, high) in ranges.items():
            whole("text encoder", name, getattr(self, name), low, high)
        check(
            "text encoder",
            self.width % self.heads == 0,
            f"the width {self.width} must be divisible by the {self.heads} heads",
        )
        check(
            "text encoder",
            self.activation in ACTIVATIONS,
            f"activation must be {' or '.join(ACTIVATIONS)}, not {str(self.activation)[:40]!r}",
        )
        check("text encoder", 0 < self.norm_eps < 1, "norm_eps must lie between 0 and 1")
        each = 4 * self.width * self.width + 2 * self.width * self.hidden
        size = (self.vocabulary + self.length) * self.width + self.layers * each
        check("text encoder", size <= PARAMETERS, f"{size:,} parameters, at most {PARAMETERS:,} are built")

    def to_json(self) -> dict[str, Any]:
        """The `config.json` of a transformers folder."""
        said = {theirs: getattr(self, ours) for ours, theirs in _FIELDS.items()}
        about = {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"}
        return {**about, "bos_token_id": None, "pad_token_id": self.end, **said}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> TextConfig:
        """The settings in a `config.json` of CLIPTextModel, or in its part of a CLIPModel's.

        Settings that change nothing here are passed over. Old files say that the end token is 2 and mean the
        last of the vocabulary. Raises SettingsError.
        """
        inner = values.get("text_config")
        said = inner if isinstance(inner, dict) else values
        kind = said.get("model_type", "clip_text_model")
        check("text encoder", kind == "clip_text_model", f"{str(kind)[:40]!r} is no text encoder of CLIP")
        clip = {"vocab_size": 49408, "hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8}
        clip |= {"intermediate_size": 2048, "max_position_embeddings": 77, "eos_token_id": 49407}
        defaults = {**clip, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
        found = {ours: said.get(theirs, defaults[theirs]) for ours, theirs in _FIELDS.items()}
        if found["end"] == 2 and isinstance(found["vocabulary"], int):
            found["end"] = found["vocabulary"] - 1
        try:
            return TextConfig(**found)
        except SettingsError:
            raise
        except Exception as wrong:  # a value of the wrong type, however the type is checked
            raise SettingsError(f"text encoder: {str(wrong).splitlines()[0][:200]}") from wrong


class TextStates(NamedTuple):
    """What a text encoder says: of each token, (B, N, width), and of the whole caption, (B, width)."""

    states: Tensor
    pooled: Tensor


class TextEmbeddings(nn.Module):
    """Each token's vector plus its place's."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.length, config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]


class CausalAttention(nn.Module):
    """Self-attention in which a token sees those before it and itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        return self.out_proj(attend(self.q_proj(h), self.k_proj(h), self.v_proj(h), self.heads, causal=True))


class TextFeedForward(nn.Module):
    """Two layers; quick_gelu is h sigmoid(1.702 h) (Hendrycks & Gimpel 2016, section 2)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.quick = config.activation == "quick_gelu"
        self.fc1 = nn.Linear(config.width, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.width)

    def forward(self, h: Tensor) -> Tensor:
        h = self.fc1(h)
        return self.fc2(h * torch.sigmoid(1.702 * h) if self.quick else F.gelu(h))


class TextLayer(nn.Module):
    """Attention and feed-forward; each normalises first and adds."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn = CausalAttention(config.width, config.heads)
        self.layer_norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = TextFeedForward(config)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.self_attn(self.layer_norm1(h))
        return h + self.mlp(self.layer_norm2(h))


class TextStack(nn.Module):
    """The layers, one after the other."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.layers))

    def forward(self, h: Tensor) -> Tensor:
        for layer in self.layers:
            h = layer(h)
        return h


class TextBody(nn.Module):
    """Embeddings, layers and a last norm: all of it, under the prefix of its names."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(config)
        self.encoder = TextStack(config)
        self.final_layer_norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.final_layer_norm(self.encoder(self.embeddings(tokens)))


class TextTransformer(nn.Module):
    """tokens (B, N) int64 -> TextStates; a caption's pooled state is that of its first end token.

    It starts with CLIP's initial weights, but for larger embeddings. What follows the end changes neither
    the states before it nor the pooled one, because no token sees a later one.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextBody(config)
        self._begin()

    def _begin(self) -> None:
        """CLIP's initial weights: residual branches start small, the smaller the deeper the stack. But its
        embeddings of 0.02 would drown in what the branches add, which is alike for all captions: tokens are
        told apart from the first step on where both are of one size."""
        c, body = self.config, self.text_model
        nn.init.normal_(body.embeddings.token_embedding.weight, std=0.5)
        nn.init.normal_(body.embeddings.position_embedding.weight, std=0.25)
        out = c.width**-0.5 * (2 * c.layers) ** -0.5
        for layer in body.encoder.layers:
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
                nn.init.normal_(part.weight, std=c.width**-0.5)
            nn.init.normal_(layer.self_attn.out_proj.weight, std=out)
            nn.init.normal_(layer.mlp.fc1.weight, std=(2 * c.width) ** -0.5)
            nn.init.normal_(layer.mlp.fc2.weight, std=out)
            for part in (layer.self_attn, layer.mlp):
                for name, bias in part.named_parameters():
                    if name.endswith("bias"):
                        nn.init.zeros_(bias)

    def forward(self, tokens: Tensor) -> TextStates:
        """Raises SettingsError for more tokens than the encoder has places."""
        if tokens.shape[1] > self.config.length:
            raise SettingsError(
                f"text encoder: {tokens.shape[1]} tokens, it has places for {self.config.length}."
            )
        states = self.text_model(tokens)
        end = (tokens == self.config.end).int().argmax(dim=1)
        return TextStates(states, states[torch.arange(len(states), device=states.device), end])


def named(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a text encoder under our names: with the prefix `text_model.`, without the places'
    numbers that old files hold."""
    with_prefix = {
        name if name.startswith(PREFIX) else f"{PREFIX}{name}": tensor for name, tensor in tensors.items()
    }
    return {name: t for name, t in with_prefix.items() if not name.endswith("embeddings.position_ids")}
