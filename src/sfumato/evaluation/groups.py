"""Groups of pictures: whether a model serves each as its training data do, class by class, with error bars.

A judge trained on the data says what each sample is (`linear_probe`), its errors are taken out, and what is
left of doubt, the samples' number and the judge's, is in the intervals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.conditions import columns
from sfumato.conditions.attributes import Choice, Labels, Value
from sfumato.data.dataset import DataSet
from sfumato.errors import SettingsError
from sfumato.evaluation.draws import again, drawn, plausible
from sfumato.evaluation.linear_probe import LinearProbe, confusion, corrected, train_probe
from sfumato.evaluation.shares import Share
from sfumato.noise import permutation

UNDER = 0.5
"""A group is under-served where its share is surely below this part of what it should be."""
DRAWS = 400
UNSEEN = 0.2
"""This share of the training pictures is kept from the judge, to measure its errors by."""
MOST = 20_000
EACH = 10
"""So many samples, and training pictures, a group on average are the fewest."""
_LISTED = 20
_LABELS = 40
_NUMBERS = 1 << 22


@dataclass(frozen=True, eq=False)
class Grouping:
    """One way to sort pictures: `options`, and of each training and held-out picture the place among them,
    (n,) int64, -1 where it is not known."""

    name: str
    options: tuple[str, ...]
    train: Tensor
    held: Tensor


def groupings(data: DataSet) -> tuple[Grouping, ...]:
    """The ways that a data set's own tables sort it, for its `train` and `held` rows: each column that is a
    choice, of columns of labels each label, with it or without, the 40 commonest, and columns of numbers by
    their quarters. (Classes come with the pictures.)"""
    found: list[Grouping] = []
    for name, kind in columns.offered(data.columns).items():
        attributes = columns.attributes_of(data.columns, [f"{name}:{kind}"])
        values = [told.get(name) for told in columns.told(attributes, data.columns)]
        item = attributes.items[0]
        if isinstance(item, Choice):
            place = {option: i for i, option in enumerate(item.options)}
            sorted_ = np.array([-1 if value is None else place[str(value)] for value in values])
            found.append(_grouping(name, item.options, sorted_, data))
        elif isinstance(item, Labels):
            for option in _commonest(item.options, values):
                held = [-1 if not isinstance(value, tuple) else int(option in value) for value in values]
                found.append(_grouping(f"{name}: {option}", ("without", "with"), np.array(held), data))
        else:
            found.append(_quarters(name, values, data))
    return tuple(found)


def _quarters(name: str, values: Sequence[Value | None], data: DataSet) -> Grouping:
    """A column of numbers, cut at the training pictures' quartiles; fewer groups where these are alike."""
    numbers = np.array([value if isinstance(value, int | float) else np.nan for value in values], dtype=float)
    known = numbers[data.train][~np.isnan(numbers[data.train])]
    cuts = np.unique(np.quantile(known, (0.25, 0.5, 0.75))) if len(known) else np.zeros(1)
    ends = [f"{cut:.3g}" for cut in cuts]
    between = [f"above {low}, to {high}" for low, high in pairwise(ends)]
    sorted_ = np.where(np.isnan(numbers), -1, np.searchsorted(cuts, numbers))
    return _grouping(name, (f"to {ends[0]}", *between, f"above {ends[-1]}"), sorted_, data)


def _commonest(options: Sequence[str], values: Sequence[Value | None]) -> list[str]:
    """The labels that most pictures have, in their own order."""
    counts = Counter(label for value in values if isinstance(value, tuple) for label in value)
    kept = {label for label, n in counts.most_common(_LABELS) if n >= EACH}
    return [option for option in options if option in kept]


def _grouping(name: str, options: tuple[str, ...], sorted_: np.ndarray, data: DataSet) -> Grouping:
    train, held = (torch.from_numpy(sorted_[rows].astype(np.int64)) for rows in (data.train, data.held))
    return Grouping(name, options, train, held)


@dataclass(frozen=True)
class Group:
    """One group: the share that it should have, and the one it has, with a 95 % interval. right: of samples
    that were asked to be of it, those judged so."""

    name: str
    due: float
    share: float
    low: float
    high: float
    right: Share | None = None

    @property
    def under(self) -> bool:
        """Surely below half of what is due."""
        return self.high < UNDER * self.due

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        said = {"name": self.name, "due": self.due, "share": self.share, "low": self.low, "high": self.high}
        more = {} if self.right is None else {"as_asked": self.right.to_json()}
        return said | {"under_served": self.under} | more

    def line(self) -> str:
        """The same for people."""
        right = "" if self.right is None else f"   {self.right.value:6.1%} of those asked for"
        mark = "   under-served" if self.under else ""
        bar = f"({self.low:.1%} to {self.high:.1%})"
        return f"  {self.name[:24]:<24}{self.due:>7.1%}{self.share:>8.1%} {bar:<19}{right}{mark}".rstrip()


@dataclass(frozen=True)
class Groups:
    """How the samples' groups compare with what is due: as in training, or as was asked for.

    distance, low, high: total variation, half the sum of |share - due|, with a 95 % interval (basic
    bootstrap); usual: what 95 % of models without bias stay below; chance: the p-value of no bias. accuracy:
    of the judge on pictures that it has not seen.
    """

    name: str
    due: str
    samples: int
    groups: tuple[Group, ...]
    distance: float
    low: float
    high: float
    usual: float
    chance: float
    accuracy: Share

    @property
    def under(self) -> tuple[str, ...]:
        """The under-served groups."""
        return tuple(group.name for group in self.groups if group.under)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "due": self.due,
            "samples": self.samples,
            "total_variation": {"value": self.distance, "low": self.low, "high": self.high},
            "usual": self.usual,
            "chance": self.chance,
            "judge_accuracy": self.accuracy.to_json(),
            "under_served": list(self.under),
            "groups": [group.to_json() for group in self.groups],
        }

    def lines(self) -> Iterator[str]:
        """The same for people; of many groups those that lack most."""
        yield (
            f"{self.name}: total variation {self.distance:.3f} ({self.low:.3f} to {self.high:.3f}) from "
            f"{self.due}; without bias up to {self.usual:.3f}"
        )
        yield f"  the judge is right on {self.accuracy} of pictures that it has not seen; its errors are out"
        shown = self.groups
        if len(shown) > _LISTED:
            shown = sorted(shown, key=lambda group: group.share - group.due)[:_LISTED]
            yield f"  of {len(self.groups)} groups the {_LISTED} that lack most"
        yield f"  {'':<24}{'due':>7}{'share':>8} (95 %)"
        yield from (group.line() for group in shown)
        if self.under:
            yield f"  under-served: {', '.join(self.under)}"


def compare(
    grouping: Grouping,
    train: Tensor,
    held: Tensor,
    samples: Tensor,
    asked: Tensor | None = None,
    seed: int = 0,
) -> Groups:
    """The groups of `samples`, judged by their features, (n, D), beside those of training and held-out ones.

    asked: of each sample the group that it was asked to be of, (n,) int64; then these shares are due. Raises
    SettingsError for too few pictures.
    """
    options, of_train, of_held, of_asked = _present(grouping, asked)
    count, n, known = len(options), len(samples), (of_train >= 0).nonzero()[:, 0]
    _enough(grouping.name, count, n, len(known))
    order = known[permutation(len(known), seed, "judge")]
    apart = int(UNSEEN * len(order))
    unseen, learned = order[:apart], order[apart:][:MOST]
    judge = train_probe(train[learned], of_train[learned], count)
    true, said = _tried(judge, ((train[unseen], of_train[unseen]), (held, of_held)))
    counts = torch.bincount(judged := judge(samples), minlength=count)
    wanted = of_train[known] if of_asked is None else of_asked[of_asked >= 0]
    due = torch.bincount(wanted, minlength=count).double() / len(wanted)
    errors = confusion(true, said, count)
    shares = corrected(counts, errors)
    found, null = _drawn(counts, due, errors, true, said, (seed, grouping.name))
    ends = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    low, high = torch.minimum(ends[0], shares), torch.maximum(ends[1], shares)
    distance = float((shares - due).abs().sum() / 2)
    apart_by, by_chance = ((one - due).abs().sum(1) / 2 for one in (found, null))
    reach = apart_by.quantile(torch.tensor([0.975, 0.025], dtype=torch.float64))
    return Groups(
        name=grouping.name,
        due="the training data" if of_asked is None else "what was asked for",
        samples=n,
        groups=tuple(
            Group(option, float(due[i]), float(shares[i]), float(low[i]), float(high[i]), right)
            for i, (option, right) in enumerate(zip(options, _rights(judged, of_asked, count), strict=True))
        ),
        distance=distance,
        low=max(0.0, 2 * distance - float(reach[0])),
        high=min(1.0, max(distance, 2 * distance - float(reach[1]))),
        usual=float(by_chance.quantile(0.95)),
        chance=(1 + int((by_chance >= distance).sum())) / (1 + DRAWS),
        accuracy=Share(int((true == said).sum()), len(true)),
    )


def _present(
    grouping: Grouping, asked: Tensor | None
) -> tuple[tuple[str, ...], Tensor, Tensor, Tensor | None]:
    """The options that training pictures have, and everything in their numbers."""
    held = torch.bincount(grouping.train[grouping.train >= 0], minlength=len(grouping.options)) > 0
    number = torch.where(held, held.long().cumsum(0) - 1, -1)
    number = torch.cat([number, torch.tensor([-1])])  # what is not known, -1, stays so
    options = tuple(o for o, there in zip(grouping.options, held.tolist(), strict=True) if there)
    return options, number[grouping.train], number[grouping.held], None if asked is None else number[asked]


def _enough(name: str, count: int, samples: int, known: int) -> None:
    if count < 2:
        raise SettingsError(f"{name}: all training pictures are alike in it, so there is nothing to compare")
    for n, what in ((samples, "samples"), (known, "training pictures of which it is known")):
        if n < EACH * count:
            raise SettingsError(
                f"{name}: {n:,} {what} for {count:,} groups: give {EACH * count:,} or more, {EACH} for each"
            )


def _tried(judge: LinearProbe, parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Of pictures that the judge has not seen what they are, and what it says."""
    features = [part[known >= 0] for part, known in parts]
    return torch.cat([known[known >= 0] for _, known in parts]), torch.cat([judge(one) for one in features])


def _drawn(
    counts: Tensor, due: Tensor, errors: Tensor, true: Tensor, said: Tensor, key: tuple[object, ...]
) -> tuple[Tensor, Tensor]:
    """Shares as they could as well have come out, and as they would have without bias, (DRAWS, K) each."""
    count, n = len(counts), int(counts.sum())
    told = due @ errors
    size = max(1, _NUMBERS // max(count**2, len(true), 2 * n + count))
    found: list[Tensor] = []
    null: list[Tensor] = []
    for start in range(0, DRAWS, size):
        many = min(size, DRAWS - start)
        rows = again(len(true), many, *key, start)
        wrong = confusion(true[rows], said[rows], count)
        found.append(corrected(plausible(counts, many, *key, start), wrong))
        null.append(corrected(drawn(told, n, many, *key, start), wrong))
    return torch.cat(found), torch.cat(null)


def _rights(judged: Tensor, asked: Tensor | None, count: int) -> list[Share | None]:
    """Of each group the samples that were asked to be of it and are judged so; None where none was asked."""
    if asked is None:
        return [None] * count
    each = [judged[asked == i] == i for i in range(count)]
    return [Share(int(one.sum()), len(one)) if len(one) else None for one in each]
