"""The errors of differences cover the truth at their rate, and pairing makes them small."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sfumato.evaluation.features.extractor import Features
from sfumato.evaluation.kernel import kid
from sfumato.noise import Noise
from sfumato.tuning.yardsticks import Distance, Likeness

REPEATS = 400


def normals(n: int, use: str, repeat: int, size: int = 1) -> Tensor:
    return Noise((repeat,)).normal((n, size), use)[0].double()


def test_the_distance_is_the_root_of_the_mean_square() -> None:
    fine = torch.zeros(4, 1, 2, 2)
    far = Distance(fine)
    seen = far.look(torch.full((2, 1, 2, 2), 0.3), range(1, 3))
    assert far.figure(seen).value == pytest.approx(0.3)
    assert far.difference(seen, far.look(torch.full((2, 1, 2, 2), 0.1), range(1, 3))) == pytest.approx(
        (0.2, 0.2, 0.2)
    )
    assert math.isinf(far.figure(far.look(None, range(4))).value)


def test_the_paired_interval_of_distances_covers_at_its_rate() -> None:
    """Log-normal squares that share most of their variance: sqrt(E a) - sqrt(E b) is known."""
    far, hits, widths, n = Distance(torch.zeros(1)), 0, [], 100
    spread = lambda shared, own: torch.exp(0.5 * (0.9 * shared + math.sqrt(0.19) * own))[:, 0]
    mean = math.exp(0.125)  # of exp(z / 2)
    truth = math.sqrt(1.2 * mean) - math.sqrt(mean)
    for repeat in range(REPEATS):
        shared, a, b = (normals(n, use, repeat) for use in ("shared", "a", "b"))
        first, second = 1.2 * spread(shared, a), spread(shared, b)
        found = far.difference(first, second)
        hits += found.low <= truth <= found.high
        unpaired = math.hypot(*(f.high - f.value for f in (far.figure(first), far.figure(second))))
        widths.append((found.high - found.value) / unpaired)
    assert 0.92 <= hits / REPEATS <= 0.98
    assert sum(widths) / REPEATS < 0.55  # sqrt(1 - correlation), the correlation being about 0.8


@dataclass(frozen=True)
class Pixels:
    """Eyes that see the numbers themselves."""

    name: str = "pixels"
    sha256: str = "0" * 64
    resize: str = "none"
    width: int = 1

    def __call__(self, images: Tensor) -> Features:
        return Features(images.flatten(1).float())


def likeness(reference: Tensor) -> Likeness:
    return Likeness(Pixels(), reference, lambda x: x)


def mmd(mean: float, size: int) -> float:
    """Between N(m, 1) and N(0, 1) in D dimensions, |m| = mean, with (x . y / D + 1)^3: the squared
    differences of the moments E x, E x x^T and E x x x, with weights 3 / D, 3 / D^2 and 1 / D^3."""
    square = mean**2
    third = square**3 + 6 * square**2 + (3 * size + 6) * square
    return 3 * square / size + 3 * square**2 / size**2 + third / size**3


def test_the_likeness_is_kid() -> None:
    real, drawn = normals(30, "real", 0, 4), normals(40, "drawn", 0, 4) + 0.3
    found, known = likeness(real).figure(drawn), kid(real, drawn)
    assert found == pytest.approx(known)


def test_the_paired_interval_of_likenesses_covers_at_its_rate() -> None:
    n, size, hits, widths = 150, 8, 0, []
    truth = mmd(0.6 * size**0.5, size) - mmd(0.4 * size**0.5, size)
    for repeat in range(REPEATS):
        look = likeness(normals(n, "real", repeat, size))
        z, other = normals(n, "drawn", repeat, size), normals(n, "other", repeat, size)
        a, b = z + 0.6, 0.9 * z + math.sqrt(0.19) * other + 0.4
        found = look.difference(a, b)
        hits += found.low <= truth <= found.high
        widths.append(
            (found.high - found.value)
            / math.hypot(*(f.high - f.value for f in (look.figure(a), look.figure(b))))
        )
    assert 0.91 <= hits / REPEATS <= 0.985
    assert sum(widths) / REPEATS < 0.8
    assert math.isinf(look.difference(torch.full((n, size), math.nan), z).value)
