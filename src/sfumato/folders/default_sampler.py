"""The default sampler of a run folder: changed alone, and kept when the run trains on."""

from __future__ import annotations

from pathlib import Path

from sfumato.card import CARD, Card, SamplerSettings, read_card
from sfumato.errors import RunError
from sfumato.files import inside, lock, write_json


def set_sampler(folder: Path, sampler: SamplerSettings) -> Card:
    """Makes this the run's default sampler, in one instant; gives the new card.

    Nothing else in the folder changes: what diffusers reads there says the process, not how it is sampled.
    Raises RunError for a folder that holds no run of ours, or while it trains.
    """
    if not (folder / CARD).exists():
        raise RunError(f"{folder}: no {CARD} to keep a default sampler in: only runs of sfumato have one")
    with lock(folder):
        card = read_card(inside(folder, CARD)).but(sampler=sampler)
        write_json(folder / CARD, card.to_json())
    return card


def keeping_sampler(folder: Path, card: Card) -> Card:
    """The card with the default sampler of the same model in this folder, if it is there: one that was tuned
    outlives further training."""
    path = folder / CARD
    if not path.exists():
        return card
    there = read_card(inside(folder, CARD))
    return card.but(sampler=there.sampler) if there.core() == card.core() else card
