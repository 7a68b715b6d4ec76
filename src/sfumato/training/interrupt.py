"""SIGTERM, SIGINT and SIGUSR1 (what batch systems send before they kill): finish the step, save, leave."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Whether the process was asked to stop. The exit code is 128 + the signal: 143, 130, 138."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self) -> bool:
        return self.signal != 0

    @property
    def exit_code(self) -> int:
        return 128 + self.signal if self.signal else 0


@contextmanager
def listening() -> Generator[Interrupt, None, None]:
    """Inside the block these signals only set a flag; outside they mean what they meant. In the main thread
    only."""
    asked = Interrupt()

    def heard(number: int, frame: FrameType | None) -> None:
        asked.signal = asked.signal or number

    names = ("SIGTERM", "SIGINT", "SIGUSR1")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, heard) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
