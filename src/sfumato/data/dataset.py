"""A data set that is ready: decoded pixels on disk, read through a memory map, with what is known of each
picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfumato.data.aligned import Aligned
from sfumato.data.source import Flaw
from sfumato.errors import DataError


@dataclass(frozen=True)
class Batch:
    """images: float32 (B, C, H, W) in [-1, 1]; classes: int64 (B,), -1 where not known; names: for messages.

    positions: places in the sample stream, () for pictures that were taken by row. columns: what tables say
    of each. picture: float32 (B, C', H, W), the aligned pictures of the user's own (`aligned.Aligned`).
    """

    images: Tensor
    classes: Tensor | None
    captions: tuple[str, ...] | None
    names: tuple[str, ...]
    positions: tuple[int, ...] = ()
    columns: tuple[Mapping[str, str], ...] | None = None
    picture: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class DataSet:
    """Every good picture of a source, decoded once.

    pixels: (rows, H', W', C) uint8 or uint16, a memory map; H' x W' is larger than size with room to crop.
    train, held: rows for training and for validation. labels: (rows,) int64 indices into label_names, -1
    where not known, or None. captions, names, columns, digests: one a row. bad: each picture that could not
    be read; flaws: captions and table rows that could not; notes: what was decided from the data.
    fingerprint: sha256 of content, classes and captions. reused: the cache was already there and nothing was
    decoded.
    """

    name: str
    pixels: np.ndarray
    size: tuple[int, int]
    train: np.ndarray
    held: np.ndarray
    labels: np.ndarray | None
    label_names: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...] | None
    names: tuple[str, ...]
    columns: tuple[dict[str, str], ...]
    digests: tuple[str, ...]
    bad: tuple[Flaw, ...]
    flaws: tuple[Flaw, ...]
    notes: tuple[str, ...]
    fingerprint: str
    reused: bool = False
    aligned: Aligned | None = None
    """The pictures that go with them, if a column names any."""

    def __len__(self) -> int:
        """How many pictures there are to train on."""
        return len(self.train)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a training picture."""
        return self.channels, *self.size

    @property
    def channels(self) -> int:
        return self.pixels.shape[3]

    @property
    def classes(self) -> int:
        """How many classes there are, 0 without."""
        return len(self.label_names)

    def images(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        """Whole pictures, float32 (B, C, H, W) in [-1, 1]; from a cache with room, their middle."""
        stored = self.stored(rows)
        top, left = (stored.shape[1] - self.size[0]) // 2, (stored.shape[2] - self.size[1]) // 2
        return to_unit(stored[:, top : top + self.size[0], left : left + self.size[1]])

    def take(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """These rows as a batch, the same at every call: no augmentation, the first caption."""
        index = self._rows(rows)
        return Batch(
            images=self.images(index),
            classes=self.classes_of(index),
            captions=self.captions_of(index, [0.0] * len(index)),
            names=tuple(self.names[row] for row in index.tolist()),
            columns=self.columns_of(index),
            picture=None if self.aligned is None else self.aligned.shown(index, self.size),
        )

    def held_out(self, most: int | None = None) -> Batch:
        """The held-out pictures (the first `most`), the same at every call. Raises DataError when there are
        none.
        """
        if not len(self.held):
            raise DataError(f"no picture of {self.name} is held out")
        return self.take(self.held[:most])

    def classes_of(self, rows: np.ndarray) -> Tensor | None:
        """The classes of these rows, (B,) int64, -1 where not known, or None without classes."""
        return None if self.labels is None else torch.from_numpy(self.labels[rows])

    def captions_of(self, rows: np.ndarray, pick: Sequence[float]) -> tuple[str, ...] | None:
        """One caption a row, "" where there is none; of several, the one that pick in [0, 1) points at."""
        if self.captions is None:
            return None
        several = (self.captions[row] for row in rows.tolist())
        return tuple(texts[int(at * len(texts))] if texts else "" for texts, at in zip(several, pick))

    def columns_of(self, rows: np.ndarray) -> tuple[Mapping[str, str], ...]:
        """What tables say of these rows, beside class and caption."""
        return tuple(self.columns[row] for row in rows.tolist())

    def stored(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The pixels of these rows as they are on disk, (B, H', W', C), a copy."""
        return np.asarray(self.pixels[self._rows(rows)])

    def _rows(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        index = np.asarray(rows, dtype=np.int64).reshape(-1)
        if len(index) and not (int(index.min()) >= 0 and int(index.max()) < len(self.pixels)):
            raise DataError(f"rows of {self.name} go from 0 to {len(self.pixels) - 1}")
        return index


def to_unit(stored: np.ndarray) -> Tensor:
    """(B, H, W, C) uint8 or uint16 -> float32 (B, C, H, W), 0 to -1 and the largest to +1, both exactly."""
    half = np.float32(np.iinfo(stored.dtype).max / 2)
    values = np.ascontiguousarray(stored.transpose(0, 3, 1, 2), dtype=np.float32)
    values /= half
    values -= np.float32(1)
    return torch.from_numpy(values)
