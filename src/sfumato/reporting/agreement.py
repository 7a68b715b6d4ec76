"""Whether people prefer one of two, and whether they agree with one another."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb


def even_chance(count: int, of: int) -> float:
    """How probable it is that fair coins give a share as far from one half as this, or farther: the exact
    two-sided binomial (sign) test. 1 for nothing."""
    fewer = min(count, of - count)
    return min(1.0, 2 * sum(comb(of, i) for i in range(fewer + 1)) / 2**of)


def alpha(answers: Sequence[Sequence[str]]) -> float | None:
    """Krippendorff's alpha of nominal answers (2004): one row of answers a question, of any number of people.

    1 - observed disagreement / that of chance: 1 where all agree, 0 where they agree as strangers would.
    None where no question has two answers, or where all answers ever given are the same.
    """
    rows = [row for row in answers if len(row) > 1]
    whole = sum(len(row) for row in rows)
    totals: dict[str, int] = {}
    observed = 0.0
    for row in rows:
        for one in set(row):
            totals[one] = totals.get(one, 0) + row.count(one)
        observed += sum(row.count(one) * (len(row) - row.count(one)) for one in set(row)) / (len(row) - 1)
    expected = sum(n * (whole - n) for n in totals.values())
    return 1 - observed * (whole - 1) / expected if expected else None
