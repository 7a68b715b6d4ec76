"""U-Net (Ronneberger et al. 2015; Ho et al. 2020; Dhariwal & Nichol 2021; Rombach et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sfumato.errors import SettingsError
from sfumato.networks.attention import ImageAttention, ImageTransformer
from sfumato.networks.blocks import Downsample, ResidualBlock, Stage, Upsample
from sfumato.networks.convolution import channels_last, convolution
from sfumato.networks.embeddings import TimeEmbedding, sinusoids
from sfumato.networks.limits import check, whole
from sfumato.networks.normalization import norm_silu
from sfumato.noise import current_streams, number_dropouts, streams


@dataclass(frozen=True)
class UNetConfig:
    """The settings of a U-Net. Every field is plain JSON; a wrong one raises a SettingsError.

    One entry of `channels` is one resolution, from the finest; each is half the size of the one before.
    """

    in_channels: int = 3
    out_channels: int = 3
    """Twice the image's channels where the network also learns the variance."""
    image_size: tuple[int, ...] | None = None
    """The size it was made for, (height, width); a note, other sizes work too."""
    dims: int = 2
    """1 for signals, 2 for images, 3 for volumes and films."""
    channels: tuple[int, ...] = (64, 128, 256)
    layers: int | tuple[int, ...] = 2
    """Residual blocks at each resolution on the way down; one more on the way up."""
    attention: tuple[str, ...] = ()
    """"none", "self" or "cross" (self-attention and attention to a context) for each resolution; () is none anywhere."""
    middle: str = "self"
    """The same for the middle, at the coarsest resolution."""
    head_channels: int | None = 64
    """Channels of one attention head, None for a single head; not used where `heads` is given."""
    heads: int | tuple[int, ...] | None = None
    """Number of heads, one number or one for each resolution."""
    context_dim: int | None = None
    """Width of the context's tokens; needed by "cross"."""
    transformer_layers: int | tuple[int, ...] = 1
    """Transformer blocks in each "cross" attention, one number or one for each resolution."""
    linear_projection: bool = False
    """Whether "cross" attention projects by a linear layer (Stable Diffusion 2) or a 1 x 1 convolution (1)."""
    groups: int = 32
    norm_eps: float = 1e-5
    middle_norm: bool = True
    """Whether the middle's self-attention normalises first."""
    conditioning: str = "add"
    """How the embedding enters a block: "add", or "scale_shift" for adaptive group normalisation."""
    resampling: str = "conv"
    """"conv", or "resnet" for residual blocks that halve and double (BigGAN)."""
    downsample_padding: int = 1
    """1 is symmetric, 0 pads the far ends only (Ho et al.)."""
    dropout: float = 0.0
    time_channels: int | None = None
    """Width of the embedding; None is four times the first of `channels`."""
    flip_sin_to_cos: bool = True
    freq_shift: int | float = 0
    classes: int | None = None
    null_class: bool = False
    """Whether one more class, the last, means "no class"."""
    class_input: str = "embedding"
    """How the class enters: "embedding" (added to the time's, and so into every block) or "concat" (one-hot maps beside x)."""
    skips: bool = True
    """False leaves the connections from the way down to the way up out: an encoder-decoder."""
    zero_init: bool = True
    """Whether the last layer of every residual branch and of the network starts at zero."""
    checkpointing: bool = False
    """Whether to compute activations again in the backward pass instead of keeping them: less memory, more time."""

    def __post_init__(self) -> None:
        who, levels = "UNet", len(self.channels)
        whole(who, "dims", self.dims, 1, 3)
        whole(who, "in_channels", self.in_channels, 1, 4096)
        whole(who, "out_channels", self.out_channels, 1, 4096)
        whole(who, "the number of resolutions", levels, 1, 12)
        whole(who, "groups", self.groups, 1, 4096)
        for c in self.channels:
            whole(who, "channels", c, 1, 16384)
            check(who, c % self.groups == 0, f"channels {c} must be a multiple of the {self.groups} groups")
        for name in ("layers", "transformer_layers", "heads"):
            value = getattr(self, name)
            for n in value if isinstance(value, tuple) else () if value is None else (value,):
                whole(who, name, n, 1, 128)
            check(
                who,
                not isinstance(value, tuple) or len(value) == levels,
                f"{name} must have {levels} entries",
            )
        check(
            who,
            len(self.attention) in (0, levels),
            f"attention must have {levels} entries, one for each of channels",
        )
        kinds = ("none", "self", "cross")
        check(
            who,
            all(a in kinds for a in (*self.attention, self.middle)),
            f"attention and middle must be of {kinds}",
        )
        for level in range(levels):
            if self.attention_at(level) != "none" or (level == levels - 1 and self.middle != "none"):
                self._check_heads(level)
        if "cross" in (*self.attention, self.middle):
            check(who, self.context_dim is not None, "attention to a context needs context_dim")
        for name, high in (("context_dim", 65536), ("time_channels", 65536), ("classes", 10_000_000)):
            if getattr(self, name) is not None:
                whole(who, name, getattr(self, name), 1, high)
        check(who, self.conditioning in ("add", "scale_shift"), 'conditioning must be "add" or "scale_shift"')
        check(who, self.resampling in ("conv", "resnet"), 'resampling must be "conv" or "resnet"')
        check(who, self.class_input in ("embedding", "concat"), 'class_input must be "embedding" or "concat"')
        whole(who, "downsample_padding", self.downsample_padding, 0, 1)
        check(who, 0 <= self.dropout < 1, f"dropout must be in [0, 1), not {self.dropout}")
        check(who, self.norm_eps > 0, "norm_eps must be positive")
        check(who, self.classes is not None or not self.null_class, "a null class needs classes")

    def _check_heads(self, level: int) -> None:
        c = self.channels[level]
        if self.heads is None and self.head_channels is not None:
            whole("UNet", "head_channels", self.head_channels, 1, 16384)
            check(
                "UNet",
                c % self.head_channels == 0,
                f"channels {c} must be a multiple of head_channels {self.head_channels}",
            )
        check(
            "UNet",
            c % self.heads_at(level) == 0,
            f"channels {c} must be a multiple of the {self.heads_at(level)} heads",
        )

    def attention_at(self, level: int) -> str:
        return self.attention[level] if self.attention else "none"

    def heads_at(self, level: int) -> int:
        if self.heads is not None:
            return self.heads[level] if isinstance(self.heads, tuple) else self.heads
        return 1 if self.head_channels is None else self.channels[level] // self.head_channels

    def layers_at(self, level: int) -> int:
        return self.layers[level] if isinstance(self.layers, tuple) else self.layers

    def transformer_layers_at(self, level: int) -> int:
        n = self.transformer_layers
        return n[level] if isinstance(n, tuple) else n

    @property
    def embedding(self) -> int:
        return self.time_channels or 4 * self.channels[0]

    @property
    def class_rows(self) -> int:
        return 0 if self.classes is None else self.classes + self.null_class


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
        self.class_embedding = (
            nn.Embedding(config.class_rows, config.embedding) if config.class_rows and not maps else None
        )
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
        self, x: Tensor, label: Tensor, *, classes: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """classes (B,) int64, context (B, N, context_dim): given exactly where the configuration has them.

        Without classes a network with a null class takes that. A size that the network cannot halve often enough raises
        a SettingsError.
        """
        self._check(x, context)
        rows = self._rows(x, classes)
        embedding = F.silu(self._embed(x, label, rows))
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
        h = self._run(self.mid_block.resnets[1], None, h, embedding, context)
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
        noise = current_streams()  # the backward pass may run in another thread, where they are not set

        def run(h: Tensor, embedding: Tensor, context: Tensor | None, skip: Tensor | None) -> Tensor:
            with streams(noise):
                h = block(h if skip is None else torch.cat([h, skip], dim=1), embedding)
                return h if attention is None else attention(h, context)

        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(run, h, embedding, context, skip, use_reentrant=False, preserve_rng_state=False)
        return run(h, embedding, context, skip)

    def _embed(self, x: Tensor, label: Tensor, rows: Tensor | None) -> Tensor:
        c = self.config
        told = sinusoids(label, c.channels[0], c.flip_sin_to_cos, c.freq_shift).to(x.dtype)
        embedding = self.time_embedding(told)
        if rows is not None and self.class_embedding is not None:
            embedding = embedding + self.class_embedding(rows)
        return embedding

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
        if "cross" in (*c.attention, c.middle) and context is None:
            raise SettingsError("UNet: this network looks at a context (a caption), so it must be given one.")
