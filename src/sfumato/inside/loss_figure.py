"""The losses of a run drawn against log-SNR."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sfumato.inside.figure import FAINT, INK, TEAL, UMBER, new_figure, plain
from sfumato.inside.losses import Losses

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DEPTH, _HEIGHT, _DECADES = 12.0, 4.0, 1e5
"""How far the axis goes below the network's least loss and above its largest, and at most from end to end:
the ideal's loss falls to 0 on the training pictures and grows without end on others."""
_FAR = 3.0
"""Held-out / training losses are drawn up to 1 + 3."""


def loss_figure(losses: Losses) -> Figure:
    """Above, the network's losses as lines and the ideal denoiser's dashed; below, held-out / training loss.
    Bands are two standard errors wide to each side."""
    parts = [1.0] if losses.held is None else [1.0, 0.36]
    figure = new_figure(3.4 if losses.held is None else 4.4)
    axes = figure.subplots(len(parts), 1, height_ratios=parts, sharex=True, squeeze=False)[:, 0]
    _draw_losses(plain(axes[0], "", "loss of v"), losses)
    axes[0].set_title(
        f"by heart: the ideal denoiser of the {losses.points:,} training pictures, the least loss "
        "possible on them", loc="left", fontsize=8, color=FAINT,
    )  # fmt: skip
    if losses.held is not None:
        _draw_ratio(plain(axes[1], "", "held-out /\ntraining"), losses)
    axes[-1].set_xlabel("log-SNR (left: noise, right: clean)", color=INK, fontsize=9)
    return figure


def _draw_losses(axes: Axes, losses: Losses) -> None:
    x = losses.level.log_snr.numpy()
    sides = [("training pictures", UMBER, losses.train)]
    sides += [] if losses.held is None else [("held-out pictures", TEAL, losses.held)]
    top = _HEIGHT * max(float(side.mean.max()) for _, _, side in sides)
    low = max(min(float(side.mean.min()) for _, _, side in sides) / _DEPTH, top / _DECADES, 1e-30)
    for name, colour, side in sides:
        if bool(side.error.isfinite().all()):
            under, over = (side.mean - 2 * side.error).clamp(min=low), side.mean + 2 * side.error
            axes.fill_between(x, under.numpy(), over.numpy(), color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, side.mean.numpy(), color=colour, linewidth=1.8, label=f"the network, {name}")
        ideal = side.ideal.mean(0).clamp(min=low / 10).numpy()
        axes.plot(x, ideal, color=colour, linewidth=1.2, linestyle=(0, (4, 2)), label=f"by heart, {name}")
    axes.set_yscale("log")
    axes.set_ylim(low, max(top, 10 * low))
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower left")


def _draw_ratio(axes: Axes, losses: Losses) -> None:
    if losses.held is None:
        return
    x = losses.level.log_snr.numpy()
    held, train = losses.held.mean.clamp(min=1e-30), losses.train.mean.clamp(min=1e-30)
    ratio, relative = held / train, torch.hypot(losses.held.error / held, losses.train.error / train)
    axes.axhline(1, color=FAINT, linewidth=0.8)
    if bool(relative.isfinite().all()):
        under, over = ratio * (1 - 2 * relative), ratio * (1 + 2 * relative)
        axes.fill_between(x, under.numpy(), over.numpy(), color=TEAL, alpha=0.18, linewidth=0)
    axes.plot(x, ratio.numpy(), color=TEAL, linewidth=1.8)
    band = (2 * ratio * relative).nan_to_num(posinf=0.0)
    far = 1.1 * min(_FAR, max(0.05, float(((ratio - 1).abs() + band).max())))
    axes.set_ylim(1 - far, 1 + far)
