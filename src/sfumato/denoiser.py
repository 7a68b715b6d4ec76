"""Denoisers: anything that looks at x and its level and says what it believes.

This is all that solvers and guidance know of a model. Conditions are bound before sampling and never travel
through a solver; guidance is a function from denoiser to denoiser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.level import Level
from sfumato.predictions import Estimate

Condition = Tensor | None
"""What a network is given beside x and its level: a tensor with one row per picture, or nothing."""


@runtime_checkable
class Denoiser(Protocol):
    """Anything that looks at x and its level and says what it believes. Guidance is Denoiser -> Denoiser.

    `seen` is the last estimate of the same pictures, for models that are shown their own guess (self-
    conditioning, Chen et al. 2023); others ignore it.
    """

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate: ...

    def take(self, rows: Sequence[int]) -> Denoiser:
        """The same, for some rows of the batch."""
        ...

    def check(self, level: Level) -> None:
        """Raises SettingsError if this level cannot be asked: called once for a plan, before any work is
        done."""
        ...


@runtime_checkable
class Conditional(Protocol):
    """A model that takes conditions by name, and its own last estimate if it is `self_conditioned`."""

    @property
    def self_conditioned(self) -> bool: ...

    def __call__(
        self, x: Tensor, level: Level, seen: Estimate | None = None, **cond: Condition
    ) -> Estimate: ...

    def check(self, level: Level) -> None: ...


@dataclass(frozen=True)
class Bound:
    """A model with its conditions bound."""

    model: Conditional
    cond: Mapping[str, Condition]

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        return self.model(x, level, seen, **self.cond)

    def take(self, rows: Sequence[int]) -> Bound:
        index = torch.tensor(list(rows), dtype=torch.long)
        return Bound(
            self.model, {k: None if v is None else v[index.to(v.device)] for k, v in self.cond.items()}
        )

    def check(self, level: Level) -> None:
        self.model.check(level)


@runtime_checkable
class Belief(Protocol):
    """A known answer: E[x0 | x] at a level."""

    def __call__(self, x: Tensor, level: Level) -> Tensor: ...


@dataclass(frozen=True)
class Exact:
    """A denoiser that needs no network: the posterior mean of a known distribution. The tests' oracle."""

    posterior_mean: Belief

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        return Estimate.of(x, level, x0=self.posterior_mean(x, level))

    def take(self, rows: Sequence[int]) -> Exact:
        return self

    def check(self, level: Level) -> None:
        return None
