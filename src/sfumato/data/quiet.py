"""Silence around Pillow, safe between threads."""

from __future__ import annotations

import threading
import warnings


class Quiet:
    """Keeps Pillow's warnings off the user's screen while any thread decodes: what they say is in the
    sentence.

    `warnings.catch_warnings` is not safe between threads, so one filter is put in by the first thread that
    starts decoding and taken out by the last that ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filter: tuple[object, ...] = ()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
                self._filter = warnings.filters[0]

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._filter in warnings.filters:
                warnings.filters.remove(self._filter)  # type: ignore[attr-defined]


_pillow = Quiet()


def quiet() -> Quiet:
    """`with quiet():` no warning of Pillow's is shown inside, in any thread."""
    return _pillow
