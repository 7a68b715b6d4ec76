"""Pictures on the way: grids of samples, and the curve of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_GAP = 2
_POINTS = 2000
METRICS = "metrics/"
"""How the names of a judge's figures begin in a log."""


def grid(images: Tensor, columns: int) -> Tensor:
    """(n, C, H, W) in [-1, 1] as one picture (H', W', C), uint8, with grey gaps."""
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    out = torch.full(
        (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, channels), 128, dtype=torch.uint8
    )
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    for i, picture in enumerate(pixels):
        top, left = (i // columns) * (height + _GAP), (i % columns) * (width + _GAP)
        out[top : top + height, left : left + width] = picture
    return out


def write_grid(path: Path, images: Tensor, columns: int) -> None:
    """Writes a grid as a PNG; small pictures are enlarged without smoothing so that people can see them."""
    from PIL import Image

    pixels = grid(images.float().cpu(), columns).numpy()
    pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    times = max(1, 64 // images.shape[-1])
    pixels = np.repeat(np.repeat(pixels, times, 0), times, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    Image.fromarray(pixels).save(temporary, format="PNG")
    temporary.replace(path)


def write_loss(path: Path, log: Sequence[dict[str, Any]]) -> None:
    """Draws the training and held-out losses of a log over the steps, and below them each metric that was
    looked at; long runs are averaged in pieces."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = np.array([entry["step"] for entry in log if "loss" in entry], dtype=np.float64)
    losses = np.array([entry["loss"] for entry in log if "loss" in entry], dtype=np.float64)
    if not len(steps):
        return
    names = list(dict.fromkeys(name for entry in log for name in entry if name.startswith(METRICS)))
    pieces = min(len(steps), _POINTS)
    figure = Figure(figsize=(8, 4.5 + 1.5 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes, *below = figure.subplots(
        1 + len(names), sharex=True, squeeze=False, height_ratios=[3, *[1] * len(names)]
    )[:, 0]
    x, y = (np.array([part.mean() for part in np.array_split(v, pieces)]) for v in (steps, losses))
    axes.plot(x, y, color="0.75", linewidth=0.8, label="training")
    wide = max(1, len(y) // 50)
    if wide > 1:
        kernel = np.ones(wide) / wide
        axes.plot(x[wide - 1 :], np.convolve(y, kernel, "valid"), color="C0", label="training, running mean")
    looks: dict[str, Any] = {"color": "C1", "marker": "o", "markersize": 3}
    held = _seen(log, "held_out/loss")
    if held:
        axes.plot(*zip(*held, strict=True), **looks, label="held-out, averaged weights")
    for name, under in zip(names, below, strict=True):
        under.plot(*zip(*_seen(log, name), strict=True), **looks)
        under.set_ylabel(name.removeprefix(METRICS))
    (below[-1] if below else axes).set_xlabel("step")
    axes.set_ylabel("loss")
    if float(y.min()) > 0:
        axes.set_yscale("log")
    axes.legend()
    figure.savefig(path.with_name(f".{path.name}"), dpi=110, format="png")
    path.with_name(f".{path.name}").replace(path)


def _seen(log: Sequence[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """(step, value) wherever a log has this figure."""
    return [(entry["step"], entry[name]) for entry in log if name in entry]
