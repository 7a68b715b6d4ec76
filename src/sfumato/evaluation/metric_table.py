"""The metrics by their names: what each looks at, how many pictures it needs, when it is to be believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from sfumato.evaluation.feature_set import Part
from sfumato.evaluation.figure import SPLITS, Figure
from sfumato.evaluation.frechet import HALVES, fid, fid_infinity
from sfumato.evaluation.inception_score import inception_score
from sfumato.evaluation.kernel import DEGREE, kid
from sfumato.evaluation.manifold import Points, density_coverage, precision_recall
from sfumato.evaluation.mean import Mean
from sfumato.evaluation.record import Setting

Compute = Callable[[Any, Any, int], Mapping[str, Figure]]
"""(what `looks_at` names of real pictures, of generated ones, seed) -> figures by metric; one may give
several. In place of pooled features (n, D) metrics of neighbours take `Points` too."""
NEAREST, NEIGHBOURS = 3, 5
"""k of precision and recall, and of density and coverage, as their papers have it."""
MANY = 10_000
"""From so many pictures on FID is the usual first choice; below, KID is."""


@dataclass(frozen=True)
class Metric:
    """What can be measured.

    least, least_per_feature: the fewest pictures of each set, and for each feature. looks_at: which features;
    nearest: and their neighbours. compares: with real pictures, or it is of the generated ones alone.
    interval: how, and of what. trusted: from so many pictures on there is no warning; `doubt` is the warning,
    with "{n}" for the number.
    """

    better: Literal["lower", "higher"]
    least: int
    compute: Compute
    interval: str
    looks_at: Part = "pooled"
    nearest: bool = False
    compares: bool = True
    least_per_feature: int = 0
    settings: Mapping[str, Setting] = field(default_factory=dict)
    trusted: int = 0
    doubt: str = ""

    def fewest(self, width: int) -> int:
        """The fewest pictures of each set with so many features."""
        return max(self.least, self.least_per_feature * width)


def _precision_recall(real: Tensor | Points, generated: Tensor | Points, seed: int) -> Mapping[str, Figure]:
    return precision_recall(real, generated, NEAREST, seed)._asdict()


def _density_coverage(real: Tensor | Points, generated: Tensor | Points, seed: int) -> Mapping[str, Figure]:
    return density_coverage(real, generated, NEIGHBOURS, seed)._asdict()


_HALVES = f"95 %, from halves of the pictures, cut {SPLITS} times, of the mean over sets of so many"
_AT_N = "95 %, infinitesimal jackknife over the pictures, of the mean over sets of so many"
_BIASED = (
    "of {n:,} pictures it is too high by more than models differ: compare it only at the same n, and below "
    f"{MANY:,} pictures look at KID first"
)
_SHARE = "at {n:,} pictures the balls are wide: compare it only at the same n, and with real against real"


def _of_balls(compute: Compute, k: int, trusted: int = 0) -> Metric:
    """A metric of the balls around pictures that reach their k-th neighbours."""
    settings: Mapping[str, Setting] = {"k": k}
    return Metric(
        "higher", 50, compute, _HALVES, nearest=True, settings=settings, trusted=trusted, doubt=_SHARE
    )


METRICS: Mapping[str, Metric] = {
    "kid": Metric(
        "lower",
        50,
        lambda real, made, _: {"kid": kid(real, made)},
        "95 %, jackknife of the U-statistic, of the distance of the laws",
        settings={"degree": DEGREE},
    ),
    "fid": Metric(
        "lower",
        50,
        lambda real, made, _: {"fid": fid(real, made)},
        _AT_N,
        trusted=MANY,
        doubt=_BIASED,
    ),
    "fid-infinity": Metric(
        "lower",
        50,
        lambda real, made, seed: {"fid-infinity": fid_infinity(real, made, seed)},
        "95 %, infinitesimal jackknife over the pictures, of the distance of the laws",
        least_per_feature=HALVES,
    ),
    "sfid": Metric(
        "lower",
        50,
        lambda real, made, _: {"sfid": fid(real, made)},
        _AT_N,
        looks_at="spatial",
        trusted=MANY,
        doubt=_BIASED,
    ),
    "is": Metric(
        "higher",
        50,
        lambda _, made, seed: {"is": inception_score(made, 1, seed)},
        "95 %, delta method over the pictures, of the mean over sets of so many",
        looks_at="logits",
        compares=False,
        settings={"splits": 1},
        trusted=5000,
        doubt="of {n:,} pictures it is too low: compare it only at the same n",
    ),
    "precision": _of_balls(_precision_recall, NEAREST, 1000),
    "recall": _of_balls(_precision_recall, NEAREST, 1000),
    "density": _of_balls(_density_coverage, NEIGHBOURS),
    "coverage": _of_balls(_density_coverage, NEIGHBOURS, 1000),
    "clip-score": Metric(
        "higher",
        10,
        lambda _, made, __: {"clip-score": Figure.of(*Mean.of(made))},
        "95 %, standard error of the mean over the pictures",
        looks_at="scores",
        compares=False,
    ),
}
"""What can be asked for by name, the first choice first."""
