"""Networks of four sizes, fitted to the images."""

from __future__ import annotations

from sfumato.networks.limits import check
from sfumato.networks.unet_config import UNetConfig

SIZES = ("tiny", "small", "base", "large")
"""About 1, 3, 9 and 40 million parameters."""


def preset(
    size: str,
    *,
    channels: int,
    image_size: tuple[int, int],
    classes: int | None = None,
    learned_variance: bool = False,
    dropout: float = 0.0,
) -> UNetConfig:
    """The U-Net of a size for images (channels, *image_size).

    Few channels where the image is large and many where it is small, one wide attention head for each 64 channels or
    more. diffusers' UNet2DModel can express each of them.
    """
    check("preset", size in SIZES, f"the size must be one of {', '.join(SIZES)}, not {size[:40]}")
    widths = {
        "tiny": (32, 64, 128),
        "small": (48, 96, 192),
        "base": (64, 128, 320),
        "large": (128, 256, 640),
    }[size]
    levels = _levels(image_size, len(widths))
    return UNetConfig(
        in_channels=channels,
        out_channels=2 * channels if learned_variance else channels,
        image_size=image_size,
        channels=widths[:levels],
        layers=2,
        attention=tuple("self" if level == levels - 1 else "none" for level in range(levels)),
        head_channels=64,
        groups=16,
        classes=classes,
        null_class=classes is not None,
        dropout=dropout,
    )


def _levels(image_size: tuple[int, int], most: int) -> int:
    levels = 1
    while levels < most and all(n % 2**levels == 0 and n // 2**levels >= 4 for n in image_size):
        levels += 1
    return levels
