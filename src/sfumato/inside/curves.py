"""Schedules as they are seen: alpha, sigma and log-SNR against time, and where training looks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sfumato.errors import SettingsError
from sfumato.grids import ends
from sfumato.inside.figure import FAINT, INK, TEAL, UMBER, new_figure, plain
from sfumato.level import Level
from sfumato.schedules import Schedule
from sfumato.training.levels import Stratified, Where
from sfumato.training.process import SCHEDULES, Process

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINTS = 1001
_DRAWS = 1 << 14
_BINS = 60
_SEEN = 15.0
"""Log-SNRs beyond this are not drawn: cosine and flow have infinite ends."""


NAMES = tuple(name for name in SCHEDULES if name != "learned")
"""The schedules that a name alone tells: a learned one is known when a run has learned it."""


def named_schedule(name: str) -> Schedule:
    """The schedule that `train --schedule NAME` would use, NAME of one or of a file. Raises SettingsError
    with the names there are."""
    if name not in NAMES and not name.endswith(".json"):
        raise SettingsError(f"no schedule is called {name!r}; there are: {', '.join(NAMES)}")
    return Process(name).curve()


@dataclass(frozen=True, eq=False)
class Curve:
    """A schedule at even times, and the log-SNRs of many draws of training, sorted.

    t: (n,), from the least noise of training to 1. ends: the levels there, (2,).
    """

    t: torch.Tensor
    level: Level
    ends: Level
    drawn: torch.Tensor

    @property
    def left(self) -> float:
        """alpha / hypot(alpha, sigma) at t = 1, sqrt(alpha-bar_T): the share of signal in the last level."""
        return float(self.ends.alpha[1] / self.ends.norm[1])

    def quantile(self, share: float) -> float:
        """The log-SNR below which this share of training's samples falls."""
        return float(self.drawn[min(int(share * len(self.drawn)), len(self.drawn) - 1)])

    def to_json(self) -> dict[str, Any]:
        """The ends, and where training looks, as quantiles; an infinite log-SNR is None."""
        shares = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
        finite = lambda value: value if math.isfinite(value) else None
        return {
            "alpha": self.ends.alpha.tolist(),
            "sigma": self.ends.sigma.tolist(),
            "log_snr": [finite(value) for value in self.ends.log_snr.tolist()],
            "signal_left": self.left,
            "training_log_snr": {str(share): finite(self.quantile(share)) for share in shares},
        }


def curve(schedule: Schedule, where: Where | None = None, seed: int = 0) -> Curve:
    """The schedule's curve, and 16,384 draws of the levels of training (even in time if not said)."""
    both = ends(schedule)
    first = float(schedule.time(Level(both.alpha[0], both.sigma[0])))
    t = torch.linspace(first, 1, _POINTS, dtype=torch.float64)
    drawn = (where or Stratified())(schedule, range(_DRAWS), seed).log_snr.sort().values
    return Curve(t, schedule.level(t), both, drawn)


def reading(found: Curve) -> list[str]:
    """Sentences for people: the range, what is left at the end, and where training looks."""
    high, low = found.ends.log_snr.tolist()
    said = [
        f"Log-SNR falls from {_number(high)} to {_number(low)}; half of the training samples lie between "
        f"{_number(found.quantile(0.75))} and {_number(found.quantile(0.25))}, nine in ten between "
        f"{_number(found.quantile(0.95))} and {_number(found.quantile(0.05))}."
    ]
    if found.left > 0.01:
        said.append(
            f"At t = 1 a share of {found.left:.3g} of the signal is left: sampling begins from pure noise, "
            "which training never saw, and the pictures' brightness suffers."
        )
    elif found.left > 1e-4:
        said.append(f"At t = 1 a share of {found.left:.3g} of the signal is left, which is little.")
    else:
        said.append("At t = 1 nothing of the signal is left.")
    return said


def _number(value: float) -> str:
    """A log-SNR for people."""
    return f"{value:.1f}" if math.isfinite(value) else "infinity" if value > 0 else "-infinity"


def schedule_figure(found: Curve, title: str) -> Figure:
    """Three panels: alpha and sigma against t; log-SNR against t; beside it, where training looks."""
    figure = new_figure(2.9)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 0.55])
    t = found.t.numpy()
    plain(left, "t (0 clean, 1 noise)", "")
    for values, name, colour in ((found.level.alpha, "alpha", UMBER), (found.level.sigma, "sigma", TEAL)):
        left.plot(t, values.numpy(), color=colour, linewidth=1.8, label=name)
    if float(found.level.sigma.max()) > 2:
        left.set_yscale("log")
    left.legend(frameon=False, fontsize=8, labelcolor=INK)
    left.set_title(title, loc="left", fontsize=9, color=INK)
    plain(middle, "t (0 clean, 1 noise)", "log-SNR")
    middle.plot(t, found.level.log_snr.numpy(), color=INK, linewidth=1.8)
    where_trained(right, found)
    low, high = _window(found)
    for axes in (middle, right):
        axes.set_ylim(low, high)
        axes.axhline(0, color=FAINT, linewidth=0.6)
    return figure


def where_trained(axes: Axes, found: Curve) -> None:
    """The density of training's samples over log-SNR, lying on its side."""
    plain(axes, "training samples", "")
    low, high = _window(found)
    counts, edges = np.histogram(found.drawn.numpy(), bins=_BINS, range=(low, high))
    axes.stairs(
        counts / len(found.drawn) / (edges[1] - edges[0]), edges, orientation="horizontal", fill=True,
        color=UMBER, alpha=0.35, linewidth=0,
    )  # fmt: skip
    axes.set_yticklabels([])
    axes.set_xticks([])
    axes.grid(False)


def _window(found: Curve) -> tuple[float, float]:
    """The log-SNRs to show."""
    finite = found.level.log_snr.clamp(-_SEEN, _SEEN)
    low, high = float(finite.min()), float(finite.max())
    edge = 0.04 * (high - low)
    return low - edge, high + edge
