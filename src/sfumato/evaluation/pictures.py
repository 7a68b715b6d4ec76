"""The pictures that a run is evaluated on: of the right form, exact to the last bit, with their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from sfumato.bound import Bins
from sfumato.card import Card
from sfumato.conditions.classes import Classes
from sfumato.data.bundled import open_source
from sfumato.data.dataset import DataSet
from sfumato.data.ingest import Progress
from sfumato.data.prepare import prepare
from sfumato.data.source import Source
from sfumato.data.split import place
from sfumato.errors import SettingsError
from sfumato.noise import permutation
from sfumato.runs import Run

Split = Literal["held-out", "train", "all"]
"""Which of the run's own pictures."""
FEWEST = 2
"""Fewer pictures have no standard error."""


def bins_of(card: Card) -> Bins:
    """The values that a picture of this model can take."""
    return Bins(2**card.image.bits, card.image.low, card.image.high)


@dataclass(frozen=True)
class Pictures:
    """n pictures of a model's own form.

    x0: (n, C, H, W) float64 on the CPU, exactly values of the bins. classes: the model's number for each,
    None for "no class"; None as a whole for a model without classes. about: what was chosen, in words.
    """

    x0: Tensor
    classes: tuple[int | None, ...] | None
    bins: Bins
    about: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x0)

    def take(self, rows: Sequence[int]) -> Pictures:
        """Some of them; rows beyond the last are left out."""
        kept = [row for row in rows if row < len(self)]
        classes = None if self.classes is None else tuple(self.classes[row] for row in kept)
        return Pictures(self.x0[kept], classes, self.bins, self.about)

    @staticmethod
    def of(run: Run, x0: Tensor, classes: tuple[int | None, ...] | None = None) -> Pictures:
        """These pictures, (n, C, H, W) in the images' range, and the classes' numbers. Raises SettingsError
        unless they have the model's shape and whole-numbered values."""
        image, bins = run.card.image, bins_of(run.card)
        if x0.ndim != 4 or tuple(x0.shape[1:]) != image.shape:
            raise SettingsError(
                f"pictures of shape {tuple(x0.shape)} are not this model's: it needs (n, {image.channels}, "
                f"{image.height}, {image.width})"
            )
        if len(x0) < FEWEST:
            raise SettingsError(f"{len(x0)} pictures: a figure with its error needs at least {FEWEST}")
        if classes is not None and len(classes) != len(x0):
            raise SettingsError(f"{len(classes)} classes for {len(x0)} pictures: give each one its own")
        if classes is None and run.card.classes is not None:
            classes = (None,) * len(x0)
        return Pictures(_exact(x0, bins), classes, bins)


def _exact(x0: Tensor, bins: Bins) -> Tensor:
    """The values rounded to the bins' own, which they must be but for float32's rounding."""
    places = (x0.to("cpu", torch.float64) - bins.low) / bins.width
    whole = places.round()
    fits = bool(((places - whole).abs() < 0.01).all()) and bool(((whole >= 0) & (whole < bins.count)).all())
    if not fits:
        raise SettingsError(
            f"the pictures do not hold whole numbers of {bins.count:,} values from {bins.low:g} to "
            f"{bins.high:g}, as the model's do: give them unscaled and in its bit depth"
        )
    return bins.low + whole * bins.width


def choose(
    run: Run,
    data: str | Path | Source,
    n: int = 256,
    split: Split | None = None,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Pictures:
    """n pictures of a folder, an .npz file or a bundled name, drawn by the seed; fewer where there are fewer.

    split: of the data that the run was trained on, the pictures that it held out (the default), those that it
    was trained on, or all; other data has no split. Pictures that are larger than the model's are fitted as
    `train` fits them. Classes are taken by name where the model has them all, else every picture is of "no
    class". Raises SettingsError or DataError, one sentence.
    """
    if split is not None and split not in get_args(Split):
        raise SettingsError(f"--split is one of {', '.join(get_args(Split))}, not {split!r}")
    if n < FEWEST:
        raise SettingsError(f"-n {n}: a figure with its error needs at least {FEWEST} pictures")
    source = data if isinstance(data, Source) else open_source(data)
    image = run.card.image
    found = prepare(source, **run.card.fitting(source), hold_out=0.0, cache=cache, progress=progress)
    rows, whence = _rows(run, found, split)
    if len(rows) < FEWEST:
        raise SettingsError(f"{found.name}: {len(rows)} pictures {whence}: at least {FEWEST} are needed")
    picked = rows[permutation(len(rows), seed, "evaluation")[:n].numpy()]
    about = [f"{len(picked)} of {len(rows)} {whence}"]
    if found.fingerprint != run.card.data.fingerprint:
        about += _fitted(run.card, source, found, picked)
    classes, of_what = _classes(run, found, picked)
    unit = found.images(picked).double()
    if found.pixels.dtype == np.uint16 and image.bits == 8:
        raise SettingsError(
            f"{found.name}: 16-bit pictures for a model of 8-bit ones: convert them to 8 bits first"
        )
    if found.pixels.dtype == np.uint8 and image.bits == 16:
        about.append("8-bit pictures for a model of 16-bit ones: they use 256 of its 65,536 values")
    scaled = image.low + (unit + 1) / 2 * (image.high - image.low)
    chosen = Pictures.of(run, scaled, classes)
    return Pictures(chosen.x0, chosen.classes, chosen.bins, (*about, *of_what))


def _rows(run: Run, found: DataSet, split: Split | None) -> tuple[np.ndarray, str]:
    """The rows of a split, and where they come from in words."""
    kept = run.card.data
    every = np.arange(len(found.pixels))
    if not kept.fingerprint or found.fingerprint != kept.fingerprint:
        if split not in (None, "all"):
            raise SettingsError(
                f"--split {split} is for the pictures that the run was trained on, and {found.name} is not "
                "known as these: leave it out"
            )
        return every, f"of {found.name}, which is not known as what the run was trained on"
    if split == "held-out" and not kept.held_out:
        raise SettingsError(f"{run.name}: this run held no picture out: choose --split train or all")
    if split == "all" or (split is None and not kept.held_out):
        return every, "of all that the run had" if kept.held_out else "that the run was trained on"
    places = np.array([place(digest) for digest in found.digests])
    held = (
        places <= np.sort(places)[kept.held_out - 1] if kept.held_out else np.zeros(len(places), dtype=bool)
    )
    if split == "train":
        return every[~held], "that the run was trained on"
    return every[held], "that the run held out"


def _fitted(card: Card, source: Source, found: DataSet, picked: np.ndarray) -> list[str]:
    """What was done to pictures of another form, in words; SettingsError where they would be others."""
    number = {item.name: i for i, item in enumerate(source.items)}
    headers = [source.header(number[found.names[row]]) for row in picked.tolist()]
    width, height, channels = card.image.width, card.image.height, card.image.channels
    for header in headers:
        if header.width < width or header.height < height:
            raise SettingsError(
                f"{found.name}: a picture of {header.width} x {header.height} is smaller than the model's "
                f"{width} x {height}, and enlarged it would be another one: give pictures of that size"
            )
    colour = sum(header.has_colour for header in headers)
    if channels < 3 and colour:
        raise SettingsError(
            f"{found.name}: colour pictures for a model of grey ones: convert them to grey first"
        )
    if channels >= 3 and not colour:
        raise SettingsError(
            f"{found.name}: grey pictures for a model of colour ones: it was not trained on any such"
        )
    larger = sum((h.width, h.height) != (width, height) for h in headers)
    return [f"{larger} of them fitted to {width} x {height}, as training does"] if larger else []


def _classes(
    run: Run, found: DataSet, picked: np.ndarray
) -> tuple[tuple[int | None, ...] | None, tuple[str, ...]]:
    """The model's class for each picture, and what that is in words."""
    names = run.card.classes
    if names is None:
        return None, ()
    own = found.classes_of(picked)
    if own is not None and set(found.label_names) <= set(names):
        numbers = [names.index(name) for name in found.label_names]
        each = tuple(None if label < 0 else numbers[label] for label in own.tolist())
        Classes(names, run.card.null_class).rows(each)
        return each, ("each with its own class",)
    Classes(names, run.card.null_class).rows([None])
    return (None,) * len(picked), ('all as "no class", since they have not the model\'s classes',)
