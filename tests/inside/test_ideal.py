"""The ideal denoiser of a finite set against closed forms, quadrature and the mixture of points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.data.toy import Mixture
from sfumato.denoiser import Exact
from sfumato.errors import SettingsError
from sfumato.inside import ideal as module
from sfumato.inside.ideal import Ideal, clean_error
from sfumato.level import CLEAN, PURE_NOISE, Level
from sfumato.noise import Noise
from sfumato.plans import descend, trailing
from sfumato.sampling import sample
from sfumato.schedules import Cosine
from sfumato.solvers.multistep import Multistep

SIGNS = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)


def at(log_snr: float) -> Level:
    """The level of unit norm with this log-SNR."""
    ratio = torch.tensor(-log_snr / 2, dtype=torch.float64).exp()
    return Level(1 / torch.hypot(ratio, torch.ones(())), ratio / torch.hypot(ratio, torch.ones(())))


def normals(n: int, *shape: int, use: str = "x") -> torch.Tensor:
    return Noise(tuple(range(n))).normal(shape, use).double()


def test_two_points_are_a_hyperbolic_tangent() -> None:
    """E[x0 | x] = a tanh(alpha a x / sigma^2) for x0 = -a or a."""
    x = torch.linspace(-3, 3, 41, dtype=torch.float64)[:, None]
    for log_snr in (-6.0, -1.0, 0.0, 2.0, 8.0):
        level = at(log_snr)
        expected = 0.7 * torch.tanh(level.alpha * 0.7 * x / level.sigma**2)
        torch.testing.assert_close(Ideal.of(0.7 * SIGNS)(x, level), expected, rtol=1e-12, atol=1e-12)


def test_the_least_loss_of_two_points_is_the_integral() -> None:
    """With snr = alpha^2 / sigma^2, mmse = 1 - int phi(y) tanh(snr - sqrt(snr) y) dy (Guo, Shamai and Verdu
    2005, eq. 17). The error averaged over the noise by Gauss-Hermite quadrature must be the same number."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    eps, share = torch.tensor(nodes), torch.tensor(weights / weights.sum())
    y = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = torch.exp(-y * y / 2) / (2 * torch.pi) ** 0.5
    for snr in (0.05, 0.5, 1.0, 2.0):
        expected = 1 - float(torch.trapezoid(density * torch.tanh(snr - snr**0.5 * y), y))
        level = at(float(np.log(snr)))
        for x0 in SIGNS:
            error = clean_error(Ideal.of(SIGNS), x0.expand(120, 1), eps[:, None], level, None)
            assert float((share * error).sum()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("log_snr", [-12.0, -2.0, 0.0, 3.0, 12.0])
def test_it_is_the_mixture_of_points(log_snr: float) -> None:
    points = normals(3, 1, 2, 2, use="points")
    known = Mixture(torch.ones(3), points.flatten(1), torch.zeros(3, 4))
    level = at(log_snr)
    x = level.alpha * points.repeat(5, 1, 1, 1) + level.sigma * normals(15, 1, 2, 2)
    expected = known.posterior_mean(x, level.alpha, level.sigma)
    torch.testing.assert_close(Ideal.of(points)(x, level), expected, rtol=1e-9, atol=1e-9)


def test_each_row_has_its_level_and_the_ends_are_exact() -> None:
    points = normals(6, 1, 3, 3, use="points").float()
    x = normals(4, 1, 3, 3).float()
    levels = [PURE_NOISE, at(-1.0), at(60.0), CLEAN]
    stacked = Level(torch.stack([v.alpha for v in levels]), torch.stack([v.sigma for v in levels]))
    found = Ideal.of(points)(x, stacked)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[0], points.mean(0))
    nearest = points[(points - x[2]).square().flatten(1).sum(1).argmin()]
    torch.testing.assert_close(found[2], nearest)
    assert torch.equal(found[3], x[3])
    for row, level in enumerate(levels):
        assert torch.equal(found[row], Ideal.of(points)(x[row : row + 1], level)[0])


def test_classes_mirrors_and_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    points, kinds = normals(7, 1, 2, 3, use="points"), torch.tensor([0, 1, 0, 1, 2, 2, 1])
    x, level = normals(9, 1, 2, 3), at(0.5)
    whole = Ideal.of(points, kinds)
    asked = torch.tensor([0, 1, 2, -1, 0, 1, 2, -1, 1])
    found = whole(x, level, asked)
    for row, kind in enumerate(asked.tolist()):
        some = points if kind < 0 else points[kinds == kind]
        torch.testing.assert_close(found[row], Ideal.of(some)(x[row : row + 1], level)[0])
    torch.testing.assert_close(whole(x, level), Ideal.of(points)(x, level))
    both = Ideal.of(torch.cat([points, points.flip(-1)]))
    torch.testing.assert_close(Ideal.of(points, mirrored=True)(x, level), both(x, level))
    monkeypatch.setattr(module, "_NUMBERS", 13)  # two points at a time
    torch.testing.assert_close(whole(x, level, asked), found, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(whole(x, at(25.0), asked).isfinite(), torch.ones(9, 1, 2, 3, dtype=torch.bool))


def test_sampling_with_it_gives_the_points_back() -> None:
    """What it means to know a set by heart: nothing but its pictures comes out, each about equally often."""
    points = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [0.0, 1.0]])
    found = sample(
        Exact(Ideal.of(points)), (2,), descend(trailing(Cosine(), 100)), Multistep(order=1), range(300)
    )
    distance = torch.cdist(found, points)
    assert float(distance.amin(1).max()) < 0.01
    shares = torch.bincount(distance.argmin(1), minlength=3) / 300
    assert float((shares - 1 / 3).abs().max()) < 4 * (2 / 9 / 300) ** 0.5


def test_a_class_without_pictures_is_refused() -> None:
    with pytest.raises(SettingsError, match="a class of which it has no picture"):
        Ideal.of(SIGNS, torch.tensor([0, 0]))(SIGNS, at(0.0), torch.tensor([0, 1]))
    with pytest.raises(SettingsError, match="at least one picture"):
        Ideal.of(SIGNS[:0])
