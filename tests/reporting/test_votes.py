"""Votes against closed forms, and what is refused."""

from __future__ import annotations

from math import comb
from pathlib import Path

import pytest

from sfumato import cli
from sfumato.errors import SettingsError
from sfumato.files import write_json
from sfumato.reporting.agreement import alpha, even_chance
from sfumato.reporting.votes import Ballot, Key, count, read_ballot, read_key

PAIRS = [f"p{i}" for i in range(40)]
KEY = Key(
    "page", ("runs/a", "runs/b"), {p: "a" if i % 2 else "b" for i, p in enumerate(PAIRS)}, {"c": "right"}
)


def ballot(wins_of_a: int, ties: int, voter: str = "ann", check: str = "right", of: int = 40) -> Ballot:
    """A voter who prefers A so often, then sees no difference, then prefers B."""
    said: dict[str, str] = {}
    for i, pair in enumerate(PAIRS[:of]):
        wanted = "a" if i < wins_of_a else "tie" if i < wins_of_a + ties else "b"
        side = "left" if KEY.sides[pair] == wanted else "right"
        said[pair] = "tie" if wanted == "tie" else side
    return Ballot(voter, "page", {**said, "c": check})


def test_the_sides_are_turned_back() -> None:
    found = count(KEY, [ballot(24, 6)])
    assert found.pairs == found.votes == (24, 10, 6)
    assert found.share == 24 / 34


def test_the_interval_solves_wilsons_equation_and_the_test_is_the_binomials() -> None:
    found = count(KEY, [ballot(24, 6)])
    n, p, z = 34, 24 / 34, 1.959963984540054
    for end in found.interval:
        assert (p - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / n, rel=1e-9)
    assert found.chance == pytest.approx(2 * sum(comb(34, i) for i in range(11)) / 2**34, rel=1e-12)


def test_even_chance_is_one_in_the_middle_and_exact_at_the_ends() -> None:
    assert even_chance(0, 0) == even_chance(5, 10) == 1.0
    assert even_chance(0, 10) == even_chance(10, 10) == 2 / 1024


def test_alpha_of_krippendorffs_own_example() -> None:
    """Krippendorff 2011, "Computing Krippendorff's alpha-reliability", C: nominal data, four observers, with
    missing values: alpha = 0.743."""
    a = ["1", "2", "3", "3", "2", "1", "4", "1", "2", ".", ".", "."]
    b = ["1", "2", "3", "3", "2", "2", "4", "1", "2", "5", ".", "3"]
    c = [".", "3", "3", "3", "2", "3", "4", "2", "2", "5", "1", "."]
    d = ["1", "2", "3", "3", "2", "4", "4", "1", "2", "5", "1", "."]
    rows = [[x for x in unit if x != "."] for unit in zip(a, b, c, d, strict=True)]
    assert alpha(rows) == pytest.approx(0.743, abs=5e-4)
    assert alpha([["a", "a"], ["b", "b"]]) == 1.0
    assert alpha([["a"], ["b"]]) is None
    assert alpha([["a", "a"], ["a", "a"]]) is None


def test_many_voters_of_one_pair_are_one_pair() -> None:
    three = [ballot(24, 6, name) for name in ("ann", "bob", "cem")]
    found = count(KEY, three)
    assert found.pairs == (24, 10, 6)
    assert found.votes == (72, 30, 18)
    assert found.agreement == 1.0
    assert found.interval == count(KEY, three[:1]).interval


def test_who_fails_the_checks_is_left_out_and_a_second_file_replaces_the_first() -> None:
    found = count(KEY, [ballot(24, 6), ballot(0, 0, "bob", check="left"), ballot(30, 0)])
    assert found.pairs == (30, 10, 0)
    assert [(v.name, v.counts) for v in found.voters] == [("ann", True), ("bob", False)]
    assert any("left out" in line for line in found.lines())
    with pytest.raises(SettingsError, match="no votes count"):
        count(KEY, [ballot(24, 6, check="left")])
    with pytest.raises(SettingsError, match="no votes count"):
        count(KEY, [ballot(0, 0, of=0)])


def test_what_is_no_key_and_no_votes_says_so(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    for value in ([], {"format": 1}, {"format": 1, "names": ["a"], "left": {}, "checks": {}, "page": "x"}):
        write_json(wrong, value)
        with pytest.raises(SettingsError, match="no key of a blind page"):
            read_key(wrong)
    for value in ({}, {"page": "x", "votes": [{"pair": "p", "answer": "both"}]}):
        write_json(wrong, value)
        with pytest.raises(SettingsError, match="holds no votes"):
            read_ballot(wrong)
    with pytest.raises(SettingsError, match="on another page"):
        count(KEY, [Ballot("ann", "other", {})])
    with pytest.raises(SettingsError, match="on another page"):
        count(KEY, [Ballot("ann", "page", {"unknown": "left"})])


def test_the_command_counts_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "key.json", KEY.to_json())
    votes = [{"pair": pair, "answer": said, "seconds": 1.0} for pair, said in ballot(38, 0).answers.items()]
    write_json(tmp_path / "votes.json", {"format": 1, "page": "page", "voter": "", "votes": votes})
    assert cli.run(["votes", str(tmp_path / "key.json"), str(tmp_path / "votes.json")]) == 0
    out = capsys.readouterr().out
    assert "A won 38 pairs, B 2" in out
    assert "people prefer runs/a" in out
