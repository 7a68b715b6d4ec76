"""The parts of an evaluation: each measures one thing, writes it into the evaluation's folder and says it in
lines. The report is made of what they wrote."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from sfumato import __version__
from sfumato.conditions.clip import FrozenClip, SmallClip
from sfumato.errors import SettingsError
from sfumato.evaluation import coverage, novelty
from sfumato.evaluation.clip_score import clip_scores
from sfumato.evaluation.contact import write_contact
from sfumato.evaluation.feature_set import FeatureSet
from sfumato.evaluation.features.extractor import Extractor
from sfumato.evaluation.features.store import features_of
from sfumato.evaluation.groups import groupings
from sfumato.evaluation.metrics import METRICS, check, measure, measure_classes, usual
from sfumato.evaluation.record import Record
from sfumato.evaluation.sets import PictureSet
from sfumato.files import read_json, write_json
from sfumato.inside import overfit
from sfumato.inside.losses import losses
from sfumato.reporting.picked import pick
from sfumato.reporting.stored import RECORDS, add_records
from sfumato.reporting.subject import Subject, data_summary
from sfumato.reporting.words import guidance_words
from sfumato.runs import Run

Told = Callable[[int, int], None]
MOST, FEWEST = 1000, 200
"""Samples if nobody says how many: as many as pictures were held out, within these."""
CLASS_METRICS = ("kid", "precision", "recall")
"""Where nobody says which metrics, these are also measured class by class; else all that were said."""


@dataclass(frozen=True)
class Looking:
    """How pictures are looked at: by whose eyes, how many at a time, and where that is kept."""

    extractor: Extractor
    batch: int
    seed: int
    cache: Path | None
    told: Callable[[str], Told]
    pair: SmallClip | FrozenClip | None = None
    """The CLIP whose eyes these are; it also reads captions."""

    def features(self, pictures: PictureSet) -> FeatureSet:
        """What is seen in these; by a CLIP also how well each goes with its caption, where all have one."""
        told = self.told(f"looking at {pictures.count:,} pictures")
        seen = features_of(pictures, self.extractor, self.batch, self.cache, told)
        captions, scores = pictures.captions, None
        if self.pair is not None and captions is not None and all(text.strip() for text in captions):
            scores = clip_scores(seen.pooled, captions, self.pair)
        return FeatureSet(pictures, seen, self.extractor, scores)


def usual_number(of: Subject) -> int:
    """How many samples are drawn if nobody says: as many as were held out, so that the baseline is of as many
    pictures; 200 at least and 1,000 at most."""
    held = len(of.data.held)
    return min(MOST, max(FEWEST, held)) if held else MOST


def sampled(of: Subject, samples: PictureSet, home: Path) -> None:
    """Writes what it makes, and what it was trained on."""
    own = of.run.card.sampler
    told = "; each is told what is known of a training picture" if of.run.conditions.names else ""
    how = f"Drawn by {own.name} in {own.steps} steps, {guidance_words(own.guidance)}{told}."
    shown = "" if of.run.card.picture is None else " No picture was shown to it."
    pick(samples, home, how + shown)
    write_json(home / "data.json", data_summary(of))


def check_metrics(names: Sequence[str], of: Subject, n: int, look: Looking) -> None:
    """Raises SettingsError, before any is drawn, for metrics that n samples or these eyes do not do for."""
    check(names, of.train.count, n, look.extractor.width)
    first = of.train.take([0])
    seen = FeatureSet(first, features_of(first, look.extractor), look.extractor)
    for name in names:
        if METRICS[name].looks_at != "scores" or look.pair is None:
            seen.needed(METRICS[name].looks_at)


def metrics(
    of: Subject, samples: PictureSet, names: Sequence[str] | None, look: Looking, home: Path
) -> Iterator[str]:
    """Measures the metrics (None: all that the pictures are enough for) against the training pictures, with
    the held-out ones as the baseline; adds the records."""
    real, made = look.features(of.train), look.features(samples)
    held = None if of.held is None else look.features(of.held)
    asked = usual(real, made) if names is None else tuple(names)
    if not asked:
        raise SettingsError(
            f"{samples.count} samples and {of.train.count} training pictures are too few for any metric: "
            "draw more (-n 50), or give more pictures"
        )
    found = list(measure(asked, real, made, held, look.seed))
    yield from _told(found)
    by_class = [name for name in asked if names is not None or name in CLASS_METRICS]
    if by_class and samples.classes is not None and len(of.train.class_names) > 1:
        each = measure_classes(by_class, real, made, held, look.seed)
        found += each.records
        yield from each.left_out[:3]
        if len(each.left_out) > 3:
            yield f"and {len(each.left_out) - 3} more metrics of single classes that have too few pictures"
    add_records(home / RECORDS, found)


def compared(
    made: PictureSet,
    real: PictureSet,
    names: Sequence[str] | None,
    look: Looking,
    home: Path | None,
) -> Iterator[str]:
    """The metrics of any pictures against others; the records are added where a folder is given."""
    if made.shape != real.shape:
        sizes = [f"{s[2]} x {s[1]} with {s[0]} channels" for s in (made.shape, real.shape)]
        raise SettingsError(
            f"{made.name} has pictures of {sizes[0]}, {real.name} of {sizes[1]}: bring both to one size with "
            "--size"
        )
    if names is not None:
        check(names, real.count, made.count, look.extractor.width)
    first, second = look.features(real), look.features(made)
    asked = usual(first, second) if names is None else tuple(names)
    if not asked:
        raise SettingsError(f"{made.count} and {real.count} pictures are too few for any metric: give more")
    found = measure(asked, first, second, seed=look.seed)
    yield from _told(found)
    if home is not None:
        add_records(home / RECORDS, found)


def _told(records: Sequence[Record]) -> Iterator[str]:
    """The records as lines; a warning that several share is said once."""
    warned: dict[str, None] = {}
    for record in records:
        yield from record.model_copy(update={"warnings": ()}).lines()
        warned |= dict.fromkeys(record.warnings)
    yield from warned


def loss_levels(of: Subject, home: Path, seed: int, batch: int, told: Told) -> Iterator[str]:
    """The loss at each noise level, on training and held-out pictures; the gap is the overfit."""
    found = losses(of.run, of.data, seed=seed, batch=batch, told=told)
    said: dict[str, Any] = {**_head(of.run), **found.to_json(), "reading": overfit.reading(found)}
    for name, figure in (("overfit", overfit.overfit(found)), ("memorised", overfit.memorised(found))):
        said[name] = None if figure is None else {"value": figure[0], "error": figure[1]}
    write_json(home / "losses.json", said)
    yield from said["reading"]


def copies(of: Subject, samples: PictureSet, look: Looking, home: Path) -> Iterator[str]:
    """Whether it gives training pictures back."""
    if of.held is None:
        raise SettingsError(
            "novelty is measured by pictures that were held out, and there are none: train with "
            "--hold-out 0.05"
        )
    found = novelty.look(
        samples,
        of.train,
        of.held,
        look.extractor,
        batch=look.batch,
        cache=look.cache,
        progress=look.told("looking for copies"),
    )
    names = [of.data.names[row] for row in of.data.train.tolist()]
    write_contact(home / "nearest.png", found, samples, of.train, names)
    write_json(home / "novelty.json", {**_head(of.run), **found.to_json()})
    yield from found.lines()


def left_out(of: Subject, samples: PictureSet, look: Looking, home: Path) -> Iterator[str]:
    """Which classes, attributes and kinds of pictures it makes too few of."""
    held = of.held if of.held is not None else of.train.take([])
    found = coverage.look(
        samples,
        of.train,
        held,
        look.extractor,
        groupings=groupings(of.data),
        seed=look.seed,
        batch=look.batch,
        cache=look.cache,
        progress=look.told("looking for what is left out"),
    )
    write_json(home / "coverage.json", {**_head(of.run), **found.to_json()})
    yield from found.lines()


def _head(run: Run) -> dict[str, Any]:
    """What every part says of itself: its format, and which weights it is of."""
    return {"format": 1, "weights_sha256": run.sha256}


@dataclass(frozen=True)
class Said:
    """What only the user knows; None: as it was said before."""

    licence: str | None = None
    data_licence: str | None = None
    watts: float | None = None

    def kept(self, home: Path, **more: Any) -> None:
        """Writes it beside what was said before, and what an evaluation adds."""
        path = home / "about.json"
        before = read_json(path) if path.is_file() else {}
        said = {k: v for k, v in vars(self).items() if v is not None}
        write_json(path, {**(before if isinstance(before, dict) else {}), **said, **more})


def about(run: Run) -> dict[str, Any]:
    """When, of what state of the run and with what an evaluation was made."""
    return {
        "format": 1,
        "date": datetime.now(UTC).date().isoformat(),
        "sfumato": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": run.device.type,
        "weights": run.weights,
        "weights_sha256": run.sha256,
        "images_seen": run.card.training.images_seen,
    }
