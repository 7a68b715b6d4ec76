"""Model: a network and what it means. The only nn.Module that knows what a level is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sfumato.denoiser import Bound, Condition
from sfumato.errors import SettingsError
from sfumato.level import Level, spread_on
from sfumato.predictions import Estimate, Prediction, Said
from sfumato.schedules import Schedule


@runtime_checkable
class Label(Protocol):
    """The number by which a network is told its level."""

    def __call__(self, level: Level, t: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Steps:
    """T t - 1: whole numbers at the nodes of a table of T steps, fractional between, 0 below the first
    (DDPM's t)."""

    steps: int = 1000

    def __call__(self, level: Level, t: Tensor) -> Tensor:
        return (t * self.steps - 1).clamp(min=0)


@dataclass(frozen=True)
class LogSigma:
    """log(sigma / alpha) / 4 (Karras et al. 2022, table 1)."""

    def __call__(self, level: Level, t: Tensor) -> Tensor:
        return (level.sigma / level.alpha).log() / 4


TEXT = "text."
"""Begins the names of the text encoder's weights among the model's."""


class Model(nn.Module):
    """network + schedule + prediction: (x, level) -> Estimate, on any curve.

    Only the noisiness of a level matters to the network, so x is brought to the scale of the curve that the
    network was trained on. A model trained on a variance-preserving curve may so be solved in any
    coordinates.

    `data` is the standard deviation of the data where the network wants an input of unit variance (EDM's c_in
    = 1 / hypot(alpha data, sigma)); None feeds x as it is. With `learned_variance` the output has twice the
    channels and its second half, mapped from [-1, 1] to [0, 1], is the estimate's spread (Nichol & Dhariwal
    2021, eq. 15). A `self_conditioned` model is also shown the x0 of its last estimate, as further input
    channels; zeros where there is none (Chen et al. 2023, "Analog bits", sec. 3.2).

    A caption reaches the network as `context`, (B, N, D): from `tokens`, (B, N), by the model's own `text`
    encoder, or ready made. An aligned `picture`, (B, channels, *space), of as many channels as `picture` says
    is shown beside x, zeros where there is none. All other conditions go to the network as they are.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        prediction: Prediction,
        label: Label | None = None,
        data: float | None = None,
        learned_variance: bool = False,
        self_conditioned: bool = False,
        text: nn.Module | None = None,
        picture: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.prediction = prediction
        self.label: Label = label or Steps()
        self.data = data
        self.learned_variance = learned_variance
        self.self_conditioned = self_conditioned
        self.text = text
        self.picture = picture

    def forward(self, x: Tensor, level: Level, seen: Estimate | None = None, **cond: Condition) -> Estimate:
        t = self.schedule.time(level)
        t, outside = t.clamp(0, 1), (t < -1e-9) | (t > 1 + 1e-9)
        own = self.schedule.level(t)
        z = spread_on(own.norm / level.norm, x) * x
        y, spread = self._ask(z, own, t, seen, self.read(cond))
        e = Estimate(x, level, Said(z, own, y, self.prediction), spread)
        if bool(outside.any()):
            return self._at_an_end(e, level, outside)
        return e

    def _ask(
        self, z: Tensor, own: Level, t: Tensor, seen: Estimate | None, cond: Mapping[str, Condition]
    ) -> tuple[Tensor, Tensor | None]:
        """The network's answer at z on its own curve, in at least float32."""
        weight = next(self.network.parameters(), z)
        fed = z if self.data is None else z * spread_on(1 / torch.hypot(own.alpha * self.data, own.sigma), z)
        if self.self_conditioned:
            guess = torch.zeros_like(z) if seen is None else seen.x0.to(z) / (self.data or 1.0)
            fed = torch.cat([fed, guess], dim=1)
        if self.picture or cond.get("picture") is not None:
            fed = torch.cat([fed, self._beside(z, cond.get("picture"))], dim=1)
        told = {name: value for name, value in cond.items() if name != "picture"}
        label = self.label(own, t).to(device=z.device, dtype=torch.float32)
        y = self.network(fed.to(weight.dtype), label.expand(len(z)), **told).to(z.dtype)
        if not self.learned_variance:
            return y, None
        y, v = y.chunk(2, dim=1)
        return y, (v + 1) / 2

    def read(self, cond: Mapping[str, Condition]) -> dict[str, Condition]:
        """The same conditions with the captions read: the text encoder's states of `tokens` as `context`.
        Raises SettingsError for tokens where there is no text encoder."""
        said = {name: value for name, value in cond.items() if name != "tokens"}
        tokens = cond.get("tokens")
        if tokens is None:
            return said
        if self.text is None:
            raise SettingsError("this model has no text encoder of its own, so it cannot read tokens")
        return said | {"context": self.text(tokens).states}

    def _beside(self, z: Tensor, picture: Tensor | None) -> Tensor:
        """The picture that is shown beside z. Raises SettingsError for one of another shape."""
        wanted = (len(z), self.picture, *z.shape[2:])
        if picture is None:
            return z.new_zeros(wanted)
        if tuple(picture.shape) != wanted:
            raise SettingsError(f"the model is shown a picture of {wanted}, not {tuple(picture.shape)}")
        return picture.to(z)

    def _at_an_end(self, e: Estimate, level: Level, outside: Tensor) -> Estimate:
        """Beyond the trained range only pure noise and clean data mean the same on every curve."""
        if bool((outside & (level.alpha > 0) & (level.sigma > 0)).any()):
            raise SettingsError(self._refusal(level))
        if bool((level.sigma > 0).all()):
            return e.but(x0=e.x0)
        return replace(Estimate.of(e.x, level, eps=e.eps), spread=e.spread)

    def _refusal(self, level: Level) -> str:
        ratio = (level.sigma / level.alpha).max()
        return (
            f"the model was not trained at sigma/alpha = {float(ratio):.4g}: "
            "choose a grid inside its schedule's range (or exactly pure noise or clean data)"
        )

    def check(self, level: Level) -> None:
        """Raises SettingsError when the level lies outside the trained range or its prediction cannot tell x0
        there."""
        t = self.schedule.time(level)
        inside = (t >= -1e-9) & (t <= 1 + 1e-9) | (level.alpha == 0) | (level.sigma == 0)
        if not bool(inside.all()):
            raise SettingsError(self._refusal(level))
        if not self.prediction.tells(self.schedule.level(t.clamp(0, 1))):
            kind = type(self.prediction).__name__
            raise SettingsError(
                f"{kind} prediction says nothing about one half at alpha = {float(level.alpha.min()):.3g}, "
                f"sigma = {float(level.sigma.min()):.3g}: use V or Flow prediction, or a milder schedule"
            )

    def given(self, **cond: Condition) -> Bound:
        """The denoiser for these conditions: tensors with one row per picture, or None. A caption is read
        here, once, and not at every step."""
        with torch.no_grad():
            return Bound(self, self.read(cond))

    def weights(self, named: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The network's tensors under its own names, the text encoder's under "text." and theirs; those of
        `named` (say an average) in place of the model's.

        Names may start with "network.", as the model's own do. Raises SettingsError for a name or shape of
        another network.
        """
        state: dict[str, Tensor] = dict(self.network.state_dict())
        if self.text is not None:
            state |= {f"{TEXT}{name}": tensor for name, tensor in self.text.state_dict().items()}
        for name, value in (named or {}).items():
            own = name.removeprefix("network.")
            if own not in state or state[own].shape != value.shape:
                raise SettingsError(
                    f"the weights {name!r} of shape {tuple(value.shape)} are not this network's"
                )
            state[own] = value.detach()
        return state
