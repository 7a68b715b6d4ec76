"""Uncertainty as pictures: mean and deviation over seeds, and along the way of one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sfumato.inside.deviation import Deviation, Stage, decided
from sfumato.inside.figure import literal
from sfumato.inside.panel import Row, Scale, heat, panel, shown
from sfumato.inside.sheet import log_snr_words
from sfumato.runs import Run


def _most(found: Sequence[Deviation]) -> float:
    """The end of the colours: the largest deviation anywhere."""
    return max(float(each.map.max()) for each in found)


def _scale(most: float, run: Run) -> Scale:
    image = run.card.image
    return Scale(most, f"standard deviation (black {image.low:g}, white {image.high:g})")


def seeds_figure(run: Run, found: Sequence[Deviation], names: Sequence[str]) -> np.ndarray:
    """For each name (a class) a column: the mean of its pictures and, below, each pixel's deviation."""
    most, image = _most(found), run.card.image
    rows = [
        Row([shown(each.mean, image) for each in found], "mean"),
        Row([heat(each.map, most) for each in found], "devi-\nation"),
    ]
    return panel([literal(name[:14]) for name in names], rows, "", _scale(most, run))


def stages_figure(run: Run, found: Sequence[Stage]) -> np.ndarray:
    """For each level a column: x, the guess, the completions' mean and deviation, and some completions."""
    most, image = _most([stage.completed for stage in found]), run.card.image
    shares = decided(found)
    heads = [f"{s.t:.2f}\n{log_snr_words(s.level)}" for s in found]
    rows = [
        Row([shown(s.x, image) for s in found], "$x_t$"),
        Row([shown(s.x0, image) for s in found], "$\\hat x_0$"),
        Row([shown(s.completed.mean, image) for s in found], "mean", apart=True),
        Row(
            [heat(s.completed.map, most) for s in found],
            "devi-\nation",
            notes=[f"{max(0.0, share):.0%}" for share in shares],
            noted="decided",
        ),
    ]
    for i in range(len(found[0].examples)):
        rows.append(Row([shown(s.examples[i], image) for s in found], f"ending {i + 1}", apart=i == 0))
    return panel(heads, rows, "t\nlog-SNR", _scale(most, run))
