"""Several processes that train one model: each takes its share of every batch, gradients are summed.

The batch is cut by position in the stream and every gradient is a sum over samples divided by the whole
batch, so two processes take the step that one would take (to rounding, since sums are ordered differently).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from sfumato.training.errors import TrainingError


@dataclass(frozen=True)
class Crew:
    """This process among `size`; rank 0 writes the files."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    timeout: float = 120.0

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, positions: Sequence[int]) -> Sequence[int]:
        """This process's part of a batch."""
        size = len(positions)
        return positions[size * self.rank // self.size : size * (self.rank + 1) // self.size]

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Adds the tensors of all processes, in place, in one message. Raises TrainingError if one is
        missing."""
        if self.size == 1:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        try:
            dist.all_reduce(flat)
        except RuntimeError as error:
            raise TrainingError(
                f"process {self.rank} of {self.size}: another process is gone or has not answered for "
                f"{self.timeout:.0f} s; start again with the same command, the last checkpoint is whole"
            ) from error
        start = 0
        for t in tensors:
            t.copy_(flat[start : start + t.numel()].view(t.shape))
            start += t.numel()

    def check_equal(self, vector: Tensor) -> None:
        """Raises TrainingError unless all processes have the same weights."""
        if self.size == 1:
            return
        mine = torch.stack([vector.double().sum(), vector.double().square().sum()])
        total = mine.clone()
        self.sum([total])
        if not torch.allclose(total, mine * self.size, rtol=1e-12, atol=0):
            raise TrainingError(
                "the processes begin with different weights: give all the same data and settings"
            )


ALONE = Crew()


def cut(size: int, parts: int) -> list[tuple[int, int]]:
    """0 .. size in at most `parts` pieces, as even as can be: where each begins and ends."""
    parts = min(parts, size)
    return [(size * i // parts, size * (i + 1) // parts) for i in range(parts)]


@contextmanager
def joined(device: str, timeout: float = 120.0) -> Generator[Crew, None, None]:
    """The crew that `torchrun` started (RANK and WORLD_SIZE say so), or this process alone.

    Processes on the CPU talk by gloo, on CUDA by nccl. `timeout`, in seconds, is how long one waits for
    another.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    crew = Crew(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")), timeout)
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if cuda:
        torch.cuda.set_device(crew.local_rank)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(seconds=timeout))
    try:
        yield crew
    finally:
        dist.destroy_process_group()
