"""Whether the metrics' intervals cover the truth, and what KID and FID cost beside torchmetrics.

    python benchmarks/metrics.py [--times 400 --pictures 10000 --width 1280 --pairs 3]

Coverage: sets of features drawn again and again from Gaussians of 16 numbers with decaying scales, and the
share of nominal 95 % intervals that hold the truth: for KID and FID-infinity the distance of the laws, which
is a formula, for the others the mean over all repetitions. "one law": real and generated pictures alike,
where the jackknives of KID and FID are known to be too wide; "apart": scaled by 1.2 and shifted.

Time: medians of interleaved pairs on one thread, ours over theirs, with the interval in ours. torchmetrics'
KID takes 100 subsets of 1,000 pictures, ours all pairs.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.evaluation.figure import Figure
from sfumato.evaluation.frechet import fid, fid_infinity
from sfumato.evaluation.inception_score import inception_score
from sfumato.evaluation.kernel import kid
from sfumato.evaluation.manifold import density_coverage, precision_recall

WIDTH = 16
SCALES = torch.arange(1, WIDTH + 1, dtype=torch.float64).rsqrt()
CASES = {"one law": (1.0, 0.0), "apart": (1.2, 0.2)}


def draw(n: int, scale: float, shift: float, *key: int) -> Tensor:
    """n rows of N(shift scales, scale^2 diag(scales^2))."""
    generator = torch.Generator().manual_seed(hash(key) % 2**31)
    noise = torch.randn(n, WIDTH, generator=generator, dtype=torch.float64)
    return (scale * noise + shift) * SCALES


def mean_kernel(first: tuple[float, float], second: tuple[float, float]) -> float:
    """E (x . y / D + 1)^3 of two such laws: moments of a Gaussian up to the third."""
    c, d = (torch.diag((scale * SCALES) ** 2) for scale, _ in (first, second))
    m, o = (shift * SCALES for _, shift in (first, second))
    one = m @ o
    two = ((c + torch.outer(m, m)) * (d + torch.outer(o, o))).sum()
    three = one**3 + 3 * one * (o @ c @ o) + 3 * one * (m @ d @ m + (c * d).sum()) + 6 * o @ c @ d @ m
    return float(three / WIDTH**3 + 3 * two / WIDTH**2 + 3 * one / WIDTH + 1)


def truths(scale: float, shift: float) -> Mapping[str, float]:
    """What is a formula."""
    a, b = (1.0, 0.0), (scale, shift)
    return {
        "kid": mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b),
        "fid-infinity": float((SCALES**2).sum() * ((scale - 1) ** 2 + shift**2)),
    }


def measured(x: Tensor, y: Tensor) -> Mapping[str, Figure]:
    """Every metric of one pair of sets."""
    return {
        "kid": kid(x, y),
        "fid": fid(x, y),
        "fid-infinity": fid_infinity(x, y),
        "is": inception_score(3 * y),
        **precision_recall(x, y)._asdict(),
        **density_coverage(x, y)._asdict(),
    }


def coverage(times: int, n: int) -> Iterator[str]:
    """A line a metric: the share of intervals that hold the truth, and its standard error."""
    for case, (scale, shift) in CASES.items():
        found: dict[str, list[Figure]] = {}
        for i in range(times):
            for name, one in measured(draw(n, 1, 0, i, 0), draw(n, scale, shift, i, 1)).items():
                found.setdefault(name, []).append(one)
        known = truths(scale, shift)
        for name, every in found.items():
            truth = known.get(name, statistics.fmean(one.value for one in every))
            share = statistics.fmean(one.low <= truth <= one.high for one in every)
            error = math.sqrt(max(share * (1 - share), 0.01) / times)
            yield f"{case:<8}  n {n:<5}  {name:<14}{100 * share:5.1f} % +- {100 * error:.1f}"


class Given(nn.Module):
    """The features are the pictures."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, x: Tensor) -> Tensor:
        return x


def peers() -> types.SimpleNamespace:
    """torchmetrics' classes without the torchvision that torch-fidelity asks for."""
    found = find_spec("torch_fidelity")
    if found is not None:
        bare: Any = types.ModuleType("torch_fidelity")
        bare.__path__, bare.__spec__ = list(found.submodule_search_locations or []), found
        sys.modules["torch_fidelity"] = bare
    return types.SimpleNamespace(
        fid=import_module("torchmetrics.image.fid").FrechetInceptionDistance,
        kid=import_module("torchmetrics.image.kid").KernelInceptionDistance,
    )


def seconds(do: Callable[[], object]) -> float:
    """Of the processor, so that what else the machine does counts less."""
    start = time.process_time()
    do()
    return time.process_time() - start


def speed(n: int, width: int, pairs: int) -> Iterator[str]:
    """Medians of ours over theirs."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.arange(1, width + 1).rsqrt()
    x, y = (torch.randn(n, width, generator=generator).relu() * scales for _ in range(2))
    theirs = peers()

    def of_peer(metric: Any) -> None:
        for rows, real in ((x, True), (y, False)):
            for start in range(0, n, 500):
                metric.update(rows[start : start + 500], real=real)
        metric.compute()

    jobs: Mapping[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "kid": (
            lambda: kid(x, y),
            lambda: of_peer(theirs.kid(feature=Given(width), subsets=100, subset_size=1000)),
        ),
        "fid": (
            lambda: fid(x, y),
            lambda: of_peer(theirs.fid(feature=Given(width)).set_dtype(torch.float64)),
        ),
    }
    for name, (ours, other) in jobs.items():
        both = [(seconds(ours), seconds(other)) for _ in range(pairs)]
        ratio = statistics.median(a / b for a, b in both)
        mine, peer = (statistics.median(column) for column in zip(*both, strict=True))
        said = f"{mine:.1f} s, theirs {peer:.1f} s, ratio {ratio:.2f}"
        yield f"{name}, {n:,} + {n:,} pictures, {width} features: {said}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=400, help="0: no coverage")
    parser.add_argument("-n", type=int, default=200, help="pictures of each set")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--pairs", type=int, default=3, help="0: no times")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)
    lines = (
        speed(asked.pictures, asked.width, asked.pairs) if asked.pairs else (),
        coverage(asked.times, asked.n) if asked.times else (),
    )
    for line in chain(*lines):
        print(line, flush=True)


if __name__ == "__main__":
    main()
