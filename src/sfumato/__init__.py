"""Sfumato: diffusion models from a folder of pictures to samples, with one theory and one format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; nothing heavy is imported until it is used
    from sfumato.card import Card
    from sfumato.runs import Run, load

__version__ = "0.1.0"
__all__ = ["Card", "Run", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """`sfumato.load`, `sfumato.Run` and `sfumato.Card`, imported when they are first asked for."""
    match name:
        case "load" | "Run":
            from sfumato import runs

            return getattr(runs, name)
        case "Card":
            from sfumato.card import Card

            return Card
        case _:
            raise AttributeError(f"module 'sfumato' has no attribute {name!r}")
