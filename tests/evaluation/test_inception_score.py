"""The Inception score: what it is of known classifiers, its derivative by hand, and its interval."""

from __future__ import annotations

import math

import pytest
import torch
from gaussians import chance, covered
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation.figure import Z95
from sfumato.evaluation.inception_score import inception_score


def logits(n: int, seed: int, classes: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(n, classes, generator=generator)


def test_of_known_classifiers() -> None:
    """Sure of K classes in turn: K; sure of one class, or sure of nothing: 1."""
    sure = 200 * torch.eye(7).repeat(4, 1)
    assert inception_score(sure).value == pytest.approx(7, rel=1e-9)
    assert inception_score(sure[:1].expand(9, -1)).value == pytest.approx(1, rel=1e-9)
    assert inception_score(torch.zeros(9, 7)) == pytest.approx((1, 1, 1), rel=1e-9)


def test_it_is_the_mean_over_its_splits_and_knows_no_order() -> None:
    x = logits(60, 0)
    p = x.double().softmax(1)
    score = float((p * (p / p.mean(0)).log()).sum(1).mean().exp())
    assert inception_score(x).value == pytest.approx(score, rel=1e-12)
    assert tuple(inception_score(x.flip(0))) == pytest.approx(tuple(inception_score(x)), rel=1e-12)
    apart = [inception_score(torch.cat([x, x]), splits=2, seed=seed).value for seed in range(40)]
    assert sum(apart) / 40 < inception_score(torch.cat([x, x])).value  # fewer pictures score less


def test_its_error_is_that_of_the_derivatives_by_hand() -> None:
    x = logits(12, 1)
    p = x.double().softmax(1)

    def score(weights: Tensor) -> Tensor:
        share = weights / weights.sum()
        mean = (share[:, None] * p).sum(0)
        return (share * (p * (p / mean).log()).sum(1)).sum().exp()

    slopes = torch.autograd.functional.jacobian(score, torch.ones(12, dtype=torch.float64))
    assert isinstance(slopes, Tensor)
    found = inception_score(x)
    error = math.sqrt(float(slopes.square().sum()) * 12 / 11)
    assert (found.high - found.value) / Z95 == pytest.approx(error, rel=1e-9)


@pytest.mark.parametrize("splits", [1, 2])
def test_its_interval_covers_the_mean_at_n(splits: int) -> None:
    found = torch.tensor([inception_score(logits(120, i), splits) for i in range(300)], dtype=torch.float64)
    assert covered(found, float(found[:, 0].mean())) == pytest.approx(0.95, abs=chance(300))


def test_bad_input_is_told() -> None:
    with pytest.raises(SettingsError, match="9 pictures in 5 splits"):
        inception_score(logits(9, 0), splits=5)
