"""Novelty: does a model make pictures of its own, or give back those that it was trained on?

Every picture resembles some training picture; the question is whether samples do so more than new pictures
do. The pictures that were held out are new for sure, so they are the measure. For each picture,

    score = (distance to the nearest training picture) / (distance to the k-th nearest),

about 1 where the nearest is one of many alike and near 0 for a copy, however dense the data are just there
(after Carlini et al. 2023, section 5.1, who divide by the mean distance of 50). k = 10: a larger k looks
beyond the picture's own kind, and then samples that are merely too typical score low. Pictures that occur
several times among the training data count once, and up to 9 that are near-copies of each other do not hide
a copy of them. A near-copy is a sample whose score is below that of
99 % of held-out pictures; of new pictures 1 % are. The test is exact (`shares.below`): Meehan, Chaudhuri &
Dasgupta 2020 compare the same two sets of distances by their ranks.

It is asked in two spaces: pixels (`copies`), and what an extractor sees. A held-out picture that is a copy of
a training picture is not new: it is left out of the measure, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.data.ingest import Progress
from sfumato.errors import SettingsError
from sfumato.evaluation import copies
from sfumato.evaluation.features.extractor import Extractor
from sfumato.evaluation.features.store import features_of
from sfumato.evaluation.neighbours import nearest
from sfumato.evaluation.sets import PictureSet
from sfumato.evaluation.shares import Share, chance, most

NEIGHBOUR = 10
"""k, for 50 training pictures or more; a fifth of fewer."""
SHARE = 0.01
"""Of held-out pictures, as nearly as their number allows: what lies below is a near-copy."""
SURE = 0.005
"""A run is flagged where so many near-copies have this probability at most, in either of two spaces: in both
together, one healthy run in a hundred."""
FEWEST_TRAIN, FEWEST_HELD, FEWEST = 10, 20, 10


@dataclass(frozen=True, eq=False)
class Closeness:
    """How near n samples are to training pictures in one space, beside h held-out ones.

    space: in words; unit: of distances. neighbour: k. distance, nearest, score: of each sample the distance
    to the nearest training picture, its row and the score, (n,). new: the held-out pictures' scores, (h,),
    ascending.
    """

    space: str
    unit: str
    neighbour: int
    distance: Tensor
    nearest: Tensor
    score: Tensor
    new: Tensor

    @property
    def rank(self) -> int:
        """Which of the held-out scores, from below, is the limit."""
        return max(1, int(SHARE * (len(self.new) + 1)))

    @property
    def limit(self) -> float:
        """A lower score makes a near-copy."""
        return float(self.new[self.rank - 1])

    @property
    def expected(self) -> float:
        """The share of new pictures that lie below the limit: rank / (h + 1), exactly."""
        return self.rank / (len(self.new) + 1)

    @property
    def near(self) -> Share:
        """The near-copies among the samples."""
        return Share(int((self.score < self.limit).sum()), len(self.score))

    @property
    def chance(self) -> float:
        """How probable so many near-copies are, or more, if samples are as new as held-out pictures."""
        return chance(self.near.count, self.near.of, len(self.new), self.rank)

    @property
    def most(self) -> int:
        """The most near-copies that are not flagged."""
        return most(self.near.of, len(self.new), self.rank, SURE)

    @property
    def flagged(self) -> bool:
        """More near-copies than among as many new pictures."""
        return self.chance <= SURE

    @property
    def p(self) -> Tensor:
        """Of each sample (1 + how many held-out pictures have its score or less) / (h + 1), (n,)."""
        under = torch.searchsorted(self.new, self.score, right=True)
        return (1 + under).double() / (len(self.new) + 1)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "space": self.space,
            "neighbour": self.neighbour,
            "limit": self.limit,
            "near_copies": self.near.to_json(),
            "expected": self.expected,
            "most": self.most,
            "chance": self.chance,
            "flagged": self.flagged,
            "median_score": float(self.score.median()),
            "median_score_held_out": float(self.new.median()),
            "median_distance": float(self.distance.median()),
            "unit": self.unit,
        }

    def line(self) -> str:
        """The same for people."""
        return (
            f"{self.space:<20}{self.near.count:>6} near-copies, {self.near}; of new pictures "
            f"{self.expected:.1%}, so up to {self.most} {'(flagged)' if self.flagged else ''}".rstrip()
        )


@dataclass(frozen=True, eq=False)
class Novelty:
    """What was found of `samples`. copies: samples that a training picture explains by 99 %, (n,) bool.

    sets: name and hash of the samples, the training and the held-out pictures. held_copies: held-out pictures
    that are copies of training pictures and were left out. extractor: name, weights' hash, resize.
    """

    pixels: Closeness
    features: Closeness
    copies: Tensor
    sets: tuple[tuple[str, str, int], ...]
    held_copies: int
    extractor: tuple[str, str, str]

    @property
    def flagged(self) -> bool:
        """The model gives training pictures back."""
        return self.pixels.flagged or self.features.flagged

    @property
    def verdict(self) -> str:
        """One sentence."""
        spaces = [one for one in (self.pixels, self.features) if one.flagged]
        if not spaces:
            return "Its samples are as new as held-out pictures are, as far as so many can tell."
        worst = max(spaces, key=lambda one: one.near.value - one.expected)
        excess = worst.near.value - worst.expected
        return (
            f"It gives training pictures back: {worst.near} of its samples are nearer to one than nearly all "
            f"new pictures are, {excess:.1%} more than chance: train on more pictures, or for less long."
        )

    @property
    def order(self) -> Tensor:
        """The samples' rows, the most similar to a training picture first, (n,): by the smaller of the two
        p, then by the smaller score."""
        score = torch.minimum(self.pixels.score, self.features.score)
        by_score = score.argsort(stable=True)
        p = torch.minimum(self.pixels.p, self.features.p)
        return by_score[p[by_score].argsort(stable=True)]

    def closest(self, sample: int) -> Closeness:
        """The space in which this sample is nearer to its training picture."""
        return min((self.pixels, self.features), key=lambda one: (float(one.p[sample]), one is self.features))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        name, sha256, resize = self.extractor
        return {
            "flagged": self.flagged,
            "verdict": self.verdict,
            "copies": Share(int(self.copies.sum()), len(self.copies)).to_json(),
            "spaces": [self.pixels.to_json(), self.features.to_json()],
            "held_out_copies": self.held_copies,
            "sets": [{"name": name, "sha256": sha, "pictures": n} for name, sha, n in self.sets],
            "extractor": {"name": name, "weights_sha256": sha256, "resize": resize},
        }

    def lines(self) -> Iterator[str]:
        """The same for people."""
        _, _, train = self.sets[1]
        yield self.verdict
        yield f"{len(self.copies):,} samples against {train:,} training pictures"
        yield f"{'outright copies':<20}{int(self.copies.sum()):>6}"
        yield self.pixels.line()
        yield self.features.line()
        if self.held_copies:
            yield (
                f"{self.held_copies} held-out pictures are copies of training pictures: not new, so they "
                "were left out of the measure"
            )


def look(
    samples: PictureSet,
    train: PictureSet,
    held: PictureSet,
    extractor: Extractor,
    *,
    batch: int = 64,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Novelty:
    """How new the samples are, measured by the held-out pictures, all of one size.

    Raises SettingsError for too few pictures, or of different sizes.
    """
    rows = _once(train)
    distinct = train if len(rows) == train.count else train.take(rows.tolist())
    _enough(samples, distinct, held)
    k = max(2, min(NEIGHBOUR, distinct.count // 5))
    known = copies.shrunk(distinct)
    new, own = (copies.near(copies.shrunk(one), known, k, progress) for one in (held, samples))
    trained_on = {*train.digests}
    fresh = ~(new.copy | torch.tensor([one in trained_on for one in held.digests]))
    if int(fresh.sum()) < FEWEST_HELD:
        raise SettingsError(
            f"{held.name}: {int(fresh.sum())} of {held.count} held-out pictures are no copies of training "
            f"pictures, and novelty is measured by at least {FEWEST_HELD}: hold out more"
        )
    seen = [features_of(one, extractor, batch, cache, progress).pooled for one in (distinct, held, samples)]
    far, mine = (nearest(one, seen[0], k) for one in seen[1:])
    pixels = Closeness(
        "pixels", "grey levels", k, own.distance, rows[own.index], _score(own.distance, own.further),
        _score(new.distance, new.further)[fresh].sort().values,
    )  # fmt: skip
    features = Closeness(
        f"features, {extractor.name}", "of features", k, mine.distances[:, 0], rows[mine.indices[:, 0]],
        _score(mine.distances[:, 0], mine.distances[:, -1]),
        _score(far.distances[:, 0], far.distances[:, -1])[fresh].sort().values,
    )  # fmt: skip
    return Novelty(
        pixels,
        features,
        own.copy,
        tuple((one.name, one.sha256, one.count) for one in (samples, train, held)),
        int((~fresh).sum()),
        (extractor.name, extractor.sha256, extractor.resize),
    )


def _once(pictures: PictureSet) -> Tensor:
    """The rows of different pictures, the first of each."""
    first: dict[str, int] = {}
    for row, digest in enumerate(pictures.digests):
        first.setdefault(digest, row)
    return torch.tensor([*first.values()])


def _score(distance: Tensor, further: Tensor) -> Tensor:
    """0 where even the k-th nearest is a copy."""
    return torch.where(further > 0, distance / further, 0.0)


def _enough(samples: PictureSet, train: PictureSet, held: PictureSet) -> None:
    for one, least, what in (
        (train, FEWEST_TRAIN, "training pictures"),
        (held, FEWEST_HELD, "held-out pictures"),
        (samples, FEWEST, "samples"),
    ):
        if one.count < least:
            raise SettingsError(f"{one.name}: {one.count} {what}: novelty is measured with at least {least}")
        if one.shape != train.shape:
            sizes = [f"{s[2]} x {s[1]} with {s[0]} channels" for s in (one.shape, train.shape)]
            raise SettingsError(
                f"{one.name}: pictures of {sizes[0]} beside training pictures of {sizes[1]}: bring them to "
                "one size first"
            )
