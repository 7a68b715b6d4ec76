"""U-Net (Ronneberger et al. 2015; Ho et al. 2020; Dhariwal & Nichol 2021; Rombach et al. 2022)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sfumato.errors import SettingsError
from sfumato.networks.attention import ContextEmbedding, ImageAttention, ImageTransformer
from sfumato.networks.blocks import Downsample, ResidualBlock, Stage, Upsample
from sfumato.networks.convolution import channels_last, convolution
from sfumato.networks.embeddings import TimeEmbedding, sinusoids
from sfumato.networks.normalization import norm_silu
from sfumato.networks.probe import probed, watched
from sfumato.networks.unet_config import UNetConfig
from sfumato.noise import current_streams, number_dropouts, streams

CACHED = 2**20
"""Numbers of one activation that a processor's caches hold beside what else a layer needs: 4 MiB."""


class UNet(nn.Module):
    """y = network(x, label): x (B, in_channels, *space), label (B,) -> y (B, out_channels, *space)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = config.checkpointing
        channels = config.channels
        maps = config.class_rows if config.class_input == "concat" else 0
        self.conv_in = convolution(config.dims, config.in_channels + maps, channels[0], 3)
        self.time_embedding = TimeEmbedding(channels[0], config.embedding)
        self._embeddings(config)
        self.down_blocks = nn.ModuleList(self._down(level) for level in range(len(channels)))
        self.mid_block = self._middle()
        self.up_blocks = nn.ModuleList(self._up(level) for level in reversed(range(len(channels))))
        self.conv_norm_out = nn.GroupNorm(config.groups, channels[0], eps=config.norm_eps)
        self.conv_out = convolution(config.dims, channels[0], config.out_channels, 3)
        if config.zero_init:
            self._zero()
        number_dropouts(self)
        if config.dims == 2:
            self.to(memory_format=torch.channels_last)

    def _embeddings(self, config: UNetConfig) -> None:
        """What enters beside the time, by diffusers' names where these can say it: the class, or without one
        the vector, is `class_embedding`; the context, or without one the vector, is `add_embedding`."""
        by_row = config.class_rows and config.class_input == "embedding"
        self.class_embedding = nn.Embedding(config.class_rows, config.embedding) if by_row else None
        self.add_embedding: nn.Module | None = None
        self.vector_name = ""
        if config.context_heads is not None and config.context_dim is not None:
            self.add_embedding = ContextEmbedding(config.context_dim, config.embedding, config.context_heads)
        if config.vector is not None:
            free = "vector_embedding" if self.add_embedding is not None else "add_embedding"
            self.vector_name = "class_embedding" if config.classes is None else free
            setattr(self, self.vector_name, TimeEmbedding(config.vector, config.embedding))

    def _block(self, ins: int, outs: int, resize: int = 0) -> ResidualBlock:
        c = self.config
        scale_shift = c.conditioning == "scale_shift"
        return ResidualBlock(
            c.dims, ins, outs, c.embedding, c.groups, c.norm_eps, scale_shift, c.dropout, resize
        )

    def _attention(self, kind: str, level: int, groups: int | None) -> nn.Module:
        c = self.config
        width, heads = c.channels[level], c.heads_at(level)
        if kind == "self":
            return ImageAttention(width, heads, groups, c.norm_eps)
        layers = c.transformer_layers_at(level)
        return ImageTransformer(
            c.dims, width, heads, layers, c.context_dim or width, c.groups, c.linear_projection
        )

    def _attentions(self, level: int, count: int) -> list[nn.Module]:
        kind = self.config.attention_at(level)
        return (
            [] if kind == "none" else [self._attention(kind, level, self.config.groups) for _ in range(count)]
        )

    def _down(self, level: int) -> Stage:
        c = self.config
        outs, count = c.channels[level], c.layers_at(level)
        ins = c.channels[max(level - 1, 0)]
        down: nn.Module | None = None
        if level < len(c.channels) - 1:
            resnet = c.resampling == "resnet"
            down = self._block(outs, outs, -1) if resnet else Downsample(c.dims, outs, c.downsample_padding)
        blocks = [self._block(ins if j == 0 else outs, outs) for j in range(count)]
        return Stage(blocks, self._attentions(level, count), down=down)

    def _middle(self) -> Stage:
        c = self.config
        last, level = c.channels[-1], len(c.channels) - 1
        groups = c.groups if c.middle_norm else None
        attentions = [] if c.middle == "none" else [self._attention(c.middle, level, groups)]
        return Stage([self._block(last, last), self._block(last, last)], attentions)

    def _up(self, level: int) -> Stage:
        c = self.config
        outs, count = c.channels[level], c.layers_at(level) + 1
        below = c.channels[min(level + 1, len(c.channels) - 1)]
        above = c.channels[max(level - 1, 0)]
        blocks: list[nn.Module] = []
        for j in range(count):
            skip = (above if j == count - 1 else outs) if c.skips else 0
            blocks.append(self._block((below if j == 0 else outs) + skip, outs))
        up: nn.Module | None = None
        if level > 0:
            up = self._block(outs, outs, 1) if c.resampling == "resnet" else Upsample(c.dims, outs)
        return Stage(blocks, self._attentions(level, count), up=up)

    def _zero(self) -> None:
        last: list[nn.Module] = [self.conv_out]
        for part in self.modules():
            if isinstance(part, ResidualBlock):
                last.append(part.conv2)
            elif isinstance(part, ImageAttention):
                last.append(part.to_out[0])
            elif isinstance(part, ImageTransformer):
                last.append(part.proj_out)
        for layer in last:
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    @property
    def factor(self) -> int:
        """Every length of an image must be a multiple of this."""
        return 2 ** (len(self.config.channels) - 1)

    def forward(
        self,
        x: Tensor,
        label: Tensor,
        *,
        classes: Tensor | None = None,
        vector: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """classes (B,) int64, vector (B, config.vector), context (B, N, context_dim): given exactly where the
        configuration has them.

        Without classes a network with a null class takes that, without a vector zeros. A size that the
        network cannot halve often enough raises a SettingsError.
        """
        self._check(x, context)
        rows, features = self._rows(x, classes), self._features(x, vector)
        size = self._at_once(x)
        if size >= len(x):
            return self._pass(x, label, rows, features, context)
        cuts = [slice(start, start + size) for start in range(0, len(x), size)]
        of = lambda part, cut: None if part is None else part[cut]
        parts = [self._pass(x[c], label[c], of(rows, c), of(features, c), of(context, c)) for c in cuts]
        return torch.cat(parts)

    def _at_once(self, x: Tensor) -> int:
        """How many images go through together. On a CPU, when nothing is kept for a backward pass, only as
        many as have their largest activations in its cache: a batch of 64 would be slower an image than one
        of 16."""
        if self.training or torch.is_grad_enabled() or x.device.type != "cpu" or watched():
            return len(x)
        return max(1, CACHED // (self.config.channels[0] * math.prod(x.shape[2:])))

    def _pass(
        self,
        x: Tensor,
        label: Tensor,
        rows: Tensor | None,
        features: Tensor | None,
        context: Tensor | None,
    ) -> Tensor:
        embedding = F.silu(self._embed(x, label, rows, features, context))
        if rows is not None and self.class_embedding is None:
            maps = F.one_hot(rows, self.config.class_rows).to(x)
            maps = maps[(...,) + (None,) * (x.ndim - 2)].expand(-1, -1, *x.shape[2:])
            x = torch.cat([x, maps], dim=1)
        h = self.conv_in(channels_last(x))
        kept = [h]
        for stage in self.down_blocks:
            for j, block in enumerate(stage.resnets):
                h = self._run(block, stage.attention(j), h, embedding, context)
                kept.append(h)
            for step in stage.steps():
                h = step(h, embedding)
                kept.append(h)
        h = self._run(self.mid_block.resnets[0], self.mid_block.attention(0), h, embedding, context)
        h = probed("bottleneck", self._run(self.mid_block.resnets[1], None, h, embedding, context))
        for stage in self.up_blocks:
            for j, block in enumerate(stage.resnets):
                skip = kept.pop() if self.config.skips else None
                h = self._run(block, stage.attention(j), h, embedding, context, skip)
            for step in stage.steps():
                h = step(h, embedding)
        return self.conv_out(norm_silu(h, self.conv_norm_out))

    def _run(
        self,
        block: nn.Module,
        attention: nn.Module | None,
        h: Tensor,
        embedding: Tensor,
        context: Tensor | None,
        skip: Tensor | None = None,
    ) -> Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return _through(block, attention, h, embedding, context, skip)
        noise = current_streams()  # the backward pass may run in another thread, where they are not set

        def run(h: Tensor, embedding: Tensor, context: Tensor | None, skip: Tensor | None) -> Tensor:
            with streams(noise):
                return _through(block, attention, h, embedding, context, skip)

        return checkpoint(run, h, embedding, context, skip, use_reentrant=False, preserve_rng_state=False)

    def _embed(
        self, x: Tensor, label: Tensor, rows: Tensor | None, features: Tensor | None, context: Tensor | None
    ) -> Tensor:
        c = self.config
        told = sinusoids(label, c.channels[0], c.flip_sin_to_cos, c.freq_shift).to(x.dtype)
        embedding = self.time_embedding(told)
        if rows is not None and self.class_embedding is not None:
            embedding = embedding + self.class_embedding(rows)
        if features is not None:
            embedding = embedding + getattr(self, self.vector_name)(features)
        if c.context_heads is not None and self.add_embedding is not None:
            embedding = embedding + self.add_embedding(context)
        return embedding

    def _features(self, x: Tensor, vector: Tensor | None) -> Tensor | None:
        wanted = self.config.vector
        if wanted is None:
            if vector is not None:
                raise SettingsError("UNet: this network was made without attributes, so it takes none.")
            return None
        if vector is None:
            return x.new_zeros(len(x), wanted)
        if tuple(vector.shape) != (len(x), wanted):
            raise SettingsError(f"UNet: the vector must be {(len(x), wanted)}, not {tuple(vector.shape)}.")
        return vector.to(x.dtype)

    def _rows(self, x: Tensor, classes: Tensor | None) -> Tensor | None:
        if self.config.classes is None:
            if classes is not None:
                raise SettingsError("UNet: this network was made without classes, so it cannot be given one.")
            return None
        if classes is None:
            if not self.config.null_class:
                raise SettingsError(
                    'UNet: this network needs a class for every image (it has no "no class").'
                )
            return torch.full((len(x),), self.config.classes, dtype=torch.int64, device=x.device)
        return classes

    def _check(self, x: Tensor, context: Tensor | None) -> None:
        c = self.config
        if x.ndim != c.dims + 2 or x.shape[1] != c.in_channels:
            wanted = f"(batch, {c.in_channels}{', size' * c.dims})"
            raise SettingsError(f"UNet: the input must be {wanted}, not {tuple(x.shape)}.")
        if any(n % self.factor for n in x.shape[2:]):
            size = " x ".join(str(n) for n in x.shape[2:])
            raise SettingsError(
                f"UNet: the size {size} must be divisible by {self.factor}; resize or crop the images."
            )
        if c.looks and context is None:
            raise SettingsError("UNet: this network looks at a context (a caption), so it must be given one.")
        if context is not None and not c.looks:
            raise SettingsError("UNet: this network does not look at a context, so it cannot be given one.")


def _through(
    block: nn.Module,
    attention: nn.Module | None,
    h: Tensor,
    embedding: Tensor,
    context: Tensor | None,
    skip: Tensor | None,
) -> Tensor:
    """A residual block and its attention; what was kept on the way down goes in beside h."""
    h = block(h if skip is None else torch.cat([h, skip], dim=1), embedding)
    return h if attention is None else attention(h, context)
