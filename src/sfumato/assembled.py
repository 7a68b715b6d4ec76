"""The model that a card describes: around a network that is there, new, or without memory."""

from __future__ import annotations

import torch
from torch import nn

from sfumato import noise
from sfumato.card import Card, check_schedule
from sfumato.model import Model
from sfumato.networks import build as build_network
from sfumato.networks.text import TextTransformer
from sfumato.records.conditions import OwnText
from sfumato.records.predictions import make_label, make_prediction


def assemble(card: Card, network: nn.Module, text: nn.Module | None = None) -> Model:
    """The model of a card around a network, and a text encoder of its own, that are there already."""
    return Model(
        network,
        check_schedule(card, "the card"),
        make_prediction(card.prediction),
        make_label(card.label),
        card.data_std,
        card.learned_variance,
        card.self_conditioned,
        text,
        0 if card.picture is None else card.picture.channels,
    )


def build(card: Card, seed: int = 0) -> Model:
    """A new model with the initial weights of this seed: a function of (card, seed) alone."""
    with noise.seeded(seed, "weights"):
        return assemble(card, build_network(card.config()), own_text(card))


def own_text(card: Card) -> TextTransformer | None:
    """A new text encoder for a card with one of its own; torch's initialisers draw inside."""
    return TextTransformer(card.text.config()) if isinstance(card.text, OwnText) else None


def empty(card: Card) -> Model:
    """The card's model without memory (on the "meta" device): names and shapes only."""
    with torch.device("meta"):
        network, text = build_network(card.config()), own_text(card)
    return assemble(card, network, text)
