"""Hints: pictures that a model is shown beside the noise, such as the small one of an upscaler.

All have one layout: as many channels as the model's pictures, and one more plane that says how far each pixel
is to be trusted, 1 fully and 0 not at all. All zeros is no hint, which is how one is hidden in training, so a
model of a task can also be guided, and be sampled without one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from sfumato.errors import SettingsError
from sfumato.noise import Noise
from sfumato.operators import LUMA, downsample
from sfumato.training.holes import holes

MOST_NOISE = 0.5
"""The strongest noise that training adds to a small picture: its sigma, beside alpha^2 = 1 - sigma^2."""
WIDEST = 0.1
"""The standard deviation of training's widest blur, as a share of the picture's shorter side."""


@runtime_checkable
class Hint(Protocol):
    """How a hint is made of the picture itself, in training: one stream of the noise for each."""

    def __call__(self, images: Tensor, noise: Noise) -> Tensor:
        """images (B, C, H, W) in [-1, 1] -> (B, C + 1, H, W)."""
        ...


def hint(picture: Tensor, trust: Tensor | float) -> Tensor:
    """The picture (B, C, H, W) and its plane of trust, one number or (B, 1, 1, 1) to (B, 1, H, W)."""
    plane = torch.as_tensor(trust).to(picture).expand_as(picture[:, :1])
    return torch.cat([picture, plane], dim=1)


@dataclass(frozen=True)
class Upscale:
    """A picture from one `factor` times smaller, resized up by a bicubic.

    In training the small picture is noised, to a sigma drawn evenly from 0 to 1/2 and told as a trust of
    1 - sigma, so that the flaws of another model's pictures matter less (conditioning augmentation; Ho et al.
    2022, "Cascaded diffusion models", section 4).
    """

    factor: int = 4

    def __call__(self, images: Tensor, noise: Noise) -> Tensor:
        sigma = MOST_NOISE * noise.uniform((1, 1, 1), "level")
        small = self.shrunk(images)
        size = images.shape[2], images.shape[3]
        return self.of(noised(small, sigma, noise.normal(small.shape[1:], "noise")), size, sigma)

    def shrunk(self, images: Tensor) -> Tensor:
        """The small pictures: the mean of each block. Raises SettingsError where blocks do not fill it."""
        height, width = images.shape[-2:]
        if self.factor < 2 or height % self.factor or width % self.factor:
            raise SettingsError(
                f"pictures of {width} x {height} cannot be upscaled by {self.factor}: choose a --factor from "
                "2 that divides both sides"
            )
        return downsample(images.shape[1:], (height // self.factor, width // self.factor))(images)

    def of(self, small: Tensor, size: tuple[int, int], sigma: Tensor | float = 0.0) -> Tensor:
        """The hint of small pictures (B, C, h, w), `noised` to sigma, for pictures of size (H, W)."""
        return hint(interpolate(small, size, mode="bicubic", align_corners=False), 1 - sigma)


def noised(small: Tensor, sigma: Tensor | float, eps: Tensor) -> Tensor:
    """sqrt(1 - sigma^2) small + sigma eps."""
    s = torch.as_tensor(sigma).to(small)
    return (1 - s.square()).sqrt() * small + s * eps.to(small)


@dataclass(frozen=True)
class Inpaint:
    """A picture with holes: blocks, strokes, or all but a block. What is hidden is 0, and trusted 0."""

    def __call__(self, images: Tensor, noise: Noise) -> Tensor:
        height, width = images.shape[-2:]
        return self.of(images, ~holes((height, width), noise)[:, None])

    def of(self, pictures: Tensor, known: Tensor) -> Tensor:
        """The hint of pictures (B, C, H, W) of which some pixels are known, (B, 1, H, W)."""
        return hint(pictures * known.to(pictures), known)


@dataclass(frozen=True)
class Colourise:
    """A colour picture from its luma, the same in all channels."""

    def __call__(self, images: Tensor, noise: Noise) -> Tensor:
        if images.shape[1] != 3:
            raise SettingsError(
                f"only colour pictures can be colourised, not pictures of {images.shape[1]} "
                "channels: leave this task out, or train with --channels 3"
            )
        return self.of(images)

    def of(self, pictures: Tensor) -> Tensor:
        """The hint of grey pictures (B, 1, H, W), or of colour pictures by their luma."""
        return hint(luma(pictures).expand(-1, 3, -1, -1), 1.0)


@dataclass(frozen=True)
class Edges:
    """A picture from its outlines, which a user may as well draw: an aligned control picture."""

    def __call__(self, images: Tensor, noise: Noise) -> Tensor:
        return self.of(outlines(images), images.shape[1])

    def of(self, drawn: Tensor, channels: int) -> Tensor:
        """The hint of outlines (B, 1, H, W), white on black, for pictures of so many channels."""
        return hint(drawn.expand(-1, channels, -1, -1), 1.0)


@dataclass(frozen=True)
class Deblur:
    """A picture from a blurred one. The blur's width is drawn evenly from 0 to a tenth of the shorter side
    and not told, so that a user need not know it either."""

    def __call__(self, images: Tensor, noise: Noise) -> Tensor:
        stds = WIDEST * min(images.shape[-2:]) * noise.uniform((), "width")
        return self.of(blurred(images, stds))

    def of(self, pictures: Tensor) -> Tensor:
        """The hint of blurred pictures (B, C, H, W)."""
        return hint(pictures, 1.0)


def luma(pictures: Tensor) -> Tensor:
    """How bright colour pictures (B, 3, H, W) are, (B, 1, H, W) (ITU-R BT.601); grey ones as they are."""
    if pictures.shape[1] == 1:
        return pictures
    weights = torch.tensor(LUMA).to(pictures)
    return (pictures[:, :3] * weights[:, None, None]).sum(1, keepdim=True)


def outlines(pictures: Tensor) -> Tensor:
    """Where brightness changes, (B, 1, H, W), -1 nowhere to 1 at a sharp edge of half the range or more.

    The length of Sobel's gradient of the luma (Sobel & Feldman 1968), edges repeated.
    """
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).to(pictures) / 4
    kernels = torch.stack([across, across.T])[:, None]
    gradient = conv2d(pad(luma(pictures), (1, 1, 1, 1), mode="replicate"), kernels)
    return 2 * gradient.square().sum(1, keepdim=True).sqrt().clamp(max=1) - 1


def blurred(pictures: Tensor, stds: Tensor) -> Tensor:
    """Each picture blurred by a Gaussian of its own width, (B,) pixels, the edges repeated. Widths up to a
    tenth of the shorter side."""
    reach = math.ceil(3 * WIDEST * min(pictures.shape[-2:]))
    at = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (at / stds[:, None].clamp(min=1e-3)) ** 2).to(pictures)
    kernels = (weights / weights.sum(1, keepdim=True))[:, None, None]
    b, c, height, width = pictures.shape
    rows = pad(pictures, (reach, reach, 0, 0), mode="replicate").transpose(0, 1)
    rows = conv2d(rows, kernels, groups=b)
    columns = pad(rows, (0, 0, reach, reach), mode="replicate")
    return conv2d(columns, kernels.mT, groups=b).transpose(0, 1).reshape(b, c, height, width)
