"""What can go wrong while a model learns."""

from __future__ import annotations

from sfumato.errors import SfumatoError


class TrainingError(SfumatoError):
    """Training cannot go on: losses that stay infinite, processes that do not answer."""
