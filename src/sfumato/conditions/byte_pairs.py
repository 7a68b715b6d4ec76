"""Which pairs of letters to join: byte-pair encoding learned from words (Sennrich et al. 2016, algorithm 1).

Learned here because the order in which the `tokenizers` library meets equally frequent pairs changes from one
process to the next, and the same captions should give the same model.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

Pair = tuple[str, str]
"""Two neighbouring pieces of a word."""
SUFFIX = "</w>"
"""Marks the piece that ends a word."""


def learn_pairs(words: Mapping[str, int], most: int) -> list[Pair]:
    """Joins the pair of neighbours that is seen most often, again and again; of equals the first by its
    letters. Ends after `most` pairs, or when none is seen twice.

    words: how often each is there. Linear in what changes: a heap finds the next pair, and only the words
    that hold it are looked at again.
    """
    pieces = {word: [*word[:-1], word[-1] + SUFFIX] for word in words}
    counts: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[str]] = defaultdict(set)
    for word, parts in pieces.items():
        for pair in pairwise(parts):
            counts[pair] += words[word]
            places[pair].add(word)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    pairs: list[Pair] = []
    while queue and len(pairs) < most:
        count, pair = heapq.heappop(queue)
        if -count != counts[pair]:  # out of date: it has a newer entry, or is gone
            continue
        if -count < 2:
            break
        pairs.append(pair)
        changed: set[Pair] = set()
        for word in places.pop(pair):
            old, new = pieces[word], joined(pieces[word], pair)
            pieces[word] = new
            for gone in pairwise(old):
                counts[gone] -= words[word]
            for come in pairwise(new):
                counts[come] += words[word]
                places[come].add(word)
            changed.update(pairwise(old), pairwise(new))
        for one in changed:
            if counts[one] > 0:
                heapq.heappush(queue, (-counts[one], one))
    return pairs


def joined(parts: Sequence[str], pair: Pair) -> list[str]:
    """The pieces of a word with every `pair`, from the left, as one piece."""
    out: list[str] = []
    at = 0
    while at < len(parts):
        both = tuple(parts[at : at + 2]) == pair
        out.append(pair[0] + pair[1] if both else parts[at])
        at += 2 if both else 1
    return out
