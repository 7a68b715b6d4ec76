"""Figures of one hand: size, ink and type, and writing them as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sfumato.files.atomic import told, write_atomic
from sfumato.files.png import SOFTWARE, encode_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, RULE = "#33302c", "#8d867d", "#e6e1da"
UMBER, TEAL, OCHRE, PLUM = "#9a5a2c", "#2f7f86", "#c99a2e", "#7a4a6d"
"""A few colours that stay apart in print and for the colour-blind."""
DPI = 160
WIDTH = 7.2
"""Inches: a page's width."""


def new_figure(height: float, width: float = WIDTH, dpi: float = DPI) -> Figure:
    """An empty figure on white, of so many inches, laid out by constraints."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Axes, xlabel: str = "", ylabel: str = "") -> Axes:
    """Two thin axes, a faint grid, small type."""
    axes.set_xlabel(xlabel, color=INK, fontsize=9)
    axes.set_ylabel(ylabel, color=INK, fontsize=9)
    axes.tick_params(labelsize=8, colors=INK, length=3, width=0.6)
    axes.grid(True, color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
        spine.set_linewidth(0.6)
    return axes


def literal(text: str) -> str:
    """A name as it is: a figure would read what stands between dollars as mathematics."""
    return text.replace("$", r"\$")


def pixels_of(figure: Figure) -> np.ndarray:
    """The figure as it is drawn, (H, W, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it. Raises RunError with the system's words."""
    with told("making the folder", folder):
        folder.mkdir(parents=True, exist_ok=True)


def write_figure(path: Path, figure: Figure) -> Path:
    """Writes a figure of curves as PNG, atomically. Raises RunError if the disk refuses."""
    make_folder(path.parent)
    write_atomic(path, [encode_png(pixels_of(figure), {"Software": SOFTWARE})])
    return path
