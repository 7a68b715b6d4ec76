"""What people said on a blind page, and which side was which: the share of preference with its interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sfumato.errors import SettingsError
from sfumato.evaluation.shares import Share
from sfumato.files import read_json
from sfumato.reporting.agreement import alpha, even_chance

ANSWERS = ("left", "right", "tie")
LEAST_RIGHT = 0.8
"""Who gets fewer of the checks right was not looking."""


@dataclass(frozen=True)
class Key:
    """Which side was which. names: of A and B. sides: pair -> the run ("a" or "b") on its left. checks: pair
    -> the side of the whole picture beside a broken one."""

    page: str
    names: tuple[str, str]
    sides: Mapping[str, str]
    checks: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """What `blind.key.json` holds beside the account of the pictures."""
        return {
            "format": 1,
            "page": self.page,
            "names": list(self.names),
            "left": dict(self.sides),
            "checks": dict(self.checks),
        }


@dataclass(frozen=True)
class Ballot:
    """What one person answered: pair -> left, right or tie."""

    voter: str
    page: str
    answers: Mapping[str, str]


@dataclass(frozen=True)
class Voter:
    """One person: how much was answered, how many of the checks were right, whether the votes count."""

    name: str
    answered: int
    right: int
    checks: int

    @property
    def counts(self) -> bool:
        return self.right >= LEAST_RIGHT * self.checks


@dataclass(frozen=True)
class Preference:
    """Pairs won by A, by B, and neither; votes likewise. agreement: Krippendorff's alpha of several people.

    A pair is won by the majority of those who saw a difference, so that ten people who judge the same pair
    are ten opinions of one pair and not ten pairs.
    """

    names: tuple[str, str]
    pairs: tuple[int, int, int]
    votes: tuple[int, int, int]
    voters: tuple[Voter, ...]
    agreement: float | None

    @property
    def share(self) -> float:
        """Of the pairs that were decided, the share that A won; 1/2 where none was."""
        a, b, _ = self.pairs
        return a / (a + b) if a + b else 0.5

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of `share`; (0, 1) where nothing was decided."""
        a, b, _ = self.pairs
        return Share(a, a + b).interval if a + b else (0.0, 1.0)

    @property
    def chance(self) -> float:
        """The exact sign test: how probable so clear a result is where there is no difference."""
        a, b, _ = self.pairs
        return even_chance(a, a + b)

    def to_json(self) -> dict[str, Any]:
        low, high = self.interval
        return {
            "names": list(self.names),
            "pairs": dict(zip(("a", "b", "tie"), self.pairs, strict=True)),
            "votes": dict(zip(("a", "b", "tie"), self.votes, strict=True)),
            "share_of_a": self.share,
            "low": low,
            "high": high,
            "interval": "Wilson, 95 %, of the decided pairs",
            "p": self.chance,
            "agreement": self.agreement,
            "voters": [
                {"name": v.name, "answered": v.answered, "right": v.right, "checks": v.checks}
                | {"counts": v.counts}
                for v in self.voters
            ],
        }

    def lines(self) -> list[str]:
        """The same in sentences."""
        (a, b, ties), (low, high) = self.pairs, self.interval
        said = [
            f"A is {self.names[0]}, B is {self.names[1]}",
            f"A won {a} pairs, B {b}; {ties} {'is a tie' if ties == 1 else 'are ties'}",
            f"A is preferred in {self.share:.1%} of the decided pairs (95 %: {low:.1%} to {high:.1%})",
            f"so clear a result by chance alone: p = {self.chance:.3g}",
        ]
        said.append(self._verdict())
        if self.agreement is not None:
            said.append(
                f"the voters agree with alpha = {self.agreement:.2f} (1: always, 0: as strangers would)"
            )
        for one in self.voters:
            checks = "" if not one.checks else f", {one.right} of {one.checks} checks right"
            out = "" if one.counts else ": left out, for these were to be seen at a glance"
            said.append(f"{one.name}: {one.answered} pairs{checks}{out}")
        return said

    def _verdict(self) -> str:
        low, high = self.interval
        if low > 0.5 or high < 0.5:
            return f"people prefer {self.names[0] if low > 0.5 else self.names[1]}"
        return (
            "no preference can be told: more pairs or more voters make the interval narrower, as the root of "
            "their number"
        )


def read_key(path: Path) -> Key:
    """The key of a blind page. Raises SettingsError for a file that is none."""
    said = read_json(path, limit=64 << 20)
    try:
        found = cast(dict[str, Any], said)
        names = tuple(str(name) for name in found["names"])
        sides = {str(k): str(v) for k, v in found["left"].items()}
        checks = {str(k): str(v) for k, v in found["checks"].items()}
        fits = found["format"] == 1 and len(names) == 2 and set(sides.values()) <= {"a", "b"}
        if not fits or not set(checks.values()) <= {"left", "right"}:
            raise ValueError
        return Key(str(found["page"]), (names[0], names[1]), sides, checks)
    except (TypeError, KeyError, AttributeError, ValueError):
        raise SettingsError(f"{path} is no key of a blind page: give the .key.json beside it") from None


def read_ballot(path: Path) -> Ballot:
    """The votes that a blind page saved. Raises SettingsError for a file that holds none."""
    said = read_json(path, limit=64 << 20)
    try:
        found = cast(dict[str, Any], said)
        answers = {str(one["pair"]): str(one["answer"]) for one in found["votes"]}
        if not set(answers.values()) <= {*ANSWERS}:
            raise ValueError
        return Ballot(str(found.get("voter") or path.stem)[:80], str(found["page"]), answers)
    except (TypeError, KeyError, AttributeError, ValueError):
        raise SettingsError(f"{path} holds no votes: give a file that the blind page saved") from None


def count(key: Key, ballots: Sequence[Ballot], where: Sequence[Path] = ()) -> Preference:
    """The preference of these people. A person who saved twice counts once, with the later file. Raises
    SettingsError for votes on another page, and where nobody's votes count."""
    for i, ballot in enumerate(ballots):
        if ballot.page != key.page or not set(ballot.answers) <= {*key.sides, *key.checks}:
            name = where[i] if i < len(where) else ballot.voter
            raise SettingsError(f"{name}: votes on another page than the key's: give each page its own key")
    people = {ballot.voter: ballot for ballot in ballots}
    voters = tuple(_voter(key, ballot) for ballot in people.values())
    kept = [people[voter.name] for voter in voters if voter.counts]
    votes, pairs, rows = Counter[str](), Counter[str](), list[list[str]]()
    for pair, left in key.sides.items():
        right = "b" if left == "a" else "a"
        whose = {"left": left, "right": right, "tie": "tie"}
        row = [whose[b.answers[pair]] for b in kept if pair in b.answers]
        votes.update(row)
        if row:
            rows.append(row)
            a, b = row.count("a"), row.count("b")
            pairs["a" if a > b else "b" if b > a else "tie"] += 1
    if not rows:
        raise SettingsError("no votes count: nobody answered, or everybody failed the checks")
    return Preference(
        key.names,
        (pairs["a"], pairs["b"], pairs["tie"]),
        (votes["a"], votes["b"], votes["tie"]),
        voters,
        alpha(rows) if len(kept) > 1 else None,
    )


def _voter(key: Key, ballot: Ballot) -> Voter:
    shown = [pair for pair in key.checks if pair in ballot.answers]
    right = sum(ballot.answers[pair] == key.checks[pair] for pair in shown)
    answered = sum(pair in ballot.answers for pair in key.sides)
    return Voter(ballot.voter, answered, right, len(shown))
