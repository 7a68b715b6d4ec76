"""The figures of docs/schedules.md and its table: `python docs/figures/schedules.py runs/digits`.

The run gives the share of a held-out digit that is still open at each log-SNR: its x0-loss over the digits'
variance. The ideal denoiser of 1,000 digits gives the same for three sizes of one picture.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import sfumato
from sfumato.data.dataset import DataSet
from sfumato.data.prepare import prepare
from sfumato.inside.curves import NAMES as EVERY
from sfumato.inside.curves import Curve, curve, named_schedule
from sfumato.inside.figure import INK, OCHRE, PLUM, TEAL, UMBER, new_figure, plain, write_figure
from sfumato.inside.ideal import Ideal, clean_error
from sfumato.inside.losses import losses
from sfumato.level import Level
from sfumato.noise import Noise

IMAGES = Path(__file__).parents[1] / "images"
NAMES = ("cosine", "linear", "scaled-linear", "flow")
COLOURS = dict(zip(NAMES, (UMBER, TEAL, PLUM, OCHRE), strict=True))
LOW, HIGH = -12.0, 12.0
SIZES = (1, 2, 4)


def table(curves: dict[str, Curve]) -> None:
    """The rows of the page's table."""
    for name, found in curves.items():
        high, low = found.ends.log_snr.tolist()
        seen = "never" if found.left < 1e-4 else f"{math.exp(-low):,.0f}"
        most = f"{found.quantile(0.05):.1f} to {found.quantile(0.95):.1f}"
        reach = f"{high:.1f} to {low:.1f}" if math.isfinite(high) else "infinite to infinite"
        print(f"| `{name}` | {reach} | {most} | {found.left:.3g} | {seen} |")


def draw_curves(curves: dict[str, Curve]) -> None:
    """Log-SNR against time, and where training's samples fall."""
    figure = new_figure(3.0)
    left, right = figure.subplots(1, 2, width_ratios=[1, 0.7], sharey=True)
    plain(left, "t (0 clean, 1 noise)", "log-SNR")
    plain(right, "density of training samples")
    edges = np.linspace(LOW, HIGH, 61)
    for name, found in curves.items():
        left.plot(
            found.t.numpy(), found.level.log_snr.numpy(), color=COLOURS[name], linewidth=1.7, label=name
        )
        share = np.histogram(found.drawn.numpy(), edges)[0] / len(found.drawn) / np.diff(edges)
        right.plot(share, (edges[1:] + edges[:-1]) / 2, color=COLOURS[name], linewidth=1.7)
    left.set_ylim(LOW, HIGH)
    left.legend(frameon=False, fontsize=8, labelcolor=INK)
    right.set_xlim(left=0)
    write_figure(IMAGES / "schedules.png", figure)


def enlarged(images: Tensor, times: int) -> Tensor:
    """Every pixel as a square of `times` x `times`."""
    return images.repeat_interleave(times, -1).repeat_interleave(times, -2)


def open_to_ideal(images: Tensor, log_snr: Tensor, times: int) -> Tensor:
    """The share of a digit's variance that is open to their ideal denoiser, at each log-SNR."""
    points = enlarged(images, times)
    ideal, some = Ideal.of(points), points[:48]
    eps = Noise(tuple(range(len(some)))).normal(some.shape[1:], "eps")
    ratio = torch.exp(-log_snr / 2)
    norm = torch.hypot(ratio, torch.ones_like(ratio))
    variance = float(points.double().var(0, correction=0).mean())
    errors = [
        float(clean_error(ideal, some, eps, Level(1 / n, r / n), None).mean()) for r, n in zip(ratio, norm)
    ]
    return torch.tensor(errors) / variance


def draw_range(run: Path, data: DataSet, curves: dict[str, Curve]) -> None:
    """What is open at each log-SNR, above where the schedules train; and the same for larger pictures."""
    found = losses(sfumato.load(run), data)
    if found.held is None:
        raise SystemExit("the run holds no pictures out")
    images = data.images(data.train)
    labels = data.classes_of(data.train)
    inside = [images[labels == c].double().var(0, correction=0).mean() for c in range(data.classes)]
    share = found.held.mean * (found.level.sigma / found.level.norm) ** 2 / torch.stack(inside).mean()
    figure = new_figure(4.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 0.8])
    plain(above, "", "share of the variance\nstill open")
    x = found.level.log_snr.numpy()
    above.plot(x, share.numpy(), color=INK, linewidth=1.9, label="a network, held-out digits of 28 x 28")
    log_snr = torch.linspace(LOW, 6, 46, dtype=torch.float64)
    for times, style in zip(SIZES, ((0, (5, 1.5)), (0, (3, 1.5)), (0, (1.2, 1.2)))):
        side = 28 * times
        known = open_to_ideal(images[:1000], log_snr, times)
        label = f"1,000 digits known by heart, {side} x {side}"
        above.plot(log_snr.numpy(), known.numpy(), color=UMBER, linewidth=1.3, linestyle=style, label=label)
    above.set_ylim(0, 1.15)
    above.legend(frameon=False, fontsize=8, labelcolor=INK)
    plain(below, "log-SNR (left: noise, right: clean)", "density of\ntraining samples")
    edges = np.linspace(LOW, HIGH, 61)
    for name, one in curves.items():
        height = np.histogram(one.drawn.numpy(), edges)[0] / len(one.drawn) / np.diff(edges)
        below.plot((edges[1:] + edges[:-1]) / 2, height, color=COLOURS[name], linewidth=1.7, label=name)
    below.set_xlim(LOW, HIGH)
    below.set_ylim(bottom=0)
    below.legend(frameon=False, fontsize=8, labelcolor=INK)
    write_figure(IMAGES / "range.png", figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    curves = {name: curve(named_schedule(name)) for name in NAMES}
    table({name: curve(named_schedule(name)) for name in EVERY})
    draw_curves(curves)
    draw_range(run, prepare("digits", multiple=4), curves)


if __name__ == "__main__":
    main()
