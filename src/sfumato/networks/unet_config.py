"""The settings of a U-Net."""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.networks.limits import check, whole


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
    """"none", "self" or "cross" (self-attention, then to a context) for each resolution; () is none."""
    middle: str = "self"
    """The same for the middle, at the coarsest resolution."""
    head_channels: int | None = 64
    """Channels of one attention head, None for a single head; not used where `heads` is given."""
    heads: int | tuple[int, ...] | None = None
    """Number of heads, one number or one for each resolution."""
    context_dim: int | None = None
    """Width of the context's tokens; needed by "cross"."""
    context_heads: int | None = None
    """Heads by which the context as a whole is pooled and enters beside the time's embedding; None: not."""
    transformer_layers: int | tuple[int, ...] = 1
    """Transformer blocks in each "cross" attention, one number or one for each resolution."""
    linear_projection: bool = False
    """Whether "cross" attention projects by a linear layer (Stable Diffusion 2) or a 1 x 1 convolution."""
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
    """How the class enters: "embedding" (added to the time's) or "concat" (one-hot maps beside x)."""
    vector: int | None = None
    """Features of a picture's attributes, which enter beside the time's embedding; None without."""
    skips: bool = True
    """False leaves the connections from the way down to the way up out: an encoder-decoder."""
    zero_init: bool = True
    """Whether the last layer of every residual branch and of the network starts at zero."""
    checkpointing: bool = False
    """Whether the backward pass computes activations again instead of keeping them."""

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
        if self.looks:
            check(who, self.context_dim is not None, "attention to a context needs context_dim")
        if self.context_heads is not None:
            whole(who, "context_heads", self.context_heads, 1, 1024)
            self._check_pooling(self.context_heads)
        bounds = {"context_dim": 65536, "time_channels": 65536, "classes": 10_000_000, "vector": 1_000_000}
        for name, high in bounds.items():
            if getattr(self, name) is not None:
                whole(who, name, getattr(self, name), 1, high)
        check(who, self.conditioning in ("add", "scale_shift"), 'conditioning must be "add" or "scale_shift"')
        check(who, self.resampling in ("conv", "resnet"), 'resampling must be "conv" or "resnet"')
        check(who, self.class_input in ("embedding", "concat"), 'class_input must be "embedding" or "concat"')
        whole(who, "downsample_padding", self.downsample_padding, 0, 1)
        check(who, 0 <= self.dropout < 1, f"dropout must be in [0, 1), not {self.dropout}")
        check(who, self.norm_eps > 0, "norm_eps must be positive")
        check(who, self.classes is not None or not self.null_class, "a null class needs classes")

    def _check_pooling(self, heads: int) -> None:
        check("UNet", self.looks, "context_heads are for a network that looks at a context")
        check(
            "UNet",
            (self.context_dim or 0) % heads == 0,
            f"context_dim {self.context_dim} must be a multiple of the {heads} context_heads",
        )

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
    def looks(self) -> bool:
        """Whether it looks at a context."""
        return "cross" in (*self.attention, self.middle)

    @property
    def embedding(self) -> int:
        return self.time_channels or 4 * self.channels[0]

    @property
    def class_rows(self) -> int:
        return 0 if self.classes is None else self.classes + self.null_class
