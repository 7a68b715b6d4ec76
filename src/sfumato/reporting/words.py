"""Settings in words: what the model is, how it was trained and how it is sampled, as one would tell it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sfumato.card import Card
from sfumato.networks import UNetConfig, parameter_count
from sfumato.reporting.energy import duration
from sfumato.reporting.stored import Stored

PREDICTIONS = {"epsilon": "the noise", "clean": "the picture", "x0": "the picture", "flow": "flow"}


def count(value: float | int) -> str:
    """A number of things for people: 740,000 or 9.1 million."""
    return f"{value / 1e6:.3g} million" if value >= 1e6 else f"{round(value):,}"


def model_words(card: Card) -> list[str]:
    """What the model is."""
    config, image = card.config(), card.image
    kind = "U-Net" if isinstance(config, UNetConfig) else "DiT"
    colours = {1: "grey", 3: "colour", 4: "colour with transparency"}.get(image.channels)
    said = [
        f"A {kind} with {count(parameter_count(config))} parameters, for pictures of {image.width} x "
        f"{image.height}, {colours or f'{image.channels} channels'}."
    ]
    kinds = {"v": "v", **PREDICTIONS}
    schedule = card.schedule.kind.removeprefix("table_").replace("_", "-")
    steps = getattr(card.schedule, "steps", None)
    said.append(
        f"It predicts {kinds.get(card.prediction.kind, card.prediction.kind)}, on the {schedule} schedule"
        + (f" of {steps:,} steps." if isinstance(steps, int) else ".")
    )
    told: list[str] = []
    if card.classes is not None:
        told.append(f"one of {len(card.classes):,} classes")
    told += [f"the attribute {one.name}" for one in card.attributes or ()]
    told += ["a caption"] if card.text is not None else []
    told += ["a picture"] if card.picture is not None else []
    said.append(f"It is told {', '.join(told)}." if told else "It is told nothing: it makes what it likes.")
    extras = [
        name
        for name, there in (
            ("the variance of its steps", card.learned_variance),
            ("to look at its last estimate", card.self_conditioned),
        )
        if there
    ]
    return [*said, *([f"It has also learned {' and '.join(extras)}."] if extras else [])]


def training_words(run: Stored) -> list[str]:
    """How it was trained, and the reasons that the settings gave."""
    card, said = run.card, list[str]()
    history, data = card.training, card.data
    if history.images_seen:
        each = f", each {history.images_seen / data.images:.3g} times" if data.images else ""
        said.append(
            f"{history.steps:,} steps saw {history.images_seen:,} pictures{each}, in "
            f"{duration(history.seconds)} (seed {history.seed})."
        )
    train = run.settings.get("train")
    if isinstance(train, Mapping):
        said += _optimiser(cast(Mapping[str, Any], train))
    said += _changed(run.settings)
    if card.weights.kind == "ema" and card.weights.horizon:
        said.append(f"Its weights are averages over about {card.weights.horizon:,.0f} updates.")
    elif history.images_seen:
        said.append("Its weights are those that training left, not averaged.")
    reasons = run.settings.get("reasons")
    if isinstance(reasons, list):
        said += [f"From the data: {reason}." for reason in reasons[:20] if isinstance(reason, str)]
    return said


def _optimiser(train: Mapping[str, Any]) -> list[str]:
    said = [
        f"{train.get('optimiser', '?')} at a learning rate of {train.get('lr', '?')}, batches of "
        f"{train.get('batch', '?')}, the loss weighted by {train.get('weight', '?')}, levels drawn "
        f"{train.get('levels', '?')}, in {train.get('precision', '?')}."
    ]
    drop = train.get("drop")
    if isinstance(drop, int | float) and drop:
        said.append(f"What it is told was hidden from it {drop:.0%} of the time, so that it can be guided.")
    return said


def _changed(settings: Mapping[str, Any]) -> list[str]:
    """What was done to the pictures, and to the network, against overfit."""
    parts: list[str] = []
    if settings.get("flip"):
        parts.append("half of the pictures mirrored")
    for name in ("brightness", "contrast", "saturation"):
        value = settings.get(name)
        if isinstance(value, int | float) and value:
            parts.append(f"{name} changed by up to {value:g}")
    dropout, balance = settings.get("dropout"), settings.get("balance")
    if isinstance(dropout, int | float) and dropout:
        parts.append(f"dropout of {dropout:g}")
    if isinstance(balance, int | float) and balance < 1:
        parts.append(f"classes balanced ({balance:g}; 0 is each equally often)")
    return [f"In training: {', '.join(parts)}."] if parts else []


def sampler_words(run: Stored) -> list[str]:
    """How it is sampled where nobody says, and whether that was tuned."""
    own = run.card.sampler
    said = [f"Sampled by {own.name} in {own.steps} steps, {guidance_words(own.guidance)}."]
    if run.tuned is not None:
        before = run.tuned.before
        said.append(f"That was found by tuning; before, it was {before.name} in {before.steps} steps.")
    return said


def guidance_words(scale: float) -> str:
    """A scale of guidance in words."""
    return "no guidance" if scale == 1 else f"guidance {scale:g}"


def data_words(run: Stored) -> list[str]:
    """What it was trained on."""
    data, known = run.parts.get("data", {}), run.card.data
    said: list[str] = []
    if known.images:
        held = (
            f"{known.held_out:,} more were held out"
            if known.held_out
            else "none was held out, so that nothing tells whether it overfits"
        )
        said.append(f"{known.images:,} pictures of {run.data_name} to train on; {held}.")
    if data and not data.get("same", True):
        said.append(f"{run.data_name} is not known as what the run was trained on: the figures are of it.")
    sizes = data.get("sizes")
    if isinstance(sizes, Mapping) and sizes:
        listed = [f"{name}: {n:,}" for name, n in list(cast(Mapping[str, int], sizes).items())[:6]]
        more = f" and {len(sizes) - 6} more sizes" if len(sizes) > 6 else ""
        said.append(f"Sizes as they came: {', '.join(listed)}{more}.")
    captions = data.get("captions")
    if isinstance(captions, int) and captions:
        said.append(f"{captions:,} of them have captions.")
    return said
