"""Which pictures are held out for validation: decided by what is seen in them, so that it never moves."""

from __future__ import annotations

from collections.abc import Sequence

from sfumato.errors import DataError

FEWEST = 20
"""Below this many pictures none is held out."""


def place(digest: str) -> float:
    """A picture's place in [0, 1), from the hash of its content (hexadecimal)."""
    return int(digest[:13], 16) / 16**13


def held_out(digests: Sequence[str], share: float | int) -> list[bool]:
    """For each picture whether it is held out: those placed below `share`.

    A picture's side depends on its content alone, hence stays when others are added, and copies of it share
    it. With 20 pictures or more at least one is held out and at least one is not; with fewer, none is.
    Raises DataError unless 0 <= share <= 0.5.
    """
    if not 0 <= share <= 0.5:
        raise DataError(f"the held-out share must lie between 0 and 0.5, not {share}")
    places = [place(digest) for digest in digests]
    if share == 0 or len(places) < FEWEST or min(places) == max(places):
        return [False] * len(places)
    edge = max(share, min(places))
    if min(places) >= share:
        return [p <= edge for p in places]
    if max(places) < share:
        return [p < max(places) for p in places]
    return [p < share for p in places]
