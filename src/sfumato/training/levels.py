"""Where to train: the level of each sample, as a function of the run's seed and of its position in the
stream.

A batch is never asked as a whole, so the levels of a run do not depend on how its stream is cut into batches.
On a `Table` every level is one of its nodes, so that the model is only ever asked where its label is a whole
number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.noise import Noise, key_of
from sfumato.schedules import Schedule
from sfumato.tables import Table

_GOLDEN = 0x9E3779B97F4A7C15
"""2^64 / golden ratio, rounded to an odd number: its multiples visit [0, 2^64) most evenly (Kronecker's
sequence)."""


@runtime_checkable
class Where(Protocol):
    """How the levels of training are distributed: positions (B,) -> levels (B,)."""

    def __call__(self, schedule: Schedule, positions: Sequence[int], seed: int) -> Level: ...


@runtime_checkable
class Weighed(Protocol):
    """Levels that are drawn unevenly but counted so that the loss means what it meant: `weights` is (even
    density) / (own density) at levels (B,), float64."""

    def __call__(self, schedule: Schedule, positions: Sequence[int], seed: int) -> Level: ...

    def weights(self, schedule: Schedule, level: Level) -> Tensor: ...

    @property
    def even(self) -> Where:
        """What it stands for, and what held-out pictures are looked at with."""
        ...


def at_share(schedule: Schedule, u: Tensor) -> Level:
    """The level at the quantile u in [0, 1) of a uniform choice: a node of a table, any time of a curve."""
    if isinstance(schedule, Table):
        return schedule.level(
            ((u * schedule.steps).floor().clamp(max=schedule.steps - 1) + 1) / schedule.steps
        )
    return schedule.level(u)


def _uniforms(positions: Sequence[int], seed: int) -> Tensor:
    """(B,) numbers in (0, 1), float64: the middle of each of torch's 2^24 floats, so that no end is ever
    drawn."""
    return Noise.of(seed, "level", places=positions).uniform((), "level").double() + 2.0**-25


def _normals(positions: Sequence[int], seed: int) -> Tensor:
    return Noise.of(seed, "level", places=positions).normal((), "level").double()


@dataclass(frozen=True)
class Uniform:
    """Every time alike: DDPM's choice (Ho et al. 2020, algorithm 1)."""

    def __call__(self, schedule: Schedule, positions: Sequence[int], seed: int) -> Level:
        return at_share(schedule, _uniforms(positions, seed))


@dataclass(frozen=True)
class Stratified:
    """Uniform with low discrepancy: the fractional part of shift(seed) + position / golden ratio.

    Any run of n neighbouring positions covers [0, 1) with gaps of order 1/n, whatever the batches; cf. the
    low-discrepancy sampler of Kingma et al. (2021, appendix I.1), which needs whole batches. Whole numbers
    modulo 2^64, so it stays exact for ever.
    """

    def __call__(self, schedule: Schedule, positions: Sequence[int], seed: int) -> Level:
        return at_share(schedule, self.shares(positions, seed))

    def shares(self, positions: Sequence[int], seed: int) -> Tensor:
        """The quantiles in [0, 1), (B,), float64."""
        shift = 2 * key_of(seed, "stratified levels")
        places = [((shift + _GOLDEN * p) % 2**64 >> 11) / 2**53 for p in positions]
        return torch.tensor(places, dtype=torch.float64)


@dataclass(frozen=True)
class LogitNormal:
    """t = sigmoid(mean + std z): more of the middle (Esser et al. 2024, eq. 19)."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        _check_std(self.std)

    def __call__(self, schedule: Schedule, positions: Sequence[int], seed: int) -> Level:
        return at_share(schedule, torch.sigmoid(self.mean + self.std * _normals(positions, seed)))


@dataclass(frozen=True)
class LogNormalSigma:
    """log(sigma / alpha) = mean + std z, cut to the schedule's range (Karras et al. 2022, table 1)."""

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        _check_std(self.std)

    def __call__(self, schedule: Schedule, positions: Sequence[int], seed: int) -> Level:
        ratio = torch.exp(self.mean + self.std * _normals(positions, seed))
        t = schedule.time(Level(torch.ones_like(ratio), ratio)).clamp(0, 1)
        if isinstance(schedule, Table):
            t = (t * schedule.steps).round().clamp(min=1) / schedule.steps
        return schedule.level(t)


def _check_std(std: float) -> None:
    if not std > 0:
        raise SettingsError(f"the spread of the training levels must be above 0, not {std}")
