"""Tasks: what a model is shown beside the noise, made from the very picture that it shall make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.noise import Noise
from sfumato.training.hints import Colourise, Deblur, Edges, Hint, Inpaint, Upscale

TASKS = ("upscale", "inpaint", "colourise", "edges", "deblur")
"""What `--task` may say; several by commas, and "upscale:4" by how much."""


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


@dataclass(frozen=True)
class Hinted:
    """One task or several, each by a hint; of several, every sample is for one, drawn evenly.

    colours: the channels of the model's pictures.
    """

    parts: tuple[tuple[str, Hint], ...]
    colours: int

    @property
    def name(self) -> str:
        """As `--task` says it, the factor of upscaling included."""
        return ",".join(
            f"{name}:{hint.factor}" if isinstance(hint, Upscale) else name for name, hint in self.parts
        )

    @property
    def channels(self) -> int:
        """The hint's: the picture's and the plane of trust."""
        return self.colours + 1

    @property
    def labels(self) -> tuple[str, ...]:
        """The tasks' names where there are several."""
        return tuple(name for name, _ in self.parts) if len(self.parts) > 1 else ()

    def picture(self, images: Tensor, positions: Sequence[int], seed: int) -> Tensor:
        """The hints (B, C + 1, H, W) of the pictures at these positions of the stream."""
        out = images.new_empty(len(images), self.channels, *images.shape[2:])
        which = self._which(positions, seed)
        for number, (name, hint) in enumerate(self.parts):
            rows = (which == number).nonzero()[:, 0]
            if len(rows):
                places = [positions[row] for row in rows.tolist()]
                out[rows] = hint(images[rows], Noise.of(seed, "task", name, places=places))
        return out

    def label(self, positions: Sequence[int], seed: int) -> tuple[str, ...]:
        """The task of each position."""
        return tuple(self.labels[number] for number in self._which(positions, seed)) if self.labels else ()

    def _which(self, positions: Sequence[int], seed: int) -> Tensor:
        drawn = Noise.of(seed, "task", places=positions).uniform((), "which")
        return (drawn * len(self.parts)).long().clamp(max=len(self.parts) - 1)


def task_named(said: str, shape: Sequence[int], factor: int = 4) -> Hinted:
    """The task that `--task` says, or several by commas, for pictures of `shape` (C, H, W).

    factor: of an upscaling that does not say it itself, as "upscale:4" does; `Hinted.name` always does.
    Raises SettingsError for a task that is not there, or that such pictures do not allow.
    """
    parts: list[tuple[str, Hint]] = []
    for one in said.split(","):
        name, _, number = one.strip().partition(":")
        known: dict[str, Hint] = {
            "upscale": Upscale(int(number) if number.isascii() and number.isdigit() else factor),
            "inpaint": Inpaint(),
            "colourise": Colourise(),
            "edges": Edges(),
            "deblur": Deblur(),
        }
        if name not in known or (number and name != "upscale") or name in dict(parts):
            raise SettingsError(
                f"--task is one of {', '.join(TASKS)} (upscale:4 by how much), or several by commas, not "
                f"{said!r}"
            )
        parts.append((name, known[name]))
    found = Hinted(tuple(parts), shape[0])
    for _, hint in found.parts:
        hint(torch.zeros(1, *shape), Noise((0,)))
    return found
