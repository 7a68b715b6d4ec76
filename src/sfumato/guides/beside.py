"""What is said of guides that are not there."""

from __future__ import annotations

from pathlib import Path

from sfumato.errors import SettingsError

AUTOGUIDE, CLIP = (2.0, "ema"), 1.0
"""What holds of guides where nobody says it."""


def check_beside(
    autoguide: Path | str | None,
    weaker: tuple[float | int, str],
    clip_model: Path | str | None,
    clip_guidance: float | int,
    cutouts: int,
) -> None:
    """Raises SettingsError for what is said of a weaker run (its scale, its weights) or of a CLIP (its scale,
    its cutouts), and none was named."""
    if autoguide is None and weaker != AUTOGUIDE:
        raise SettingsError(
            "--autoguide-scale and --autoguide-weights are of a weaker run: name that with --autoguide, or "
            "leave them out"
        )
    if clip_model is None and (clip_guidance != CLIP or cutouts):
        raise SettingsError(
            "--clip-guidance and --cutouts are of a CLIP: name that with --clip-model, or leave them out"
        )
