"""Blind comparison: one offline page with pairs of pictures, and the key that tells which side was which.

The page holds pictures and numbers of pairs and nothing that tells one run from the other; the key is a file
of its own, which the voters are not given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.noise import key_of, permutation, uniform
from sfumato.reporting.inline import of_tensor
from sfumato.reporting.page import fill
from sfumato.reporting.votes import Key

PIECES = 4
"""A broken picture is cut into 4 x 4 pieces that change places."""
MOST = 2000


@dataclass(frozen=True, eq=False)
class Pair:
    """A picture of A and one of B, each (C, H, W) in [-1, 1], for the same wish where both know it. asked:
    that wish in words, which the voter reads. origin: what the key says of the two (seeds, classes)."""

    a: Tensor
    b: Tensor
    asked: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Blind:
    """A page, and its key with the account of each pair."""

    page: str
    key: Key
    origins: Mapping[str, Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """The content of the key's file."""
        return self.key.to_json() | {"pairs": {name: dict(said) for name, said in self.origins.items()}}


def blind(
    pairs: Sequence[Pair],
    names: tuple[str, str],
    *,
    seed: int = 0,
    checks: int = 0,
    question: str = "Which picture is better?",
) -> Blind:
    """The page of these pairs. The seed shuffles their order and their sides. checks: how many pairs of a
    picture and its own pieces in disorder are put between them, to tell who looks. Raises SettingsError."""
    if not 1 <= len(pairs) <= MOST or not 0 <= checks <= len(pairs):
        raise SettingsError(
            f"{len(pairs)} pairs and {checks} checks: from 1 to {MOST:,} pairs, and no more checks than pairs"
        )
    order = permutation(len(pairs), seed, "blind order").tolist()
    turned = (uniform(len(pairs), seed, "blind sides") < 0.5).tolist()
    shown: list[dict[str, str]] = []
    sides: dict[str, str] = {}
    origins: dict[str, Mapping[str, Any]] = {}
    for place in order:
        pair, name = pairs[place], _name(seed, "pair", place)
        left, right = (pair.b, pair.a) if turned[place] else (pair.a, pair.b)
        sides[name] = "b" if turned[place] else "a"
        origins[name] = pair.origin
        shown.append({"pair": name, "left": of_tensor(left), "right": of_tensor(right), "asked": pair.asked})
    found: dict[str, str] = {}
    for i in range(checks):
        name, whole = _name(seed, "check", i), pairs[order[i]].b if i % 2 else pairs[order[i]].a
        side = "left" if float(uniform(1, seed, "blind check", i)) < 0.5 else "right"
        both = (of_tensor(whole), of_tensor(_broken(whole, seed, i)))
        left, right = both if side == "left" else both[::-1]
        found[name] = side
        one = {"pair": name, "left": left, "right": right, "asked": pairs[order[i]].asked}
        shown.insert((i + 1) * (len(shown) + 1) // (checks + 1), one)
    pages = hashlib.sha256(repr((question, shown)).encode()).hexdigest()[:16]
    said = {"page": pages, "question": question, "pairs": shown}
    return Blind(fill("blind.html", question=question, said=said), Key(pages, names, sides, found), origins)


def _name(*key: object) -> str:
    """What a pair is called on the page: it tells nothing."""
    return hashlib.sha256(str(key_of("blind", *key)).encode()).hexdigest()[:12]


def _broken(image: Tensor, seed: int, i: int) -> Tensor:
    """The same pixels with their pieces in another order: nobody who looks takes it for a picture."""
    height, width = (side // PIECES for side in image.shape[1:])
    if not height or not width:
        raise SettingsError(f"pictures of {image.shape[2]} x {image.shape[1]} are too small for checks")
    order = permutation(PIECES * PIECES, seed, "blind pieces", i).tolist()
    out = image.clone()
    for to, of in enumerate(order):
        (y, x), (v, u) = divmod(to, PIECES), divmod(of, PIECES)
        out[:, y * height : (y + 1) * height, x * width : (x + 1) * width] = image[
            :, v * height : (v + 1) * height, u * width : (u + 1) * width
        ]
    return out
