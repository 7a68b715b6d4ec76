"""The held-out losses of a sweep's trials on their way, on the common scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sfumato.inside.figure import FAINT, INK, OCHRE, PLUM, TEAL, UMBER, literal, new_figure, plain
from sfumato.tuning.ranking import Place
from sfumato.tuning.space import words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = (UMBER, TEAL, OCHRE, PLUM)
"""The colours of the first trials; the others are grey."""


def sweep_figure(places: Sequence[Place]) -> Figure:
    """Loss against the part of the training that is done, a line for each trial; the best four are named."""
    figure = new_figure(3.8)
    axes = plain(figure.subplots(), "part of the training", "held-out loss of epsilon")
    with_curve = [place.result for place in places if place.result.curve]
    for rank, one in reversed([*enumerate(with_curve)]):
        named = rank < len(NAMED)
        x, y = zip(*one.curve, strict=True)
        axes.plot(
            x,
            y,
            color=NAMED[rank] if named else FAINT,
            linewidth=1.8 if named else 0.8,
            marker="o",
            markersize=3 if named else 2,
            label=literal(f"{one.number}: {words(one.said)}") if named else None,
            zorder=3 if named else 2,
        )
    axes.set_yscale("log")
    axes.tick_params(which="both", labelsize=8, colors=INK)
    if with_curve:
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize=8, labelcolor=INK)
    return figure
