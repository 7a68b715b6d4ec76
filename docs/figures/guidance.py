"""The figure of docs/guidance.md: `python benchmarks/guidance.py FOLDER --out guidance.json`, then
`python docs/figures/guidance.py guidance.json`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sfumato.inside.figure import INK, TEAL, UMBER, new_figure, plain, write_figure

IMAGES = Path(__file__).parents[1] / "images"
COLOURS = {"classifier": UMBER, "classifier-free": TEAL}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    found = json.loads(parser.parse_args().figures.read_text())
    figure = new_figure(2.7, dpi=110)
    by_scale, against = figure.subplots(1, 2)
    plain(by_scale, "scale", "share of the class asked for")
    plain(against, "variety within a class (real digits: 1)", "share of the class asked for")
    for name, colour in COLOURS.items():
        rows = found[name]
        right = [row["right"] for row in rows]
        by_scale.plot([row["scale"] for row in rows], right, ".-", color=colour, label=name)
        against.plot([row["variety"] for row in rows], right, ".-", color=colour)
        for row in rows[:: len(rows) - 1]:
            at = (row["variety"], row["right"])
            against.annotate(
                f"{row['scale']:g}", at, (3, -9), textcoords="offset points", fontsize=7, color=INK
            )
    by_scale.legend(frameon=False, fontsize=8, labelcolor=INK)
    write_figure(IMAGES / "guidance.png", figure)


if __name__ == "__main__":
    main()
