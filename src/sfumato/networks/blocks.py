"""The parts of a U-Net: the residual block, and the steps from one resolution to the next."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.networks.convolution import convolution, double, double_then, halve
from sfumato.networks.normalization import norm_silu, spread
from sfumato.noise import Dropout


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) ; embedding))).

    The embedding is added before the second normalisation (Ho et al. 2020) or, `scale_shift`, sets its
    scale and shift (Dhariwal & Nichol 2021). `resize` +1 or -1 doubles or halves the image after the first
    activation (BigGAN; Brock et al. 2019). `embedding` (B, D) comes activated already: once instead of once
    a block.
    """

    def __init__(
        self,
        dims: int,
        ins: int,
        outs: int,
        embedding: int,
        groups: int,
        eps: float,
        scale_shift: bool,
        dropout: float,
        resize: int = 0,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.resize = resize
        self.norm1 = nn.GroupNorm(groups, ins, eps=eps)
        self.conv1 = convolution(dims, ins, outs, 3)
        self.time_emb_proj = nn.Linear(embedding, 2 * outs if scale_shift else outs)
        self.norm2 = nn.GroupNorm(groups, outs, eps=eps)
        self.dropout = Dropout(dropout)
        self.conv2 = convolution(dims, outs, outs, 3)
        self.conv_shortcut = convolution(dims, ins, outs, 1) if ins != outs else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = norm_silu(x, self.norm1)
        if self.resize > 0:
            x, h = double(x), double_then(self.conv1, h)
        elif self.resize < 0:
            x, h = halve(x), self.conv1(halve(h))
        else:
            h = self.conv1(h)
        told = self.time_emb_proj(embedding)
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = norm_silu(h, self.norm2, scale, shift)
        else:
            h = norm_silu(h + spread(told, h), self.norm2)
        h = self.conv2(self.dropout(h))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nn.Module):
    """A convolution of stride 2. Padding 1 is symmetric; 0 pads the far ends only, as DDPM did."""

    def __init__(self, dims: int, channels: int, padding: int) -> None:
        super().__init__()
        self.far = (0, 1) * dims if padding == 0 else None
        self.conv = convolution(dims, channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.conv(x if self.far is None else F.pad(x, self.far))


class Upsample(nn.Module):
    """Every place doubled, then a convolution."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.conv = convolution(dims, channels, channels, 3)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return double_then(self.conv, x)


class Stage(nn.Module):
    """What happens at one resolution: residual blocks, attentions or none, a step to the next."""

    def __init__(
        self,
        resnets: list[nn.Module],
        attentions: list[nn.Module],
        down: nn.Module | None = None,
        up: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions)
        self.downsamplers = nn.ModuleList([] if down is None else [down])
        self.upsamplers = nn.ModuleList([] if up is None else [up])

    def attention(self, j: int) -> nn.Module | None:
        return self.attentions[j] if j < len(self.attentions) else None

    def steps(self) -> list[nn.Module]:
        """The step to the next resolution: one module or none."""
        return [*self.downsamplers, *self.upsamplers]
