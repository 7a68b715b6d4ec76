"""Pictures side by side in rows and columns, with words; small ones are enlarged, never smoothed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfumato.card import ImageSettings
from sfumato.errors import SettingsError
from sfumato.files.pictures import to_bytes, write_png
from sfumato.inside.figure import DPI, FAINT, INK, make_folder, new_figure, pixels_of

_CELL = 112
"""Pixels of a small picture's side; larger pictures are shown as they are, up to twice that."""
_SCALE = 5.8
"""How many cells, by their longer side, a panel is wide at least where it has a scale."""
_MOST = 16_000
"""The most pixels of a panel's side."""


@dataclass(frozen=True)
class Row:
    """A row of cells, (H, W, 3) uint8 each or None for an empty place. name: right beside it; title: further
    left; apart: begins a new group, a little lower; notes: under the cells, and `noted` beside them."""

    cells: Sequence[np.ndarray | None]
    name: str = ""
    title: str = ""
    apart: bool = False
    notes: Sequence[str] = ()
    noted: str = ""


def shown(picture: Tensor, image: ImageSettings) -> np.ndarray:
    """A picture (C, H, W) in the model's range as (H, W, 3) uint8; what is transparent lies on white."""
    unit = (picture.nan_to_num() - image.low) / (image.high - image.low) * 2 - 1
    if len(unit) in (2, 4):
        share = (unit[-1:].clamp(-1, 1) + 1) / 2
        unit = unit[:-1].clamp(-1, 1) * share + (1 - share)
    if len(unit) not in (1, 3):
        raise SettingsError(f"pictures of {len(unit)} channels cannot be shown: 1 to 4 can")
    pixels = to_bytes(unit)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def heat(values: Tensor, most: float) -> np.ndarray:
    """(H, W) numbers from 0 to `most` as colours, black over red to white, (H, W, 3) uint8."""
    from matplotlib import colormaps

    share = (values / max(most, 1e-12)).clamp(0, 1).cpu().double().numpy()
    return (np.asarray(colormaps["magma"](share))[..., :3] * 255).round().astype(np.uint8)


def heat_bar(height: int, width: int) -> np.ndarray:
    """The colours of `heat` from 0, at the left, to the most."""
    return heat(torch.linspace(0, 1, width).expand(height, width), 1.0)


def _fitted(cell: np.ndarray) -> np.ndarray:
    """Small pictures enlarged by whole numbers; very large ones brought to at most twice a cell by areas."""
    from PIL import Image

    side = max(cell.shape[:2])
    times = max(1, round(_CELL / side))
    if side > 2 * _CELL:
        height, width = (max(1, round(n * 2 * _CELL / side)) for n in cell.shape[:2])
        return np.asarray(Image.fromarray(cell).resize((width, height), Image.Resampling.BOX))
    return np.repeat(np.repeat(cell, times, 0), times, 1)


@dataclass(frozen=True)
class Scale:
    """A bar of `heat`'s colours from 0 to `most`, and what it measures."""

    most: float
    words: str


def panel(
    heads: Sequence[str], rows: Sequence[Row], corner: str = "", scale: Scale | None = None
) -> np.ndarray:
    """The panel as one picture, (H, W, 3) uint8. heads: over the columns, and `corner` to their left; a scale
    goes under all. Raises SettingsError for more rows or columns than a picture can hold."""
    cells = [[None if c is None else _fitted(c) for c in row.cells] for row in rows]
    height, width = next(c.shape for row in cells for c in row if c is not None)[:2]
    page = _Page(max(height, width) / _CELL)
    left = page.inches(1.15 if any(row.title for row in rows) else 0.65)
    tops, y = list[int](), page.lines(max(map(_height, heads)) + 0.6)
    for row in rows:
        y += 2 * page.gap if row.apart and tops else 0
        tops.append(y)
        y += height + page.gap + (page.lines(max(map(_height, row.notes)) + 0.2) if row.notes else 0)
    lefts = [left + j * (width + page.gap) for j in range(len(heads))]
    page.width, page.height = lefts[-1] + width + page.gap, y
    if scale is not None:
        page.width = max(page.width, left + round(_SCALE * max(height, width)))
        page.height += page.lines(2.0)
    if max(page.width, page.height) > _MOST:
        raise SettingsError(
            f"a panel of {page.width} x {page.height} pixels is too large: ask for fewer pictures or steps"
        )
    for x, head in zip(lefts, heads, strict=True):
        page.say(x + width / 2, tops[0] - page.gap, head, "center", "bottom")
    page.say(left - 1.5 * page.gap, tops[0] - page.gap, corner, "right", "bottom", FAINT)
    for row, top in zip(rows, tops, strict=True):
        page.say(left - 1.5 * page.gap, top + height / 2, row.name, "right")
        page.say(page.gap, top + height / 2, row.title, "left")
        page.say(left - 1.5 * page.gap, top + height + page.gap / 2, row.noted, "right", "top", FAINT)
        for x, note in zip(lefts, row.notes):
            page.say(x + width / 2, top + height + page.gap / 2, note, "center", "top", FAINT)
    if scale is not None:
        bar = heat_bar(page.lines(0.8), 2 * max(height, width))
        under = y + page.lines(1.0)
        page.say(left - 1.5 * page.gap, under, "0", "right")
        page.say(left + bar.shape[1] + page.gap, under, f"{scale.most:.2f}   {scale.words}", "left")
        page.put(bar, left, under - len(bar) // 2)
    for row, top in zip(cells, tops, strict=True):
        for x, cell in zip(lefts, row):
            if cell is not None:
                page.put(cell, x, top)
    return page.drawn()


def _height(words: str) -> int:
    """In lines."""
    return words.count("\n") + 1


@dataclass
class _Page:
    """Words and pictures at places in pixels, from the top left. Type grows by `unit` with the pictures, so
    that a page's width shows large and small ones alike."""

    unit: float
    width: int = 0
    height: int = 0
    words: list[tuple[float | int, float | int, str, str, str, str]] = field(default_factory=list)
    pictures: list[tuple[np.ndarray, int, int]] = field(default_factory=list)

    @property
    def gap(self) -> int:
        return round(6 * self.unit)

    def inches(self, n: float) -> int:
        return round(n * DPI * self.unit)

    def lines(self, n: float) -> int:
        return self.inches(0.15 * n)

    def say(
        self, x: float | int, y: float | int, text: str, ha: str, va: str = "center", colour: str = INK
    ) -> None:
        self.words.append((x, y, text, ha, va, colour))

    def put(self, picture: np.ndarray, x: int, y: int) -> None:
        self.pictures.append((picture, x, y))

    def drawn(self) -> np.ndarray:
        dpi = DPI * self.unit
        figure = new_figure(self.height / dpi, self.width / dpi, dpi)
        for x, y, text, ha, va, colour in self.words:
            at = x / self.width, 1 - y / self.height
            figure.text(*at, text, ha=ha, va=va, color=colour, fontsize=7.5, linespacing=1.25)
        out = pixels_of(figure)[: self.height, : self.width].copy()
        for picture, x, y in self.pictures:
            out[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
        return out


def write_panel(path: Path, pixels: np.ndarray) -> Path:
    """Writes a panel as PNG, atomically, with the mark that a model made what it shows."""
    make_folder(path.parent)
    write_png(path, pixels)
    return path
