"""The Fréchet distance of two sets of features, each taken as a Gaussian (FID, Heusel et al. 2017, eq. 6):

    d^2 = |m_1 - m_2|^2 + tr C_1 + tr C_2 - 2 tr (C_1 C_2)^(1/2)

With C = A^T A the last trace is the sum of the singular values of A_1 A_2^T, whose squares are the
eigenvalues of C_1 C_2. No square root of rounding errors is ever taken, so covariances of fewer pictures than
features are welcome, and the distance of a set from itself is 0 to rounding.

The distance of finite sets is that of their laws plus a bias of about b / n, b of the size of the features'
number: it is the *distance at n*, and the interval here is one of its mean over such sets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation.figure import Figure
from sfumato.evaluation.moments import Moments, in_blocks, moments
from sfumato.noise import permutation

RANK = 1e-14
"""Eigenvalues up to this share of the largest are rounding: float32 features know no smaller ones."""

HALVES = 2
"""FID-infinity needs so many pictures for each feature."""


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared distance d^2 of two Gaussians; never negative. Raises SettingsError for unlike widths."""
    return _Pair.of(a, b).distance


def fid(real: Tensor, generated: Tensor) -> Figure:
    """The distance of features (n, D) and (m, D), and the 95 % interval of its mean over sets of n and m.

    The interval is by the infinitesimal jackknife (Jaeckel 1972): the error is
    sqrt(var(phi_1) / n + var(phi_2) / m), phi the derivative of d^2 by a picture's weight,

        phi_1(x) = 2 (x - m_1) . (m_1 - m_2) + |x - m_1|^2 - (x - m_1)^T T (x - m_1)

    with T the optimal transport's matrix, T C_1 T = C_2 (Rippl, Munk & Sturm 2016). It costs one pass over
    the features and needs no draws. Between sets of one law, where the first derivative vanishes, it is too
    wide by a factor of about sqrt 2.
    """
    pair = _Pair.of(moments(in_blocks(real)), moments(in_blocks(generated)))
    return Figure.of(pair.distance, _error(*pair.influences(real, generated)), least=0.0)


def fid_infinity(real: Tensor, generated: Tensor, seed: int = 0) -> Figure:
    """The distance of the laws themselves, extrapolated to infinitely many pictures (Chong & Forsyth 2020).

    Both sets are cut into halves by the seed, whose distances are d^2 + 2 b / n on average where the whole
    has d^2 + b / n: twice the whole less the mean of the halves. The halves make up the whole, so that what
    they have by chance mostly cancels. Near 0 it may be negative, as an unbiased estimate must. The interval
    is that of `fid`: the estimate is a sum of distances, and so is its derivative.

    Each half needs more pictures than features: with fewer, what the covariance does not see is no bias in
    1 / n. Raises SettingsError for fewer than 2 D pictures of either.
    """
    n, width = min(len(real), len(generated)), real.shape[1]
    if n < HALVES * width:
        raise SettingsError(
            f"{n:,} pictures are too few for FID-infinity with {width:,} features: at least "
            f"{HALVES * width:,} of each set are needed, or take FID or KID"
        )
    whole = _Pair.of(moments(in_blocks(real)), moments(in_blocks(generated)))
    value = 2 * whole.distance
    totals = [2 * influence for influence in whole.influences(real, generated)]
    orders = [
        permutation(len(features), seed, "fid-infinity", name)
        for name, features in (("real", real), ("generated", generated))
    ]
    for halves in zip(*(order.tensor_split(2) for order in orders), strict=True):
        mine, theirs = real[halves[0]], generated[halves[1]]
        half = _Pair.of(moments(in_blocks(mine)), moments(in_blocks(theirs)))
        value -= half.distance / 2
        for total, rows, influence in zip(totals, halves, half.influences(mine, theirs), strict=True):
            total[rows] -= influence
    return Figure.of(value, _error(*totals))


def _error(*influences: Tensor) -> float:
    """The standard error from the derivatives by each picture's weight, one tensor (n,) a set."""
    return math.sqrt(sum(float(one.var()) / len(one) for one in influences))


@dataclass(frozen=True)
class _Root:
    """A of C = A^T A, (r, D), its rows orthogonal, and its pseudo-inverse (D, r). bessel: n / (n - 1), what C
    is larger by than the mean of squares."""

    mean: Tensor
    root: Tensor
    inverse: Tensor
    bessel: float

    @staticmethod
    def of(found: Moments) -> _Root:
        values, vectors = torch.linalg.eigh(found.covariance)
        first = max(len(values) - found.count + 1, int((values <= RANK * values[-1]).sum()))
        scale, vectors = values[first:].sqrt(), vectors[:, first:]
        bessel = found.count / (found.count - 1)
        return _Root(found.mean, (vectors * scale).T, vectors / scale, bessel)


@dataclass(frozen=True)
class _Pair:
    """Two Gaussians, coupled: A_1 A_2^T = left diag(shared) right^T."""

    a: _Root
    b: _Root
    left: Tensor
    shared: Tensor
    right: Tensor
    distance: float

    @staticmethod
    def of(a: Moments, b: Moments) -> _Pair:
        if a.mean.shape != b.mean.shape:
            raise SettingsError(
                f"features of {len(a.mean)} and of {len(b.mean)} numbers have no distance: take both by the "
                "same extractor"
            )
        one, other = _Root.of(a), _Root.of(b)
        left, shared, right = torch.linalg.svd(one.root @ other.root.T, full_matrices=False)
        apart = (a.mean - b.mean).square().sum()
        within = a.covariance.trace() + b.covariance.trace() - 2 * shared.sum()
        return _Pair(one, other, left, shared, right.T, max(0.0, float(apart + within)))

    def influences(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """The derivative of the distance by each picture's weight, (n,) and (m,), 0 on average."""
        apart = self.a.mean - self.b.mean
        return (
            self._of_one(first, self.a, self.left, apart),
            self._of_one(second, self.b, self.right, -apart),
        )

    def _of_one(self, features: Tensor, own: _Root, basis: Tensor, apart: Tensor) -> Tensor:
        """x^T T x = sum of shared_j (x . g_j)^2, g_j the columns of A^+ basis."""
        columns = own.inverse @ basis * self.shared.sqrt()
        parts: list[Tensor] = []
        for rows in in_blocks(features):
            x = rows - own.mean
            spread = x.square().sum(1) - (x @ columns).square().sum(1)
            parts.append(2 * x @ apart + spread * own.bessel)
        found = torch.cat(parts)
        return found - found.mean()
