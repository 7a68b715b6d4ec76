"""Attention of the places of an image to each other and to a context (a caption's tokens)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.networks.convolution import convolution
from sfumato.networks.probe import probed, watched
from sfumato.noise import Dropout


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool = False, place: str = "self") -> Tensor:
    """softmax(q k^T / sqrt(C/heads)) v for each head; q (B, T, C), k and v (B, N, C) -> (B, T, C).

    `causal`: token i sees the tokens up to itself alone. `place` is what a probe knows the maps by.
    """
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    if not causal and watched(place):
        maps = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=-1)
        return (probed(place, maps) @ v).transpose(1, 2).flatten(2)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017): tokens (B, T, C) look at a context (B, N, D)."""

    def __init__(
        self,
        channels: int,
        heads: int,
        context_dim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=bias)
        self.to_k = nn.Linear(context_dim or channels, channels, bias=bias)
        self.to_v = nn.Linear(context_dim or channels, channels, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels), Dropout(dropout)])

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        seen = tokens if context is None else context
        place = "self" if context is None else "cross"
        out = attend(self.to_q(tokens), self.to_k(seen), self.to_v(seen), self.heads, place=place)
        return self.to_out[1](self.to_out[0](out))


class ContextEmbedding(nn.Module):
    """What a whole context says, as one vector: (B, N, context_dim) -> (B, channels).

    The mean token, which knows its place, looks at all tokens and itself; a linear layer; normalised before
    and after (Saharia et al. 2022, section 2.3; by the names and numbers of DeepFloyd IF).
    """

    def __init__(self, context_dim: int, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(context_dim)
        self.pool = AttentionPooling(context_dim, heads)
        self.proj = nn.Linear(context_dim, channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, context: Tensor) -> Tensor:
        return self.norm2(self.proj(self.pool(self.norm1(context))))


class AttentionPooling(nn.Module):
    """Tokens (B, N, C) -> (B, C): what their mean sees in them."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.empty(1, channels))
        nn.init.normal_(self.positional_embedding, std=1 / math.sqrt(channels))
        self.k_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        mean = tokens.mean(1, keepdim=True) + self.positional_embedding
        seen = torch.cat([mean, tokens], dim=1)
        return attend(
            self.q_proj(mean), self.k_proj(seen), self.v_proj(seen), self.heads, place="pooling"
        ).squeeze(1)


class ImageAttention(nn.Module):
    """x + attention(groupnorm(x)) over all places of x (B, C, *space) (Ho et al. 2020, appendix B)."""

    def __init__(self, channels: int, heads: int, groups: int | None, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.group_norm = None if groups is None else nn.GroupNorm(groups, channels, eps=eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = x if self.group_norm is None else self.group_norm(x)
        tokens = h.flatten(2).transpose(1, 2)
        out = attend(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens), self.heads)
        return self.to_out[0](out).transpose(1, 2).unflatten(2, x.shape[2:]) + x


class GEGLU(nn.Module):
    """a gelu(b), where (a, b) are the halves of one linear map (Shazeer 2020)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class GELU(nn.Module):
    """A linear map and the tanh form of gelu."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """Two layers, four times as wide inside."""

    def __init__(self, channels: int, gated: bool, dropout: float = 0.0) -> None:
        super().__init__()
        first = GEGLU(channels, 4 * channels) if gated else GELU(channels, 4 * channels)
        self.net = nn.ModuleList([first, Dropout(dropout), nn.Linear(4 * channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class TransformerBlock(nn.Module):
    """Self-attention, attention to the context, feed-forward; each normalises first and adds."""

    def __init__(self, channels: int, heads: int, context_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads, bias=False)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, heads, context_dim, bias=False)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, gated=True)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        tokens = self.attn1(self.norm1(tokens)) + tokens
        tokens = self.attn2(self.norm2(tokens), context) + tokens
        return self.ff(self.norm3(tokens)) + tokens


class ImageTransformer(nn.Module):
    """x + transformer(x, context): how Stable Diffusion reads captions (Rombach et al. 2022)."""

    def __init__(
        self, dims: int, channels: int, heads: int, layers: int, context_dim: int, groups: int, linear: bool
    ) -> None:
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels) if linear else convolution(dims, channels, channels, 1)
        blocks = [TransformerBlock(channels, heads, context_dim) for _ in range(layers)]
        self.transformer_blocks = nn.ModuleList(blocks)
        self.proj_out = nn.Linear(channels, channels) if linear else convolution(dims, channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if context is None:
            raise RuntimeError("attention to a context needs a context")
        h = self.norm(x)
        if not self.linear:
            h = self.proj_in(h)
        tokens = h.flatten(2).transpose(1, 2)
        if self.linear:
            tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        if self.linear:
            tokens = self.proj_out(tokens)
        h = tokens.transpose(1, 2).unflatten(2, x.shape[2:])
        return (h if self.linear else self.proj_out(h)) + x
