"""A judge of patches: for each place of an image, whether the patch around it is real."""

from __future__ import annotations

import math

from torch import Tensor, nn

from sfumato.networks.limits import check


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017): 4 x 4 convolutions of stride 2 and a last one to one channel.

    (B, C, H, W) -> (B, 1, H', W'), larger for what looks real. Groups are normalised in place of batches, so
    that an image is judged alike in any batch. `layers` is cut so that two places remain along each side.
    """

    def __init__(
        self, channels: int, image_size: tuple[int, int], width: int = 32, layers: int = 3, groups: int = 8
    ) -> None:
        super().__init__()
        check("PatchDiscriminator", channels > 0, f"the images need channels, not {channels}")
        check(
            "PatchDiscriminator", min(image_size) >= 4, f"the images must be 4 x 4 or more, not {image_size}"
        )
        check("PatchDiscriminator", width > 0 and width % groups == 0, f"{width} channels in {groups} groups")
        deep = max(1, min(layers, int(math.log2(min(image_size))) - 1))
        parts: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for i in range(1, deep):
            into, out = width * 2 ** (i - 1), width * 2**i
            parts += [nn.Conv2d(into, out, 4, 2, 1, bias=False), nn.GroupNorm(groups, out), nn.LeakyReLU(0.2)]
        parts.append(nn.Conv2d(width * 2 ** (deep - 1), 1, 3, 1, 1))
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
