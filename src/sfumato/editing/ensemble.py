"""How sure an edit is: the mean and the deviation of each pixel over many results of one job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from sfumato.editing.job import Job, finished
from sfumato.errors import SettingsError
from sfumato.inside.deviation import Deviation, deviation_of
from sfumato.noise import Noise
from sfumato.samplers import Walker


def ensemble(make: Callable[[Noise], Job], how: Walker, seeds: Sequence[int], batch: int = 64) -> Deviation:
    """Mean and standard deviation (unbiased), (C, H, W), of one result for each seed; `make` gives the job
    for the noise of a batch. Kept pixels deviate by 0. What models are sure of is not what is true: see
    docs/editing.md. Raises SettingsError for fewer than two seeds."""
    if batch < 1:
        raise SettingsError(f"{batch} pictures at a time: give at least 1")

    def results() -> Iterator[Tensor]:
        for start in range(0, len(seeds), batch):
            noise = Noise(tuple(seeds[start : start + batch]))
            yield finished(make(noise), how, noise)

    return deviation_of(results())
