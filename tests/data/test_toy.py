"""The toy distributions against numerical integration, importance sampling and their own samples."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.data.toy import Mixture
from sfumato.errors import DataError
from sfumato.noise import Noise

D = torch.float64
LINE = Mixture(
    torch.tensor([0.3, 0.3, 0.4]), torch.tensor([[-1.5], [0.2], [1.1]]), torch.tensor([[0.35], [0.2], [0.5]])
)
PLANE = Mixture(
    torch.tensor([1.0, 3.0]),
    torch.tensor([[-1.0, 0.5], [1.0, -0.25]]),
    torch.tensor([[0.3, 0.8], [0.5, 0.2]]),
)


@pytest.mark.parametrize(
    ("alpha", "sigma"), [(1.0, 0.3), (0.7, 0.7141428), (0.1, 2.0), (0.0, 1.0), (1.0, 5.0)]
)
def test_posterior_is_the_integral(alpha: float, sigma: float) -> None:
    """E and Var of x0 given x, and the density of x, by quadrature over x0."""
    x = torch.linspace(-3, 3, 9, dtype=D)[:, None]
    grid = torch.linspace(-8, 8, 200_001, dtype=D)
    normal = lambda z, s: torch.exp(-0.5 * (z / s) ** 2) / (s * math.sqrt(2 * math.pi))
    prior = sum(w * normal(grid - m, s) for w, m, s in zip(LINE.weights, LINE.means[:, 0], LINE.stds[:, 0]))
    joint = prior * normal(x - alpha * grid, sigma)
    mass = joint.sum(1)
    mean = (joint * grid).sum(1) / mass
    variance = (joint * (grid - mean[:, None]) ** 2).sum(1) / mass
    step = float(grid[1] - grid[0])
    assert torch.allclose(LINE.posterior_mean(x, alpha, sigma)[:, 0], mean, atol=1e-9, rtol=0)
    assert torch.allclose(LINE.posterior_variance(x, alpha, sigma)[:, 0], variance, atol=1e-9, rtol=0)
    assert torch.allclose(LINE.log_prob(x, alpha, sigma), (mass * step).log(), atol=1e-9, rtol=0)


def test_posterior_by_importance_sampling() -> None:
    """The same in the plane, by weighing 50,000 samples; the samples' moments against the closed forms."""
    x0 = PLANE.sample(Noise(tuple(range(50_000))))
    error = (PLANE.variance / len(x0)).sqrt()
    assert ((x0.mean(0) - PLANE.mean).abs() < 4 * error).all()
    assert torch.allclose(torch.cov(x0.T), PLANE.covariance, atol=0.03)
    assert torch.allclose(PLANE.variance, PLANE.covariance.diagonal())
    x = torch.tensor([[0.1, 0.2], [-0.5, 0.6]], dtype=D)
    alpha, sigma = torch.tensor([0.8, 0.5], dtype=D), torch.tensor([0.6, 0.9], dtype=D)
    best = PLANE.posterior_mean(x, alpha, sigma)
    for row in range(2):
        weight = torch.softmax(-0.5 * ((x[row] - alpha[row] * x0) / sigma[row]).square().sum(1), 0)
        assert torch.allclose(weight @ x0, best[row], atol=0.03)


def test_ends_are_exact() -> None:
    x = torch.tensor([[0.3, -4.0], [2.0, 7.0]], dtype=D)
    assert torch.allclose(PLANE.posterior_mean(x, 0.0, 1.0), PLANE.mean.expand(2, 2), atol=1e-15)
    assert torch.allclose(PLANE.posterior_mean(0 * x, 0.0, 0.0), PLANE.mean.expand(2, 2), atol=1e-15)
    assert torch.allclose(PLANE.posterior_mean(x, 0.5, 0.0), x / 0.5, atol=1e-14)
    assert torch.allclose(PLANE.posterior_variance(x, 0.0, 1.0), PLANE.variance.expand(2, 2), atol=1e-15)
    assert float(PLANE.posterior_variance(x, 0.5, 0.0).abs().max()) < 1e-14


def test_points_give_the_nearest_point_without_noise() -> None:
    points = Mixture(torch.ones(3), torch.tensor([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]]), torch.zeros(3, 2))
    x = torch.tensor([[0.9, 1.2], [4.0, 4.5]], dtype=D)
    assert torch.equal(points.posterior_mean(x, 1.0, 0.0), points.means[[1, 2]])


def test_any_shape_dtype_and_level_per_row() -> None:
    x = torch.linspace(-1, 1, 8, dtype=D).reshape(4, 1, 2, 1)
    alpha = torch.tensor([1.0, 0.5, 0.1, 0.0])
    sigma = torch.tensor([0.0, 0.5, 0.9, 1.0])
    together = PLANE.posterior_mean(x, alpha, sigma)
    assert together.shape == x.shape
    for row in range(4):
        alone = PLANE.posterior_mean(x[row : row + 1].reshape(1, 2), float(alpha[row]), float(sigma[row]))
        assert torch.equal(together[row].reshape(1, 2), alone)
    assert PLANE.posterior_mean(x.float(), alpha, sigma).dtype == torch.float32


def test_a_gaussian_and_its_samples_do_not_depend_on_the_batch() -> None:
    one = Mixture.gaussian([1.0, -2.0], [0.5, 2.0])
    x = torch.tensor([[0.4, 0.6]], dtype=D)
    gain = 0.8 * one.stds**2 / (0.64 * one.stds**2 + 0.36)
    assert torch.allclose(
        one.posterior_mean(x, 0.8, 0.6), one.means + gain * (x - 0.8 * one.means), atol=1e-15
    )
    assert torch.equal(PLANE.sample(Noise((7, 8, 9)))[1:2], PLANE.sample(Noise((8,))))


@pytest.mark.parametrize(
    ("weights", "means", "stds"),
    [
        (torch.ones(2), torch.zeros(3, 2), torch.ones(3, 2)),
        (torch.ones(3), torch.zeros(3, 2), -torch.ones(3, 2)),
        (-torch.ones(1), torch.zeros(1, 2), torch.ones(1, 2)),
        (torch.ones(1), torch.full((1, 2), math.nan), torch.ones(1, 2)),
    ],
)
def test_wrong_mixtures_are_refused(weights: torch.Tensor, means: torch.Tensor, stds: torch.Tensor) -> None:
    with pytest.raises(DataError, match="mixture"):
        Mixture(weights, means, stds)


def test_wrong_x_is_refused() -> None:
    for x in (torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, 2, dtype=torch.int64)):
        with pytest.raises(DataError, match="2 dimensions"):
            PLANE.posterior_mean(x, 1.0, 1.0)
