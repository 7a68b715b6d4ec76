"""A bar on a terminal while something takes its time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def telling(what: str) -> Generator[Callable[[int, int], None], None, None]:
    """Gives (done, total), to be called on the way. Elsewhere than on a terminal nothing is shown."""
    columns = (TextColumn(f"{what:<16}"), BarColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with bar:
        task = bar.add_task(what, total=1.0)
        yield lambda done, total: bar.update(task, completed=done / max(1, total))


def on_one_line(what: str) -> Callable[[int, int], None]:
    """The same as a line that is written over, for what opens and closes many such."""

    def told(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done >= total else ""
            print(f"\r{what}: {done:,} of {total:,}", end=end, file=sys.stderr, flush=True)

    return told
