"""U-Nets and transformers of four sizes, fitted to the images."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sfumato.networks.dit import DiTConfig
from sfumato.networks.limits import check
from sfumato.networks.text import TextConfig
from sfumato.networks.unet_config import UNetConfig


@dataclass(frozen=True)
class Size:
    """A size: its channels at about 32, 16 and 8 pixels a side, and how fast it may learn (AdamW)."""

    channels: tuple[int, int, int]
    layers: int
    groups: int
    learning_rate: float
    text: tuple[int, int]
    """Width and layers of a text encoder that is trained with it."""


SIZES: dict[str, Size] = {
    "tiny": Size((16, 32, 64), 1, 8, 2e-3, (64, 2)),
    "small": Size((32, 64, 128), 1, 16, 1e-3, (128, 3)),
    "base": Size((64, 96, 192), 2, 16, 1e-3, (256, 4)),
    "large": Size((128, 192, 384), 2, 32, 2e-4, (512, 6)),
}
"""About 0.7, 3, 9 and 37 million parameters for images of 32 x 32."""


@dataclass(frozen=True)
class Transformer:
    """A size of transformers: heads and their channels, layers, and how fast it may learn (AdamW)."""

    heads: int
    head_channels: int
    layers: int
    learning_rate: float


TRANSFORMERS: dict[str, Transformer] = {
    "dit-tiny": Transformer(3, 32, 4, 1e-3),
    "dit-small": Transformer(5, 32, 6, 6e-4),
    "dit-base": Transformer(4, 64, 8, 4e-4),
    "dit-large": Transformer(6, 64, 12, 2e-4),
}
"""About 0.8, 3, 11 and 35 million parameters; the last is DiT-S of Peebles & Xie (2023)."""

MODELS = (*SIZES, *TRANSFORMERS)
"""All networks that have a name: U-Nets, then transformers."""
MOST_TOKENS = 256
"""A transformer's patches grow with the image, so that it is about so many: 32 x 32 in patches of 2."""

COARSEST = 8
"""The side, in pixels, at which a network has its most channels, and its attention."""


def preset(
    size: str,
    *,
    channels: int,
    image_size: tuple[int, int],
    classes: int | None = None,
    learned_variance: bool = False,
    self_conditioned: bool = False,
    dropout: float = 0.0,
    vector: int | None = None,
    context_dim: int | None = None,
    picture: int = 0,
    conditioning: str = "add",
    class_input: str = "embedding",
    skips: bool = True,
    checkpointing: bool = False,
) -> UNetConfig:
    """The U-Net of a size for images (channels, *image_size), (height, width).

    It halves the image while that stays whole, down to about 8 x 8, with few channels where the image is
    large and many, and attention of wide heads, where it is small: there parameters cost least. Images
    larger than 32 x 32 add resolutions of fewer channels. diffusers' UNet2DModel can express each. With
    classes there is one for none. A learned variance doubles what comes out, self-conditioning what goes in,
    and a picture as condition adds its channels. `vector` are the features of attributes; `conditioning` and
    `class_input` say how all this and a class enter (see `UNetConfig`). With a context (a
    caption) of this width the attention looks at it too, in the middle always: it is still at the coarse
    resolutions alone, so it costs little on a CPU; as a whole the caption enters everywhere, beside the time
    (Nichol et al. 2022). UNet2DConditionModel expresses both. `skips` and `checkpointing` are those of
    `UNetConfig`.
    """
    check("preset", size in SIZES, f"the size must be one of {', '.join(SIZES)}, not {size[:40]!r}")
    check("preset", min(image_size) > 0, f"the image's size must be positive, not {image_size}")
    chosen = SIZES[size]
    sides = _sides(image_size)
    widths = tuple(_width(chosen, side) for side in sides)
    kind = "self" if context_dim is None else "cross"
    attention = tuple(kind if side < 1.5 * COARSEST else "none" for side in sides)
    middle = kind if sides[-1] <= 4 * COARSEST or context_dim is not None else "none"
    ins, outs = _ends(channels, self_conditioned, picture, learned_variance)
    return UNetConfig(
        in_channels=ins,
        out_channels=outs,
        image_size=image_size,
        channels=widths,
        layers=chosen.layers,
        attention=attention,
        middle=middle,
        head_channels=math.gcd(64, widths[-1]),
        groups=chosen.groups,
        time_channels=max(128, 4 * chosen.channels[0]),
        classes=classes,
        null_class=classes is not None,
        dropout=dropout,
        vector=vector,
        context_dim=context_dim,
        context_heads=None if context_dim is None else context_dim // math.gcd(64, context_dim),
        conditioning=conditioning,
        class_input=class_input,
        skips=skips,
        checkpointing=checkpointing,
    )


def transformer_preset(
    size: str,
    *,
    channels: int,
    image_size: tuple[int, int],
    classes: int | None = None,
    learned_variance: bool = False,
    self_conditioned: bool = False,
    dropout: float = 0.0,
    picture: int = 0,
    checkpointing: bool = False,
) -> DiTConfig:
    """The DiT of a size for images (channels, *image_size), (height, width): patches of 2, or of the least
    power of two with which the image is at most `MOST_TOKENS` of them, as far as it divides both sides. It is
    told a class, and with classes there is one for none. The other words are those of `preset`."""
    known = ", ".join(TRANSFORMERS)
    check("preset", size in TRANSFORMERS, f"the size must be one of {known}, not {size[:40]!r}")
    check("preset", min(image_size) > 0, f"the image's size must be positive, not {image_size}")
    chosen, (height, width) = TRANSFORMERS[size], image_size
    patch = 1
    while height % (2 * patch) == width % (2 * patch) == 0 and (
        patch == 1 or height * width > MOST_TOKENS * patch**2
    ):
        patch *= 2
    ins, outs = _ends(channels, self_conditioned, picture, learned_variance)
    return DiTConfig(
        in_channels=ins,
        out_channels=outs,
        image_size=max(image_size),
        patch=patch,
        heads=chosen.heads,
        head_channels=chosen.head_channels,
        layers=chosen.layers,
        dropout=dropout,
        classes=classes,
        checkpointing=checkpointing,
    )


def _ends(channels: int, self_conditioned: bool, picture: int, learned_variance: bool) -> tuple[int, int]:
    """The channels that go in, and those that come out."""
    ins = (2 * channels if self_conditioned else channels) + picture
    return ins, 2 * channels if learned_variance else channels


def learning_rate(model: str) -> float:
    """How fast a network of this name may learn, by AdamW."""
    return SIZES[model].learning_rate if model in SIZES else TRANSFORMERS[model].learning_rate


def text_preset(size: str, vocabulary: int, length: int, end: int) -> TextConfig:
    """The text encoder that is trained with the U-Net of a size: for so many tokens, so many of them in a
    caption, whose last one is number `end`."""
    check("preset", size in SIZES, f"the size must be one of {', '.join(SIZES)}, not {size[:40]!r}")
    width, layers = SIZES[size].text
    return TextConfig(vocabulary, width, layers, width // 32, 4 * width, length, end)


def _sides(image_size: tuple[int, int]) -> list[float]:
    """The side of a square of as many pixels, at each resolution."""
    height, width = image_size
    sides = [math.sqrt(height * width)]
    while height % 2 == width % 2 == 0 and min(height, width) >= 8 and sides[-1] >= 1.5 * COARSEST:
        height, width = height // 2, width // 2
        sides.append(sides[-1] / 2)
    return sides


def _width(chosen: Size, side: float) -> int:
    """Channels at a resolution, by its distance from the coarsest; halved again beyond 32 pixels a side."""
    place = len(chosen.channels) - 1 - max(0, round(math.log2(side / COARSEST)))
    if place >= 0:
        return chosen.channels[place]
    first = chosen.channels[0]
    return max(min(32, first), first >> -place)
