"""The figure of docs/samplers.md: `python benchmarks/accuracy.py --out accuracy.json`, then
`python docs/figures/accuracy.py accuracy.json`."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from matplotlib.axes import Axes

from sfumato.inside.figure import FAINT, INK, OCHRE, PLUM, TEAL, UMBER, new_figure, plain, write_figure

IMAGES = Path(__file__).parents[1] / "images"
TITLES = {
    "gmm2d": "8 components in 2 dimensions",
    "gmm64d": "10 in 64 dimensions",
    "gmm8d": "5 in 8 dimensions, held back",
}
DEFAULTS = {
    "DPM++ 2M, diffusers' default": ("DPM++ 2M diffusers DPMSolverMultistepScheduler linspace", TEAL),
    "DPM++ 2M Karras": ("DPM++ 2M k-diffusion sample_dpmpp_2m karras", PLUM),
    "DDIM, diffusers' default": ("DDIM diffusers DDIMScheduler leading", OCHRE),
}
"""What people use, by the names of the benchmark's rows."""


def draw(axes: Axes, rows: list[dict[str, object]], problem: str, figure: str) -> None:
    """Errors against evaluations: every peer's setting, the best of them all, three in use, and vab."""
    here = [r for r in rows if r["problem"] == problem]
    lines: dict[str, list[tuple[int, float]]] = {}
    for r in here:
        if math.isfinite(float(str(r[figure]))):
            lines.setdefault(f"{r['who']} {r['family']} {r['variant']}", []).append(
                (int(str(r["evaluations"])), float(str(r[figure])))
            )
    best: dict[int, float] = {}
    for name, points in lines.items():
        if name.startswith("peers"):
            axes.plot(*zip(*points), color=FAINT, linewidth=0.5, alpha=0.35)
            for n, value in points:
                best[n] = min(value, best.get(n, math.inf))
    for label, (name, colour) in DEFAULTS.items():
        if f"peers {name}" in lines:
            axes.plot(*zip(*lines[f"peers {name}"]), color=colour, linewidth=1.2, label=label)
    axes.plot(
        *zip(*sorted(best.items())),
        color=INK,
        linewidth=1.2,
        linestyle=(0, (4, 2)),
        label="the best of all peers",
    )
    axes.plot(*zip(*lines["sfumato recommended vab"]), color=UMBER, linewidth=2.2, label="vab")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.set_ylim(top=1.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    rows = json.loads(parser.parse_args().rows.read_text())
    problems = [p for p in TITLES if any(r["problem"] == p for r in rows)]
    figure = new_figure(4.9, dpi=110)
    grid = figure.subplots(2, len(problems), sharex=True, squeeze=False)
    for k, problem in enumerate(problems):
        for i, (kind, words) in enumerate((("rms", "error, root mean square"), ("median", "error, median"))):
            axes = plain(grid[i, k], "evaluations" if i else "", "" if k else words)
            draw(axes, rows, problem, kind)
        grid[0, k].set_title(TITLES[problem], fontsize=9, color=INK)
    handles = grid[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=5, frameon=False, fontsize=7.5, labelcolor=INK)
    write_figure(IMAGES / "accuracy.png", figure)


if __name__ == "__main__":
    main()
