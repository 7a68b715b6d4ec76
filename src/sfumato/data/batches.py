"""From positions of the sample stream to batches, by threads that run ahead, the same whatever their
number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from torch import Tensor

from sfumato.data import augment as augmentation
from sfumato.data.augment import Augment
from sfumato.data.dataset import Batch, DataSet, to_unit
from sfumato.data.order import Order, tempered
from sfumato.errors import DataError
from sfumato.noise import Noise


@dataclass(frozen=True)
class Batches:
    """The endless stream of training samples of a data set: position -> sample is a pure function of the
    seed.

    balance: 1 takes the data as it is, 0 shows every class equally often, between is between
    (`order.tempered`).
    """

    data: DataSet
    seed: int = 0
    augment: Augment = field(default_factory=Augment)
    balance: float | int = 1.0
    order: Order = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shares = None
        if self.balance != 1.0:
            if self.data.labels is None:
                raise DataError(f"{self.data.name} has no classes to balance")
            shares = tempered(self.data.labels[self.data.train], self.balance)
        object.__setattr__(self, "order", Order(len(self.data.train), self.seed, shares))

    def batch(self, positions: Sequence[int]) -> Batch:
        """The samples at these positions. Raises DataError that names the files when they cannot be read."""
        positions = tuple(positions)
        rows = self.data.train[self.order.at(positions)]
        names = tuple(self.data.names[row] for row in rows.tolist())
        try:
            return self._batch(positions, rows, names)
        except (OSError, ValueError, IndexError, RuntimeError, MemoryError) as error:
            listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise DataError(f"the batch of {listed} could not be made: {error}") from error

    def stream(
        self, start: int, size: int, *, every: int | None = None, workers: int = 0, ahead: int = 4
    ) -> Iterator[Batch]:
        """Endless batches of `size` positions from `start`; `every` (size if not given) from one start to
        the next.

        With several processes, every is the total batch and each starts at its own share of it.
        """
        if size < 1 or start < 0:
            raise DataError(
                f"a stream needs a start of at least 0 and a size of at least 1, not {start} and {size}"
            )
        step = size if every is None else every
        chunks = (range(first, first + size) for first in count(start, step))
        return self.each(chunks, workers=workers, ahead=ahead)

    def each(self, chunks: Iterable[Sequence[int]], *, workers: int = 0, ahead: int = 4) -> Iterator[Batch]:
        """One batch per sequence of positions, in order; with workers, up to `ahead` are made in the
        background.

        What a worker raises is raised here, at its batch's turn. Leaving the loop early stops the workers.
        """
        if workers < 1:
            for chunk in chunks:
                yield self.batch(chunk)
            return
        pool = ThreadPoolExecutor(workers, thread_name_prefix="sfumato-data")
        waiting: deque[Future[Batch]] = deque()
        try:
            for chunk in chunks:
                waiting.append(pool.submit(self.batch, chunk))
                if len(waiting) > max(ahead, workers):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _batch(self, positions: tuple[int, ...], rows: np.ndarray, names: tuple[str, ...]) -> Batch:
        data, augment = self.data, self.augment
        stored = data.stored(rows)
        room = stored.shape[1:3] != data.size
        drawn = np.zeros((len(rows), 6), np.float32)
        if augment.flip or augment.colours or room:
            drawn = augmentation.draws(self.seed, positions)
        images = to_unit(augmentation.place(stored, data.size, augment.flip, drawn))
        if augment.colours:
            images = augmentation.colour(images, augment, drawn)
        picture: Tensor | None = None
        if data.aligned is not None:
            picture = data.aligned.shown(rows, data.size, augment.flip, drawn)
        pick: list[float] = []
        if data.captions is not None:
            pick = Noise.of(self.seed, "caption", places=positions).uniform((1,), "caption")[:, 0].tolist()
        return Batch(
            images=images,
            classes=data.classes_of(rows),
            captions=data.captions_of(rows, pick),
            names=names,
            positions=positions,
            columns=data.columns_of(rows),
            picture=picture,
        )
