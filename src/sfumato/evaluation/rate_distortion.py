"""The progressive lossy code of a diffusion model: what each bit buys (Ho et al. 2020, sec. 4.3).

Who knows x_t knows the picture but for the error of the estimate x0(x_t), and x_t is told in as many bits as
the bound's terms down to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.bound import BYTES, Bins
from sfumato.denoiser import Denoiser
from sfumato.evaluation.mean import Mean
from sfumato.evaluation.variational import Bound
from sfumato.forward import noised, posterior
from sfumato.level import Levels
from sfumato.noise import Noise

MARKED = 150
"""A curve of more points is drawn as a line alone."""


class Point(NamedTuple):
    """A point of the curve: bits per dimension spent so far, the root mean square error on the scale 0 ..
    255, and the log-SNR of what was told; +inf for the picture itself."""

    rate: Mean
    distortion: Mean
    log_snr: float


def rate_distortion(found: Bound, bins: Bins = BYTES) -> list[Point]:
    """The curve, from the first bits to the last: one point for each part of the bound, the least noisy
    level, and the picture without loss.

    A part of several steps was asked at a level drawn evenly from it: its point lies where it stands on
    average, at (size - 1) / (2 size) of its bits.
    """
    scale = 255 / (bins.high - bins.low)
    ends = found.edges_log_snr
    before = found.prior
    points: list[Point] = []
    for part, size in enumerate(found.sizes):
        share = 0.5 if size is None else (size - 1) / (2 * size)
        cost = found.parts[:, part]
        log_snr = float((1 - share) * ends[part] + share * ends[part + 1])
        points.append(Point(Mean.of(before + share * cost), _error(found, part, scale), log_snr))
        before = before + cost
    points.append(Point(Mean.of(before), _error(found, len(found.sizes), scale), float(ends[-1])))
    points.append(Point(found.total, Mean(0.0, 0.0), math.inf))
    return points


def _error(found: Bound, part: int, scale: float) -> Mean:
    return Mean.of(found.squares[:, part]).root().times(scale)


class Stage(NamedTuple):
    """A place on the way at which reconstructions are shown: the part of the bound that begins there, and the
    bits per dimension spent before it."""

    edge: int
    rate: float


def stages(found: Bound, count: int) -> list[Stage]:
    """`count` edges between which the error falls about equally, from the first bits to the least noisy
    level: what the eye sees. Fewer where there are not as many."""
    errors = found.squares.mean(0).sqrt()
    wanted = torch.linspace(float(errors[0]), float(errors[-1]), count, dtype=torch.float64)
    chosen = sorted({int((errors - error).abs().argmin()) for error in wanted})
    spent = found.prior[:, None] + torch.cat([torch.zeros(len(found.parts), 1), found.parts.cumsum(1)], 1)
    return [Stage(edge, float(spent[:, edge].mean())) for edge in chosen]


@torch.no_grad()
def reconstructions(denoise: Denoiser, x0: Tensor, levels: Levels, noise: Noise) -> list[Tensor]:
    """What is believed of x0, (B, ...), at each of the levels, from noisy to clean, along one path of the
    process: each x is drawn from q given the one before and x0, as the code tells it."""
    found: list[Tensor] = []
    x = noised(x0, noise.normal(x0.shape[1:], "told", 0).to(x0), levels[0])
    for i, here in enumerate(levels):
        if i:
            mean, variance = posterior(x, x0, levels[i - 1], here)
            x = mean + math.sqrt(float(variance)) * noise.normal(x0.shape[1:], "told", i).to(x0)
        found.append(denoise(x, here).x0)
    return found


def write_curve(path: Path, found: Bound, points: Sequence[Point]) -> None:
    """Draws RMSE over rate, and the bits that each unit of log-SNR costs, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    few = "." if len(points) <= MARKED else ""
    left.plot([p.rate.value for p in points], [p.distortion.value for p in points], marker=few, markersize=4)
    left.set_xlabel("rate, bits per dimension")
    left.set_ylabel("distortion, RMSE on 0 .. 255")
    left.set_ylim(bottom=0)
    ends: list[float] = found.edges_log_snr.tolist()
    places, heights, errors = [], [], []
    for a, b, cost in zip(ends, ends[1:], found.per_part, strict=False):
        if math.isfinite(a) and b > a:
            places.append((a + b) / 2)
            heights.append(cost.value / (b - a))
            errors.append(2 * cost.error / (b - a))
    right.errorbar(places, heights, errors, marker=few, markersize=4, elinewidth=0.8 if few else 0.3)
    right.set_xlabel("log-SNR of what is being told")
    right.set_ylabel("bits per dimension for a unit of log-SNR")
    right.set_title("bars: 2 standard errors", fontsize="small")
    right.set_ylim(bottom=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=110, format="png")
    temporary.replace(path)
