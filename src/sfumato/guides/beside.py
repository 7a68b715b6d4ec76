"""The weaker run and the CLIP of a recipe, where they are named; what is said of them alone is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sfumato.card import Card
from sfumato.errors import SettingsError
from sfumato.guides.clip import Pull, pull
from sfumato.guides.weaker import Weaker, weaker


def named_weaker(run: Path | str | None, scale: float | int, card: Card, weights: str) -> Weaker | None:
    """Auto-guidance by this run, None without one. Raises SettingsError for what is said of none, and as
    `weaker` does."""
    if run is not None:
        return weaker(run, scale, card, weights)
    if (scale, weights) != (2, "ema"):
        raise SettingsError(
            "--autoguide-scale and --autoguide-weights are of a weaker run: name that with --autoguide, or "
            "leave them out"
        )
    return None


def named_clip(
    folder: Path | str | None,
    texts: Sequence[str | None],
    scale: float | int,
    shape: tuple[int, int, int],
    cutouts: int,
) -> Pull | None:
    """CLIP guidance by the pair in this folder, None without one. Raises SettingsError for what is said of
    none, and as `pull` does."""
    if folder is not None:
        return pull(folder, texts, scale, shape, cutouts)
    if (scale, cutouts) != (1, 0):
        raise SettingsError(
            "--clip-guidance and --cutouts are of a CLIP: name that with --clip-model, or leave them out"
        )
    return None
