"""Diffusion transformer with adaLN-zero (Peebles & Xie 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sfumato.errors import SettingsError
from sfumato.networks.attention import Attention, FeedForward
from sfumato.networks.convolution import convolution
from sfumato.networks.embeddings import TimeEmbedding, places, sinusoids
from sfumato.networks.limits import check, whole
from sfumato.networks.probe import probed
from sfumato.noise import current_streams, number_dropouts, streams


@dataclass(frozen=True)
class DiTConfig:
    """The settings of a DiT. Every field is plain JSON; a wrong one raises a SettingsError."""

    in_channels: int = 3
    out_channels: int = 3
    """Twice the image's channels where the network also learns the variance."""
    dims: int = 2
    """1 for signals, 2 for images, 3 for volumes and films."""
    image_size: int = 32
    """The side for which patches count 0, 1, 2, ...; other sizes are finer or coarser grids."""
    patch: int = 2
    """Side of a patch: one token."""
    heads: int = 6
    head_channels: int = 64
    layers: int = 12
    dropout: float = 0.0
    attention_bias: bool = True
    norm_eps: float = 1e-5
    classes: int | None = None
    """Number of classes; one more row, the last, always means "no class"."""
    zero_init: bool = True
    """Whether the gates and the output start at zero."""
    checkpointing: bool = False
    """Whether the backward pass computes activations again instead of keeping them."""

    def __post_init__(self) -> None:
        ranges = {
            "dims": (1, 3),
            "in_channels": (1, 4096),
            "out_channels": (1, 4096),
            "image_size": (1, 65536),
            "patch": (1, 1024),
            "heads": (1, 1024),
            "head_channels": (1, 4096),
            "layers": (1, 1024),
        }
        for name, (low, high) in ranges.items():
            whole("DiT", name, getattr(self, name), low, high)
        if self.classes is not None:
            whole("DiT", "classes", self.classes, 1, 10_000_000)
        check(
            "DiT",
            self.width <= 65536,
            f"the width {self.width} = heads x head_channels must be at most 65536",
        )
        check("DiT", self.image_size >= self.patch, "image_size must be at least one patch")
        check(
            "DiT",
            self.width % 4 == 0,
            f"the width {self.width} = heads x head_channels must be a multiple of 4",
        )
        check("DiT", 0 <= self.dropout < 1, f"dropout must be in [0, 1), not {self.dropout}")
        check("DiT", self.norm_eps > 0, "norm_eps must be positive")

    @property
    def width(self) -> int:
        return self.heads * self.head_channels


class ClassEmbedding(nn.Module):
    """A vector for each class and, last, for none."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, rows: Tensor) -> Tensor:
        return self.embedding_table(rows)


class Condition(nn.Module):
    """The label's embedding plus the class's, (B, width)."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.timestep_embedder = TimeEmbedding(256, width)
        self.class_embedder = ClassEmbedding(classes, width)

    def forward(self, label: Tensor, rows: Tensor) -> Tensor:
        told = sinusoids(label, 256, True, 1).to(self.timestep_embedder.linear_1.weight.dtype)
        return self.timestep_embedder(told) + self.class_embedder(rows)


class AdaptiveNorm(nn.Module):
    """The six vectors by which the condition shifts, scales and gates a block's two halves."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.emb = Condition(classes, width)
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, label: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        return self.linear(F.silu(self.emb(label, rows)))[:, None].chunk(6, dim=-1)


class DiTBlock(nn.Module):
    """Self-attention and feed-forward between layer norms whose shift, scale and gate the condition gives."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_eps = config.norm_eps
        self.norm1 = AdaptiveNorm(config.classes or 0, width)
        self.attn1 = Attention(width, config.heads, bias=config.attention_bias, dropout=config.dropout)
        self.ff = FeedForward(width, gated=False, dropout=config.dropout)

    def forward(self, tokens: Tensor, label: Tensor, rows: Tensor) -> Tensor:
        shift, scale, gate, shift_ff, scale_ff, gate_ff = self.norm1(label, rows)
        h = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift
        tokens = gate * self.attn1(h) + tokens
        h = F.layer_norm(tokens, tokens.shape[-1:], eps=self.norm_eps) * (1 + scale_ff) + shift_ff
        return gate_ff * self.ff(h) + tokens


class Patches(nn.Module):
    """An image (B, C, *space) as tokens (B, N, width), each told its place."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.reach = config.image_size // config.patch
        kernel = config.patch
        self.proj = convolution(
            config.dims, config.in_channels, config.width, kernel, stride=kernel, padding=0
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.proj(x)
        return h.flatten(2).transpose(1, 2) + places(h.shape[2:], self.reach, h.shape[1]).to(h)


class DiT(nn.Module):
    """y = network(x, label): x (B, in_channels, *space), label (B,) -> y (B, out_channels, *space)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = config.checkpointing
        self.pos_embed = Patches(config)
        self.transformer_blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.layers))
        self.proj_out_1 = nn.Linear(config.width, 2 * config.width)
        self.proj_out_2 = nn.Linear(config.width, config.patch**config.dims * config.out_channels)
        if config.zero_init:
            gates = [block.norm1.linear for block in self.transformer_blocks]
            for layer in (*gates, self.proj_out_1, self.proj_out_2):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        number_dropouts(self)

    @property
    def factor(self) -> int:
        """Every length of an image must be a multiple of this."""
        return self.config.patch

    def forward(
        self,
        x: Tensor,
        label: Tensor,
        *,
        classes: Tensor | None = None,
        vector: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """classes (B,) int64, None for "no class"; a vector and a context are refused. Any size of whole
        patches works."""
        self._check(x, classes, vector, context)
        rows = classes
        if rows is None:
            rows = torch.full((len(x),), self.config.classes or 0, dtype=torch.int64, device=x.device)
        tokens = self.pos_embed(x)
        for i, block in enumerate(self.transformer_blocks, 1):
            tokens = self._run(block, tokens, label, rows)
            if i == (len(self.transformer_blocks) + 1) // 2:
                tokens = probed("bottleneck", tokens)
        told = F.silu(self.transformer_blocks[0].norm1.emb(label, rows))
        shift, scale = self.proj_out_1(told)[:, None].chunk(2, dim=-1)
        h = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) * (1 + scale) + shift
        return self._image(self.proj_out_2(h), x.shape[2:])

    def _run(self, block: nn.Module, tokens: Tensor, label: Tensor, rows: Tensor) -> Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return block(tokens, label, rows)
        noise = current_streams()  # the backward pass may run in another thread, where they are not set

        def run(tokens: Tensor, label: Tensor, rows: Tensor) -> Tensor:
            with streams(noise):
                return block(tokens, label, rows)

        return checkpoint(run, tokens, label, rows, use_reentrant=False, preserve_rng_state=False)

    def _image(self, tokens: Tensor, size: torch.Size) -> Tensor:
        """(B, N, patch^dims out_channels), channels last within a patch -> (B, out_channels, *size)."""
        p, dims = self.config.patch, self.config.dims
        grid = tuple(n // p for n in size)
        y = tokens.unflatten(2, (p,) * dims + (self.config.out_channels,)).unflatten(1, grid)
        order = [0, 2 * dims + 1]
        for axis in range(dims):
            order += [1 + axis, 1 + dims + axis]
        return y.permute(order).reshape(len(tokens), self.config.out_channels, *size)

    def _check(
        self, x: Tensor, classes: Tensor | None, vector: Tensor | None, context: Tensor | None
    ) -> None:
        c = self.config
        if x.ndim != c.dims + 2 or x.shape[1] != c.in_channels:
            wanted = f"(batch, {c.in_channels}{', size' * c.dims})"
            raise SettingsError(f"DiT: the input must be {wanted}, not {tuple(x.shape)}.")
        if any(n % c.patch for n in x.shape[2:]):
            size = " x ".join(str(n) for n in x.shape[2:])
            raise SettingsError(
                f"DiT: the size {size} must be divisible by the patch {c.patch}; resize or crop the images."
            )
        if classes is not None and c.classes is None:
            raise SettingsError("DiT: this network was made without classes, so it cannot be given one.")
        if vector is not None:
            raise SettingsError("DiT: this network was made without attributes, so it takes none.")
        if context is not None:
            raise SettingsError("DiT: this network does not look at a context.")
