"""Linear operators against their definitions, their adjoints, and the singular values that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from sfumato.errors import SettingsError
from sfumato.noise import Noise
from sfumato.operators import (
    LUMA,
    Factors,
    Operator,
    blur,
    compose,
    convolution,
    dense,
    downsample,
    grey,
    mask,
    sensing,
)

SHAPE = (3, 8, 12)
KERNEL = torch.tensor([[0.0, 0.2, 0.5], [0.1, 0.1, 0.0], [0.3, 0.0, 0.0], [0.0, 0.1, 0.0], [0.2, 0.0, 0.4]])
KNOWN = Noise((3,)).uniform(SHAPE[1:], "known")[0] < 0.6

OPERATORS: dict[str, Operator] = {
    "mask": mask(KNOWN, 3),
    "mask of channels": mask(Noise((4,)).uniform(SHAPE, "known")[0] < 0.4),
    "mean": downsample(SHAPE, (2, 3)),
    "bicubic": downsample(SHAPE, (3, 5), "bicubic"),
    "blur": blur(SHAPE, 0.8),
    "convolution": convolution(SHAPE, KERNEL),
    "grey": grey(SHAPE),
    "sensing": sensing(SHAPE, 0.3, seed=5),
    "all sensed": sensing(SHAPE, 1.0),
    "blur, then smaller": compose(downsample(SHAPE, (4, 6)), blur(SHAPE, 0.8)),
    "smaller, then grey": compose(grey((3, 4, 6)), downsample(SHAPE, (4, 6))),
    "convolution, then mask": compose(mask(KNOWN, 3), convolution(SHAPE, KERNEL)),
    "written out": dense(lambda x: x[:, 0] - 2 * x[:, 1].flip(-1), SHAPE),
}
EVERY = pytest.mark.parametrize("name", OPERATORS)


def some(rows: int = 2) -> Tensor:
    return Noise(tuple(range(rows))).normal(SHAPE, "picture").double()


def inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


@EVERY
def test_the_adjoint_is_the_adjoint(name: str) -> None:
    operator, x = OPERATORS[name], some()
    y = operator(x)
    other = Noise((8, 9)).normal(y.shape[1:], "measurement").double()
    torch.testing.assert_close(inner(y, other), inner(x, operator.adjoint(other)), rtol=1e-12, atol=1e-12)


@EVERY
def test_the_factors_are_orthogonal(name: str) -> None:
    operator, x = OPERATORS[name], some()
    factors = operator.factors
    assert isinstance(factors, Factors)
    s = factors.turn(x)
    torch.testing.assert_close(inner(s, s), inner(x, x), rtol=1e-12, atol=0)
    torch.testing.assert_close(factors.back(s), x, rtol=0, atol=1e-12)
    there = torch.where(operator.measured, s, 0.0)
    y = factors.write(there)
    torch.testing.assert_close(y.flatten(1).square().sum(1), inner(there, there), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.where(operator.measured, factors.read(y), 0.0), there, rtol=0, atol=1e-12
    )


@EVERY
def test_the_pseudo_inverse_has_penroses_identities(name: str) -> None:
    """A A+ A = A and A+ A A+ = A+, and both products are symmetric: on what counts as measured."""
    operator, x = OPERATORS[name], some()
    seen = lambda x: operator.factors.write(operator.values * operator.factors.turn(x))
    y = seen(x)
    torch.testing.assert_close(seen(operator.inverse(y)), y, rtol=0, atol=1e-12)
    again = operator.inverse(y)
    torch.testing.assert_close(operator.inverse(seen(again)), again, rtol=0, atol=1e-11)
    other = some(4)[2:]
    projected = lambda x: operator.inverse(seen(x))
    torch.testing.assert_close(inner(projected(x), other), inner(x, projected(other)), rtol=1e-9, atol=1e-11)
    measured = Noise((8, 9)).normal(y.shape[1:], "measurement").double()
    onto = lambda y: seen(operator.inverse(y))
    torch.testing.assert_close(inner(onto(measured), y), inner(measured, onto(y)), rtol=1e-9, atol=1e-11)


@EVERY
def test_the_singular_values_are_those_of_the_matrix(name: str) -> None:
    operator = OPERATORS[name]
    eye = torch.eye(math.prod(SHAPE), dtype=torch.float64)
    matrix = operator(eye.reshape(-1, *SHAPE)).flatten(1).T
    found = operator.factors.values.flatten().sort(descending=True).values
    exact = torch.zeros_like(found)
    true = torch.linalg.svdvals(matrix)
    exact[: len(true)] = true
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-12)


def test_known_singular_values() -> None:
    whole = lambda operator: operator.values[operator.measured].unique()
    third = downsample((1, 9, 9), (3, 3))
    torch.testing.assert_close(third.values[third.measured], torch.full((9,), 1 / 3, dtype=torch.float64))
    weights = math.sqrt(sum(w * w for w in LUMA))
    torch.testing.assert_close(whole(grey(SHAPE)).mean(), torch.tensor(weights, dtype=torch.float64))
    assert whole(mask(KNOWN, 3)).tolist() == [1.0] == whole(sensing(SHAPE, 0.2)).tolist()
    spectrum = torch.fft.fft2(KERNEL.double(), s=SHAPE[1:]).abs()
    torch.testing.assert_close(convolution(SHAPE, KERNEL).factors.values[0], spectrum)


def test_what_they_measure() -> None:
    """Each against its definition, by other code."""
    x = some().float()
    torch.testing.assert_close(OPERATORS["mean"](x), avg_pool2d(x, 4), rtol=0, atol=1e-6)
    known = KNOWN.expand(3, -1, -1)
    assert torch.equal(OPERATORS["mask"](x)[:, known], x[:, known])
    assert not OPERATORS["mask"](x)[:, ~known].any()
    luma = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    torch.testing.assert_close(grey(SHAPE)(x)[:, 0], luma, rtol=0, atol=1e-6)
    moved = torch.zeros(3, 3)
    moved[1, 2] = 1.0  # one to the right of the middle
    torch.testing.assert_close(convolution(SHAPE, moved)(x), x.roll(1, dims=3), rtol=0, atol=1e-6)
    flat = torch.ones(1, *SHAPE)
    torch.testing.assert_close(blur(SHAPE, 2.0)(flat), flat)  # mirrored edges darken nothing
    torch.testing.assert_close(OPERATORS["bicubic"](flat), torch.ones(1, 3, 3, 5))
    small = OPERATORS["bicubic"](x)
    resized = torch.nn.functional.interpolate(x, (3, 5), mode="bicubic", antialias=True)
    torch.testing.assert_close(small, resized, rtol=0, atol=1e-5)


def test_sensing_follows_from_its_seed_and_spreads_every_pixel() -> None:
    first, again, other = (sensing(SHAPE, 0.25, seed)(some()) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (2, round(0.25 * math.prod(SHAPE)))
    dot = torch.zeros(1, *SHAPE, dtype=torch.float64)
    dot[0, 1, 3, 4] = 1.0
    seen = sensing(SHAPE, 1.0)(dot)[0]
    assert float(seen.abs().max()) < 0.25  # a pixel is a little of many numbers, not one of them


def test_a_measurement_is_fulfilled_by_the_nearest_picture() -> None:
    x, y = some(), OPERATORS["mean"](some(4)[2:])
    nearest = OPERATORS["mean"].fulfilled(x, y)
    torch.testing.assert_close(OPERATORS["mean"](nearest), y, rtol=0, atol=1e-12)
    blocks = lambda v: avg_pool2d(v, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(nearest - x, blocks(nearest - x))  # no more changed than must be


def test_operators_can_be_differentiated_through() -> None:
    for name, operator in OPERATORS.items():
        x = some().requires_grad_()
        y = operator(x)
        (slope,) = torch.autograd.grad((y * y.detach()).sum(), x)
        torch.testing.assert_close(slope, operator.adjoint(y.detach()), rtol=0, atol=1e-12, msg=name)


def test_what_cannot_be_is_refused() -> None:
    for wrong in (
        lambda: downsample(SHAPE, (3, 5)),
        lambda: downsample(SHAPE, (16, 24), "bicubic"),
        lambda: blur(SHAPE, 0),
        lambda: blur(SHAPE, math.nan),
        lambda: convolution(SHAPE, torch.ones(9, 9)),
        lambda: grey((1, 8, 8)),
        lambda: sensing(SHAPE, 0.0),
        lambda: mask(torch.zeros(8, 8, dtype=torch.bool)),
        lambda: compose(mask(torch.ones(64, 64, dtype=torch.bool), 3), convolution((3, 64, 64), KERNEL)),
        lambda: grey(SHAPE)(torch.zeros(1, 3, 8, 8)),
    ):
        with pytest.raises(SettingsError):
            wrong()
