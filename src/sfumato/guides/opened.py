"""What guides hold open between two recipes, and that it is still what a recipe was made with."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from sfumato.errors import RunError

T = TypeVar("T")


def kept(pattern: str, most: int = 4) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Makes a function `f(folder, ...)` that opens something remember the last `most` of what it opened, each
    until a file of the folder that matches `pattern` changes. Its other arguments are hashable."""

    def keeping(opens: Callable[..., T]) -> Callable[..., T]:
        @lru_cache(maxsize=most)
        def known(folder: Path, changed: int, *rest: Any) -> T:
            return opens(folder, *rest)

        def opened(folder: Path, *rest: Any) -> T:
            changed = max((path.stat().st_mtime_ns for path in folder.glob(pattern)), default=0)
            return known(folder.resolve(), changed, *rest)

        opened.__doc__ = opens.__doc__
        return opened

    return keeping


def unchanged(folder: Path, what: str, now: str, then: str) -> None:
    """Raises RunError unless the hash of a guide's weights now is that with which a recipe was made."""
    if now != then:
        raise RunError(f"{folder}: its {what} has changed since this recipe was made: make the recipe again")
