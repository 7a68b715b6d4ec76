"""Averages of the weights: an exponential moving average with warm-up, and two power averages to rebuild any
other.

The exponential average at update n (from 0) uses the decay d_n = min(decay, (1 + n) / (10 + n)): early on it
averages over about the last n/9 updates, and never over more than its *horizon* 1 / (1 - decay).

A power average (Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models",
section 3 and appendix C) weighs the weights after step i by the share of t^gamma that lies in [i - 1, i]:

    a_n = b a_{n-1} + (1 - b) w_n,   b = (1 - 1/n)^(gamma + 1),
    weight of w_i in a_n: (i^(gamma+1) - (i-1)^(gamma+1)) / n^(gamma+1).

Its relative width sigma_rel = sqrt(gamma + 1) / ((gamma + 2) sqrt(gamma + 3)) stays the same as the run
grows. From snapshots of two of them, any other width is rebuilt afterwards by least squares on these
profiles.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from sfumato.errors import SettingsError

_ALIGN = 16
"""Floats between the starts of two parameters: 64 bytes, a cache line and what the convolutions like."""


class FlatWeights:
    """The trained parameters of a module as views of one vector, so that an average is one fused update.

    Shapes, strides (channels_last too) and names stay as they are. Make it after `module.to(device)`; it
    costs no memory, because the parameters move into the vector.
    """

    def __init__(self, module: nn.Module) -> None:
        self.parameters: dict[str, nn.Parameter] = {
            name: p for name, p in module.named_parameters() if p.requires_grad
        }
        kinds = {(p.device, p.dtype) for p in self.parameters.values()}
        if len(kinds) != 1:
            raise SettingsError(
                f"a model to train needs parameters of one device and one dtype, not {len(kinds)} kinds"
            )
        device, dtype = kinds.pop()
        self.starts: dict[str, int] = {}
        end = 0
        for name, p in self.parameters.items():
            self.starts[name] = end
            end += math.ceil(p.numel() / _ALIGN) * _ALIGN
        self.vector = torch.zeros(end, device=device, dtype=dtype)
        for name, p in self.parameters.items():
            view = self.view(self.vector, name)
            view.copy_(p.detach())
            p.data = view

    def view(self, vector: Tensor, name: str) -> Tensor:
        """A parameter's place in a vector like this one."""
        p = self.parameters[name]
        return vector.as_strided(p.shape, p.stride(), self.starts[name])

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector like this one by the parameters' names; views."""
        return {name: self.view(vector, name) for name in self.parameters}

    def put(self, vector: Tensor, values: Mapping[str, Tensor]) -> None:
        """Copies named values into a vector like this one; SettingsError if names or shapes differ."""
        if values.keys() != self.parameters.keys():
            other = sorted(values.keys() ^ self.parameters.keys())[0]
            raise SettingsError(f"these weights are another network's: they differ in {other!r}")
        for name, value in values.items():
            if value.shape != self.parameters[name].shape:
                raise SettingsError(f"these weights are another network's: {name!r} is {tuple(value.shape)}")
            self.view(vector, name).copy_(value)

    @contextmanager
    def swapped(self, vector: Tensor) -> Generator[None, None, None]:
        """Inside the block the module has the weights of `vector`; afterwards its own again, bit for bit."""
        own = self.vector.clone()
        self.vector.copy_(vector)
        try:
            yield
        finally:
            self.vector.copy_(own)


@dataclass(frozen=True)
class Ema:
    """How an exponential average follows."""

    decay: float = 0.9999

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise SettingsError(f"the decay of the average must be in [0, 1), not {self.decay}")

    @property
    def horizon(self) -> float:
        """Over how many updates it averages once it is warm."""
        return 1 / (1 - self.decay)

    def decay_at(self, n: int) -> float:
        """The decay of update n = 0, 1, ..."""
        return min(self.decay, (1 + n) / (10 + n))

    def follow(self, average: Tensor, weights: Tensor, n: int) -> None:
        """Update n, in place."""
        average.lerp_(weights, 1 - self.decay_at(n))


@dataclass(frozen=True)
class PowerAverage:
    """How a power average follows: gamma for a relative width sigma_rel in (0, 0.28)."""

    sigma_rel: float

    def __post_init__(self) -> None:
        if not 0 < self.sigma_rel < 0.28:
            raise SettingsError(
                f"the relative width of an average must be in (0, 0.28), not {self.sigma_rel}"
            )

    @cached_property
    def gamma(self) -> float:
        """The root of (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) = sigma_rel^2 above 0, by bisection."""
        low, high = 0.0, 2 / self.sigma_rel
        for _ in range(200):
            mid = (low + high) / 2
            wide = (mid + 1) / ((mid + 2) ** 2 * (mid + 3)) > self.sigma_rel**2
            low, high = (mid, high) if wide else (low, mid)
        return (low + high) / 2

    def follow(self, average: Tensor, weights: Tensor, n: int) -> None:
        """The update after step n = 1, 2, ..., in place; the first one takes the weights as they are."""
        average.lerp_(weights, 1 - (1 - 1 / n) ** (self.gamma + 1))

    def profile(self, n: int, steps: Tensor) -> Tensor:
        """The share of the weights after each of these steps (float64, from 1) in the average of step n."""
        power = self.gamma + 1
        low, high = ((steps - 1) / n).clamp(0, 1) ** power, (steps / n).clamp(0, 1) ** power
        return high - low


@dataclass(frozen=True)
class Snapshot:
    """A power average as it was after `step`."""

    step: int
    sigma_rel: float
    weights: Mapping[str, Tensor]


def mixing(
    kept: Sequence[tuple[int, float]], sigma_rel: float, step: int, chunk: int = 1 << 16
) -> tuple[Tensor, float]:
    """How much of each kept (step, sigma_rel) makes the average of width sigma_rel at `step`.

    Least squares on the discrete profiles, among mixes that add to 1, from normal equations in float64
    (Karras et al. 2024, appendix C.2, with sums in place of integrals, so that it is exact for the averages
    as computed). Gives the weights, (K,), and the share of the wanted profile's norm that is left over: 0 is
    a perfect rebuild.
    """
    parts = [(PowerAverage(width), at) for at, width in kept]
    wanted = PowerAverage(sigma_rel)
    gram = torch.zeros(len(parts), len(parts), dtype=torch.float64)
    right, norm = torch.zeros(len(parts), dtype=torch.float64), 0.0
    for start in range(1, step + 1, chunk):
        steps = torch.arange(start, min(start + chunk, step + 1), dtype=torch.float64)
        rows = torch.stack([p.profile(at, steps) for p, at in parts])
        target = wanted.profile(step, steps)
        gram += rows @ rows.T
        right += rows @ target
        norm += float(target @ target)
    scale = gram.diagonal().sqrt()
    ones = (1 / scale)[:, None]  # each profile adds to 1: a Lagrange multiplier holds the mix to it
    corner = torch.zeros(1, 1, dtype=torch.float64)
    system = torch.cat([torch.cat([gram / scale / scale[:, None], ones], 1), torch.cat([ones.T, corner], 1)])
    asked = torch.cat([right / scale, torch.ones(1, dtype=torch.float64)])[:, None]
    mix = torch.linalg.lstsq(system, asked, driver="gelsd").solution[:-1, 0] / scale
    left = max(norm - 2 * float(mix @ right) + float(mix @ gram @ mix), 0.0)
    return mix, math.sqrt(left / norm)


def reconstruct(
    snapshots: Sequence[Snapshot], sigma_rel: float, step: int | None = None
) -> dict[str, Tensor]:
    """The power average of any width, after the fact: weights by name, in the snapshots' shapes, float32.

    `step` is the last snapshot's step if not given; snapshots of later steps are not used. Raises
    SettingsError without snapshots up to that step.
    """
    end = max((s.step for s in snapshots), default=0) if step is None else step
    used = [s for s in snapshots if s.step <= end]
    if not used:
        raise SettingsError(f"no snapshot of the averages up to step {end}: the run kept none (--averages)")
    mix, _ = mixing([(s.step, s.sigma_rel) for s in used], sigma_rel, end)
    out: dict[str, Tensor] = {}
    for name in used[0].weights:
        total = torch.zeros(used[0].weights[name].shape, dtype=torch.float64)
        for share, snapshot in zip(mix.tolist(), used, strict=True):
            total += share * snapshot.weights[name].cpu().double()
        out[name] = total.float()
    return out
