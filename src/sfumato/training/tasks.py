"""Tasks: what a model is shown beside the noise, made from the very picture that it shall make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Task(Protocol):
    """Makes the aligned picture that a sample is conditioned on: a function of (seed, position)."""

    @property
    def name(self) -> str:
        """As `--task` says it."""
        ...

    @property
    def channels(self) -> int:
        """Of the condition's picture."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """What a sample may be told it is for: of a model of several tasks, their names; () for one alone."""
        ...

    def picture(self, images: Tensor, positions: Sequence[int], seed: int) -> Tensor:
        """images (B, C, H, W) in [-1, 1] -> (B, `channels`, H, W), drawn by (seed, position) through
        `sfumato.noise`."""
        ...

    def label(self, positions: Sequence[int], seed: int) -> tuple[str, ...]:
        """Which of `labels` each sample is for, as `picture` made it; () without labels."""
        ...
