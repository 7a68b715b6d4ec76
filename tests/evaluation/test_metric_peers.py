"""The same features give the numbers of torchmetrics and of pytorch-fid (test-only).

What these import beside their metrics asks for torchvision, which is never installed here, and is left out.
pytorch-fid's formula takes its matrix root from scipy, which we do not need otherwise: it is given one by
eigenvectors.
"""

from __future__ import annotations

import importlib
import sys
import types
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato.evaluation.frechet import fid
from sfumato.evaluation.inception_score import inception_score
from sfumato.evaluation.kernel import kid

pytestmark = [
    pytest.mark.skipif(
        not all(find_spec(name) for name in ("torchmetrics", "torch_fidelity", "pytorch_fid")),
        reason="the peers are not installed: see the Makefile",
    ),
    pytest.mark.filterwarnings("ignore:Metric `.*` will save all extracted features:UserWarning"),
    pytest.mark.filterwarnings("ignore:std\\(\\).* degrees of freedom:UserWarning"),
]


@pytest.fixture(scope="module")
def peers() -> types.SimpleNamespace:
    """The metrics' classes, and pytorch-fid's function."""
    found = find_spec("torch_fidelity")
    assert found is not None
    bare: Any = types.ModuleType("torch_fidelity")
    bare.__path__, bare.__spec__ = list(found.submodule_search_locations or []), found
    vision: Any = types.ModuleType("torchvision")
    vision.transforms = types.ModuleType("torchvision.transforms")
    scipy: Any = types.ModuleType("scipy")
    scipy.linalg = types.SimpleNamespace(sqrtm=root)
    network: Any = types.ModuleType("pytorch_fid.inception")
    network.InceptionV3 = types.SimpleNamespace(BLOCK_INDEX_BY_DIM={})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch_fidelity", bare)
        fid: Any = importlib.import_module("torchmetrics.image.fid")
        kid: Any = importlib.import_module("torchmetrics.image.kid")
        score: Any = importlib.import_module("torchmetrics.image.inception")
        patch.setitem(sys.modules, "torchvision", vision)
        patch.setitem(sys.modules, "torchvision.transforms", vision.transforms)
        patch.setitem(sys.modules, "scipy", scipy)
        patch.setitem(sys.modules, "pytorch_fid.inception", network)
        patch.delitem(sys.modules, "pytorch_fid.fid_score", raising=False)
        formula: Any = importlib.import_module("pytorch_fid.fid_score").calculate_frechet_distance
    return types.SimpleNamespace(
        fid=fid.FrechetInceptionDistance,
        kid=kid.KernelInceptionDistance,
        score=score.InceptionScore,
        formula=formula,
    )


def root(matrix: np.ndarray, disp: bool = True) -> tuple[np.ndarray, float]:
    """The root of a matrix with a basis of eigenvectors, and how far its square is off."""
    values, vectors = np.linalg.eig(matrix)
    found = (vectors * np.sqrt(values.astype(complex))) @ np.linalg.inv(vectors)
    return found, float(np.abs(found @ found - matrix).max())


class Given(nn.Module):
    """The features are the pictures."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, x: Tensor) -> Tensor:
        return x


def sets(n: int, m: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(width)
    scales = torch.arange(1, width + 1).rsqrt()
    x, y = (torch.randn(k, width, generator=generator).relu() * scales + 0.1 for k in (n, m))
    return x, 1.1 * y + 0.02


@pytest.mark.parametrize(("n", "m", "width"), [(300, 200, 16), (90, 120, 64)])
def test_fid(n: int, m: int, width: int, peers: types.SimpleNamespace) -> None:
    x, y = sets(n, m, width)
    peer = peers.fid(feature=Given(width)).set_dtype(torch.float64)
    for start in range(0, n, 50):
        peer.update(x[start : start + 50], real=True)
    peer.update(y, real=False)
    found = fid(x, y).value
    assert found == pytest.approx(float(peer.compute()), rel=1e-6)
    moments = [part for z in (x.double().numpy(), y.double().numpy()) for part in (z.mean(0), np.cov(z.T))]
    assert found == pytest.approx(float(peers.formula(*moments)), rel=1e-6)


def test_fid_of_fewer_pictures_than_features(peers: types.SimpleNamespace) -> None:
    """The peer takes roots of rounding errors, one for each feature that was not seen to vary."""
    x, y = sets(40, 50, 64)
    peer = peers.fid(feature=Given(64)).set_dtype(torch.float64)
    peer.update(x, real=True)
    peer.update(y, real=False)
    assert fid(x, y).value == pytest.approx(float(peer.compute()), rel=1e-5)


def test_kid(peers: types.SimpleNamespace) -> None:
    x, y = sets(200, 200, 32)
    peer = peers.kid(feature=Given(32), subsets=1, subset_size=200)
    peer.update(x, real=True)
    peer.update(y, real=False)
    mean, _ = peer.compute()
    assert kid(x, y).value == pytest.approx(float(mean), rel=1e-3)


def test_kid_in_subsets_is_the_same_with_more_noise(peers: types.SimpleNamespace) -> None:
    x, y = sets(400, 400, 32)
    peer = peers.kid(feature=Given(32), subsets=60, subset_size=100)
    peer.update(x, real=True)
    peer.update(y, real=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mean, deviation = peer.compute()
    assert kid(x, y).value == pytest.approx(float(mean), abs=3.5 * float(deviation) / 60**0.5)


@pytest.mark.parametrize("splits", [1, 5])
def test_inception_score(splits: int, peers: types.SimpleNamespace) -> None:
    x, _ = sets(300, 1, 10)
    x *= 8
    peer = peers.score(feature=Given(10), splits=splits)
    peer.update(x)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mean, deviation = peer.compute()
    apart = 1e-5 if splits == 1 else 3 * float(deviation) / splits**0.5  # other splits
    assert inception_score(x, splits).value == pytest.approx(float(mean), rel=apart)
