"""A classifier: the way down of a U-Net, then the mean over all places (Dhariwal & Nichol 2021, section 4.1).

Told a noise level, it judges noisy pictures; its features are a picture's description for other uses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import SettingsError
from sfumato.networks.attention import ImageAttention
from sfumato.networks.blocks import Downsample, ResidualBlock, Stage
from sfumato.networks.convolution import channels_last, convolution
from sfumato.networks.embeddings import TimeEmbedding, sinusoids
from sfumato.networks.limits import check, whole
from sfumato.networks.normalization import norm_silu
from sfumato.networks.unet_config import UNetConfig
from sfumato.noise import number_dropouts

_WHO = "Classifier"


@dataclass(frozen=True)
class ClassifierConfig:
    """The settings of a classifier. Every field is plain JSON; a wrong one raises a SettingsError.

    One entry of `channels` is one resolution, from the finest; each is half the size of the one before.
    """

    in_channels: int = 3
    outputs: int = 10
    """Numbers told of a picture: the classes' logits, or the width of an embedding."""
    image_size: tuple[int, ...] | None = None
    """The size it was made for, (height, width); a note, other sizes work too."""
    dims: int = 2
    """1 for signals, 2 for images, 3 for volumes and films."""
    channels: tuple[int, ...] = (64, 128, 256)
    layers: int | tuple[int, ...] = 1
    """Residual blocks at each resolution."""
    attention: tuple[str, ...] = ()
    """"none" or "self" for each resolution; () is none."""
    middle: str = "self"
    """The same after the coarsest resolution."""
    head_channels: int | None = 64
    """Channels of one attention head, None for a single head."""
    groups: int = 32
    dropout: float = 0.0
    told: bool = True
    """Whether it is told a noise level; False for clean pictures alone."""
    time_channels: int | None = None
    """Width of the level's embedding; None is four times the first of `channels`."""

    def __post_init__(self) -> None:
        levels = len(self.channels)
        whole(_WHO, "dims", self.dims, 1, 3)
        whole(_WHO, "in_channels", self.in_channels, 1, 4096)
        whole(_WHO, "outputs", self.outputs, 1, 1_000_000)
        whole(_WHO, "the number of resolutions", levels, 1, 12)
        whole(_WHO, "groups", self.groups, 1, 4096)
        for width in self.channels:
            whole(_WHO, "channels", width, 1, 16384)
            good = width % self.groups == 0
            check(_WHO, good, f"channels {width} must be a multiple of the {self.groups} groups")
        counts = self.layers if isinstance(self.layers, tuple) else (self.layers,) * levels
        check(_WHO, len(counts) == levels, f"layers must have {levels} entries")
        for count in counts:
            whole(_WHO, "layers", count, 1, 128)
        kinds = (*self.attention, self.middle)
        check(_WHO, len(self.attention) in (0, levels), f"attention must have {levels} entries")
        check(_WHO, all(kind in ("none", "self") for kind in kinds), 'attention must be "none" or "self"')
        looking = [self.channels[i] for i, kind in enumerate(self.attention) if kind == "self"]
        for width in looking + [self.channels[-1]] * (self.middle == "self"):
            self._check_heads(width)
        check(_WHO, 0 <= self.dropout < 1, f"dropout must be in [0, 1), not {self.dropout}")
        if self.time_channels is not None:
            whole(_WHO, "time_channels", self.time_channels, 1, 65536)

    def _check_heads(self, width: int) -> None:
        if self.head_channels is not None:
            whole(_WHO, "head_channels", self.head_channels, 1, 16384)
            good = width % self.head_channels == 0
            check(_WHO, good, f"channels {width} must be a multiple of head_channels {self.head_channels}")

    @staticmethod
    def half(unet: UNetConfig, *, in_channels: int, outputs: int, told: bool = True) -> ClassifierConfig:
        """The classifier that is as wide and deep as the way down of this U-Net."""
        single = unet.heads is not None or unet.head_channels is None
        return ClassifierConfig(
            in_channels=in_channels,
            outputs=outputs,
            image_size=unet.image_size,
            dims=unet.dims,
            channels=unet.channels,
            layers=unet.layers,
            attention=tuple("none" if kind == "none" else "self" for kind in unet.attention),
            middle="none" if unet.middle == "none" else "self",
            head_channels=None if single else unet.head_channels,
            groups=unet.groups,
            dropout=unet.dropout,
            told=told,
            time_channels=unet.time_channels if told else None,
        )

    def layers_at(self, level: int) -> int:
        return self.layers[level] if isinstance(self.layers, tuple) else self.layers

    def attention_at(self, level: int) -> str:
        return self.attention[level] if self.attention else "none"

    def heads(self, width: int) -> int:
        return 1 if self.head_channels is None else width // self.head_channels

    @property
    def embedding(self) -> int:
        return (self.time_channels or 4 * self.channels[0]) if self.told else 1


class Classifier(nn.Module):
    """network(x, label): x (B, in_channels, *space), label (B,) -> (B, outputs): logits, or an embedding.

    Without a label a picture is clean, as with the label 0.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.conv_in = convolution(config.dims, config.in_channels, channels[0], 3)
        self.time_embedding = TimeEmbedding(channels[0], config.embedding) if config.told else None
        self.down_blocks = nn.ModuleList(self._down(level) for level in range(len(channels)))
        last = channels[-1]
        attentions = [] if config.middle == "none" else [self._attention(last)]
        self.mid_block = Stage([self._block(last, last), self._block(last, last)], attentions)
        self.norm_out = nn.GroupNorm(config.groups, last)
        self.head = nn.Linear(last, config.outputs)
        self._zero()
        number_dropouts(self)
        if config.dims == 2:
            self.to(memory_format=torch.channels_last)

    def _block(self, ins: int, outs: int) -> ResidualBlock:
        c = self.config
        return ResidualBlock(c.dims, ins, outs, c.embedding, c.groups, 1e-5, c.told, c.dropout)

    def _attention(self, width: int) -> ImageAttention:
        return ImageAttention(width, self.config.heads(width), self.config.groups, 1e-5)

    def _down(self, level: int) -> Stage:
        c = self.config
        outs, count = c.channels[level], c.layers_at(level)
        ins = c.channels[max(level - 1, 0)]
        blocks: list[nn.Module] = [self._block(ins if j == 0 else outs, outs) for j in range(count)]
        looks = c.attention_at(level) == "self"
        attentions: list[nn.Module] = [self._attention(outs) for _ in range(count if looks else 0)]
        down = Downsample(c.dims, outs, 1) if level < len(c.channels) - 1 else None
        return Stage(blocks, attentions, down=down)

    def _zero(self) -> None:
        """Every residual branch starts at zero, as in the U-Net."""
        for part in self.modules():
            last = part.conv2 if isinstance(part, ResidualBlock) else None
            last = part.to_out[0] if isinstance(part, ImageAttention) else last
            for parameter in () if last is None else last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, outputs), for pictures of any size."""
        return self.head(self.features(x, label))

    def features(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """What the outputs are a linear map of: the mean over all places, (B, channels[-1])."""
        self._check(x, label)
        x = x.to(self.conv_in.weight.dtype)
        embedding = self._embed(x, label)
        h = self.conv_in(channels_last(x))
        for stage in self.down_blocks:
            for j, block in enumerate(stage.resnets):
                h = _through(block, stage.attention(j), h, embedding)
            for step in stage.steps():
                h = step(h, embedding)
        first, second = self.mid_block.resnets
        h = _through(first, self.mid_block.attention(0), h, embedding)
        h = second(h, embedding)
        return norm_silu(h, self.norm_out).flatten(2).mean(2)

    def _embed(self, x: Tensor, label: Tensor | None) -> Tensor:
        if self.time_embedding is None:
            return x.new_zeros(len(x), 1)
        label = x.new_zeros(len(x)) if label is None else label
        told = sinusoids(label, self.config.channels[0], True, 0).to(x.dtype)
        return F.silu(self.time_embedding(told))

    def _check(self, x: Tensor, label: Tensor | None) -> None:
        c = self.config
        if x.ndim != c.dims + 2 or x.shape[1] != c.in_channels:
            wanted = f"(batch, {c.in_channels}{', size' * c.dims})"
            raise SettingsError(f"{_WHO}: the input must be {wanted}, not {tuple(x.shape)}.")
        if label is not None and not c.told:
            raise SettingsError(f"{_WHO}: this network judges clean pictures and is told no noise level.")


def _through(block: nn.Module, attention: nn.Module | None, h: Tensor, embedding: Tensor) -> Tensor:
    h = block(h, embedding)
    return h if attention is None else attention(h)
