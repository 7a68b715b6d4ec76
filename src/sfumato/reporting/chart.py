"""Curves as SVG inside a page: sharp at any size, in the page's own colours by day and by night, and with
their numbers in words for those who cannot see them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

WIDTH, HEIGHT = 720, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 42
MOST = 300
"""Points of a line; longer ones are averaged in pieces."""

Number = float | int
Point = tuple[Number, Number]


@dataclass(frozen=True)
class Line:
    """A curve. colour: 0 to 3, one of the page's four. bands: low and high at each of the points."""

    name: str
    points: Sequence[Point]
    colour: int = 0
    dashed: bool = False
    marked: bool = False
    faint: bool = False
    bands: Sequence[Point] = ()


def pieces(points: Sequence[Point], most: int = MOST) -> list[Point]:
    """At most so many points: the means of pieces of equal length."""
    n = len(points)
    edges = [n * i // most for i in range(most + 1)] if n > most else list(range(n + 1))
    parts = [points[a:b] for a, b in pairwise(edges)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def chart(lines: Sequence[Line], across: str, up: str, *, log: bool = False, height: int = HEIGHT) -> Markup:
    """Lines in one frame, with a legend. across, up: what the axes show; `log`: the upper axis by powers of
    ten, where what is not above 0 is left out. An empty string where there is nothing to draw."""
    shown = [_drawable(line, log) for line in lines]
    shown = [line for line in shown if len(line.points) > 1]
    if not shown:
        return Markup("")
    xs = [x for line in shown for x, _ in line.points]
    ys = [y for line in shown for _, y in line.points]
    ys += [y for line in shown for band in line.bands for y in band if y > 0 or not log]
    marks_x, marks_y = ticks(min(xs), max(xs)), (powers if log else ticks)(min(ys), max(ys))
    low, high = min(ys + marks_y[:1]), max(ys + marks_y[-1:])
    at_x = _scale(min(xs), max(xs), LEFT, WIDTH - RIGHT, False)
    at_y = _scale(low, high, height - BOTTOM, TOP, log)
    parts = [
        f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at_y(y):.1f}" y2="{at_y(y):.1f}"/>'
        f'<text x="{LEFT - 8}" y="{at_y(y) + 4:.1f}" text-anchor="end">{number(y)}</text>'
        for y in marks_y
    ]
    parts += [
        f'<text x="{at_x(x):.1f}" y="{height - BOTTOM + 18}" text-anchor="middle">{number(x)}</text>'
        for x in marks_x
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{height - 6}" text-anchor="middle">{escape(across)}</text>')
    parts.append(
        f'<text transform="translate(13 {(height - BOTTOM + TOP) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(up)}</text>"
    )
    for line in shown:
        parts.append(_drawn(line, at_x, at_y, low))
    legend = "".join(
        f'<li class="c{line.colour}{" dashed" if line.dashed else ""}{" faint" if line.faint else ""}">'
        f"{escape(line.name)}</li>"
        for line in shown
    )
    said = escape(_words(shown, across, up))
    return Markup(  # every part is a number, or escaped above
        f'<figure class="chart"><ul class="legend">{legend}</ul>'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{said}">{"".join(parts)}</svg></figure>'
    )


def whisker(
    value: Number, low: Number | None, high: Number | None, span: Point, mark: Point | None
) -> Markup:
    """One figure as a point on a line with its interval; `mark` is the baseline's interval, a band. span: the
    axis' ends."""
    width, height = 150, 18
    at = _scale(span[0], span[1] if span[1] > span[0] else span[0] + 1, 6, width - 6, False)
    parts = [f'<line class="rule" x1="0" x2="{width}" y1="9" y2="9"/>']
    if mark is not None:
        a, b = at(mark[0]), at(mark[1])
        kind = "mark" if b > a else "mark point"
        parts.append(f'<rect class="{kind}" x="{a:.1f}" y="2" width="{max(2.0, b - a):.1f}" height="14"/>')
    if low is not None and high is not None:
        parts.append(f'<line class="bar" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="9" y2="9"/>')
    parts.append(f'<circle cx="{at(value):.1f}" cy="9" r="3.6"/>')
    return Markup(
        f'<svg class="whisker" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'aria-hidden="true">{"".join(parts)}</svg>'
    )


def ticks(low: Number, high: Number, about: int = 6) -> list[float]:
    """Round numbers between two: 1, 2 or 5 times a power of ten apart."""
    span = high - low
    if not span > 0:
        return [low]
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def powers(low: Number, high: Number) -> list[float]:
    """The powers of ten between two; also 2 and 5 times them where there are few, and every so many of them
    where there are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if high < 100 * low else (1,)
    stride = max(1, (last - first) // 6)
    marks = [f * 10.0**i for i in range(first, last + 1, stride) for f in factors]
    return [m for m in marks if low * 0.999 <= m <= high * 1.001] or [low, high]


def number(value: Number) -> str:
    """A short number for an axis: 20,000, 0.05, 1e-6."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _drawable(line: Line, log: bool) -> Line:
    """Only what is finite, and above 0 on a log axis; no more points than a page has room for."""
    fits = [i for i, (x, y) in enumerate(line.points) if math.isfinite(x + y) and (y > 0 or not log)]
    bands = [line.bands[i] for i in fits] if len(line.bands) == len(line.points) else []
    points = [line.points[i] for i in fits]
    if bands and len(points) <= MOST:
        return Line(line.name, points, line.colour, line.dashed, line.marked, line.faint, bands)
    return Line(line.name, pieces(points), line.colour, line.dashed, line.marked, line.faint)


def _scale(
    low: Number, high: Number, to_low: Number, to_high: Number, log: bool
) -> Callable[[Number], float]:
    if log:
        low, high = math.log10(low), math.log10(high)
    span = high - low or 1.0

    def at(value: Number) -> float:
        place = (math.log10(value) if log else value) - low
        return to_low + (to_high - to_low) * place / span

    return at


def _drawn(line: Line, at_x: Callable[[Number], float], at_y: Callable[[Number], float], low: Number) -> str:
    points = [(at_x(x), at_y(y)) for x, y in line.points]
    style = f"c{line.colour}{' dashed' if line.dashed else ''}{' faint' if line.faint else ''}"
    out = ""
    if line.bands:
        above = [(x, at_y(band[1])) for (x, _), band in zip(points, line.bands, strict=True)]
        below = [(x, at_y(max(low, band[0]))) for (x, _), band in zip(points, line.bands, strict=True)]
        out += f'<polygon class="band {style}" points="{_joined([*above, *below[::-1]])}"/>'
    out += f'<polyline class="line {style}" points="{_joined(points)}"/>'
    if line.marked:
        out += "".join(f'<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>' for x, y in points)
    return out


def _joined(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _words(lines: Sequence[Line], across: str, up: str) -> str:
    """The chart in a sentence."""
    said = [
        f"{line.name}: from {number(line.points[0][1])} to {number(line.points[-1][1])}, "
        f"least {number(min(y for _, y in line.points))}"
        for line in lines
    ]
    return f"{up} against {across}. {'; '.join(said)}."
