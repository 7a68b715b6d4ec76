"""Which picture stands at a position of the endless sample stream: a pure function, so resuming stores
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sfumato import noise
from sfumato.errors import DataError

_KEPT = 2


def tempered(classes: np.ndarray, temper: float | int) -> np.ndarray:
    """Each picture's share of the stream, (N,), adding to 1: a class of n pictures gets a share like
    n^temper.

    temper 1 is the data as it is, 0 gives every class the same share, between them is between (Lample &
    Conneau 2019, section 3.1, for languages). classes: (N,) whole numbers.
    """
    if not 0 <= temper <= 1:
        raise DataError(
            f"the balance must lie between 0 (classes alike) and 1 (as the data is), not {temper}"
        )
    _, which, counts = np.unique(classes, return_inverse=True, return_counts=True)
    weight = counts.astype(np.float64)[which] ** (temper - 1)
    return weight / weight.sum()


@dataclass(frozen=True)
class Order:
    """Position p of the stream is place p % size of epoch p // size; each epoch has its own random order.

    With shares (size,), an epoch is drawn by systematic resampling (Kitagawa 1996): a picture of share s
    appears floor(size s) or ceil(size s) times, size s on average. Without, each appears once.
    """

    size: int
    seed: int
    shares: np.ndarray | None = None
    _epochs: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise DataError("there are no pictures to train on")
        if self.shares is not None and self.shares.shape != (self.size,):
            raise DataError(f"{self.size} pictures need as many shares, not {self.shares.shape}")

    def at(self, positions: Sequence[int]) -> np.ndarray:
        """The pictures, 0 .. size - 1, at these positions, int64. Positions start at 0."""
        where = np.asarray(positions, dtype=np.int64).reshape(-1)
        if len(where) and int(where.min()) < 0:
            raise DataError(f"positions start at 0, not {int(where.min())}")
        epochs, places = np.divmod(where, self.size)
        out = np.empty(len(where), np.int64)
        for epoch in np.unique(epochs).tolist():
            rows = epochs == epoch
            out[rows] = self.epoch(epoch)[places[rows]]
        return out

    def epoch(self, epoch: int) -> np.ndarray:
        """The whole order of one epoch, (size,); the last two asked for are kept."""
        order = self._epochs.get(epoch)
        if order is None:
            order = self._draw(epoch)
            for old in sorted(self._epochs, key=lambda kept: abs(kept - epoch))[_KEPT - 1 :]:
                self._epochs.pop(old, None)
            self._epochs[epoch] = order
        return order

    def _draw(self, epoch: int) -> np.ndarray:
        order = noise.permutation(self.size, self.seed, "order", epoch).numpy()
        if self.shares is None:
            return order
        upto = np.cumsum(self.shares[order])
        start = float(noise.uniform(1, self.seed, "balance", epoch)[0])
        marks = (start + np.arange(self.size)) / self.size * upto[-1]
        drawn = order[np.searchsorted(upto, marks, side="right").clip(max=self.size - 1)]
        return drawn[noise.permutation(self.size, self.seed, "balanced order", epoch).numpy()]
