"""Pictures, and what an extractor sees in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation.features.seen import Extractor, Features
from sfumato.evaluation.manifold import Points
from sfumato.evaluation.sets import PictureSet
from sfumato.noise import permutation

Part = Literal["pooled", "spatial", "logits", "scores"]
"""What of the features a metric looks at."""
_WITHOUT = {
    "pooled": "{0} gives no features: choose another extractor",
    "spatial": "{0} gives no features of places, which sFID is of: choose another extractor",
    "logits": "{0} gives no logits of classes, which the Inception score is of: choose another extractor",
    "scores": "{1} has no scores of its captions, which the CLIP score is of: take captions and a CLIP",
}


@dataclass(frozen=True)
class FeatureSet:
    """The features of n pictures, row i of picture i, and what looked at them.

    scores: one number a picture that goes with its caption, (n,), as the CLIP score; None where there is
    none. Raises SettingsError where the numbers of pictures and features differ.
    """

    pictures: PictureSet
    features: Features
    extractor: Extractor
    scores: Tensor | None = None

    def __post_init__(self) -> None:
        for part in (*self.features, self.scores):
            if part is not None and len(part) != self.pictures.count:
                raise SettingsError(
                    f"{self.pictures.name}: features of {len(part)} pictures and not of "
                    f"{self.pictures.count}: give each picture its own"
                )

    def __len__(self) -> int:
        return self.pictures.count

    @property
    def width(self) -> int:
        """D, how many numbers describe a picture."""
        return self.features.pooled.shape[1]

    @cached_property
    def points(self) -> Points:
        """The pooled features with their nearest neighbours, found once."""
        return Points.of(self.features.pooled)

    def part(self, name: Part) -> Tensor | None:
        """(n, D), or (n,) of "scores"; None where there is no such."""
        match name:
            case "pooled":
                return self.features.pooled
            case "spatial":
                return self.features.spatial
            case "logits":
                return self.features.logits
            case "scores":
                return self.scores

    def needed(self, name: Part) -> Tensor:
        """The same. Raises SettingsError where there is no such."""
        found = self.part(name)
        if found is None:
            raise SettingsError(_WITHOUT[name].format(self.extractor.name, self.pictures.name))
        return found

    def take(self, rows: Sequence[int]) -> FeatureSet:
        """Some of the pictures, in this order."""
        index = torch.tensor(list(rows), dtype=torch.int64)
        pooled, spatial, logits = self.features
        features = Features(
            pooled[index],
            None if spatial is None else spatial[index],
            None if logits is None else logits[index],
        )
        scores = None if self.scores is None else self.scores[index]
        return FeatureSet(self.pictures.take(rows), features, self.extractor, scores)

    def drawn(self, n: int, seed: int) -> FeatureSet:
        """n of the pictures by the seed and their content, whatever their order; all if there are no more."""
        if n >= len(self):
            return self
        return self.take(
            self.pictures.order[permutation(len(self), seed, "feature set")[:n].numpy()].tolist()
        )

    def of_class(self, name: str) -> FeatureSet:
        """The pictures of one class, perhaps none."""
        pictures = self.pictures
        if pictures.classes is None or name not in pictures.class_names:
            return self.take([])
        number = pictures.class_names.index(name)
        return self.take([row for row, one in enumerate(pictures.classes) if one == number])


def check_alike(first: FeatureSet, second: FeatureSet) -> None:
    """Raises SettingsError, one sentence that names every difference, unless both were looked at alike."""
    one, other = first.extractor, second.extractor
    pairs = (
        ("extractors", one.name, other.name),
        ("weights", one.sha256[:12], other.sha256[:12]),
        ("resizing", one.resize, other.resize),
        ("widths", first.width, second.width),
    )
    said = [f"{words} {mine} and {theirs}" for words, mine, theirs in pairs if mine != theirs]
    if said:
        raise SettingsError(
            f"{first.pictures.name} and {second.pictures.name} were not looked at alike, {'; '.join(said)}: "
            "take the features of both by the same extractor"
        )
