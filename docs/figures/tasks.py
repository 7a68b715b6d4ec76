"""The pictures of runs that were trained for a task, on the digits:

    sfumato train digits --task inpaint --minutes 10 --seed 1 --out runs/mender
    sfumato train digits --task edges --minutes 6 --seed 1 --out runs/outlines
    sfumato train digits --size 16 --minutes 6 --seed 1 --out runs/small
    sfumato train digits --task upscale:2 --minutes 12 --seed 1 --out runs/upscaler
    python docs/figures/tasks.py --inpaint runs/mender --edges runs/outlines
    python docs/figures/tasks.py --cascade runs/small runs/upscaler

Each option makes one picture.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from editing import IMAGES, STEPS, box, digit_of, edit, grey, masked, saved, several, sheet

INVERSE = IMAGES.parent / "inverse"


def inpaint(run: Path, scratch: Path) -> None:
    """An eight's lower half and a three's middle, without a word about the class."""
    rows: list[list[np.ndarray]] = []
    for digit, hole in ((8, box(12, 28, 0, 28)), (3, box(0, 28, 9, 19))):
        picture, mask = saved(digit_of(digit), scratch / "picture.png"), saved(hole, scratch / "mask.png")
        words = ("inpaint", run, picture, "--mask", mask, "--class", "none")
        rows.append([digit_of(digit), masked(digit_of(digit), hole)])
        rows[-1] += several(scratch / f"inpaint-{digit}", *words, n=6)
    sheet("trained", rows)


def edges(run: Path, scratch: Path) -> None:
    """The outlines of a nought and a one, made by a formula, and six digits after each."""
    rows: list[list[np.ndarray]] = []
    for number, picture in enumerate((ring(), bar())):
        path = saved(picture, scratch / "outline.png")
        drawn = several(scratch / f"drawn-{number}", "draw", run, path, "--class", "none", n=6)
        rows.append([picture, *drawn])
    sheet("edges", rows, INVERSE)


def ring() -> np.ndarray:
    """The two outlines of a nought, as ellipses."""
    y, x = np.mgrid[:28, :28] - 13.5
    inside = [(y / (9.5 - d)) ** 2 + (x / (6.5 - d)) ** 2 <= 1 for d in (0, 1, 3, 4)]
    return (((inside[0] & ~inside[1]) | (inside[2] & ~inside[3])) * 255).astype(np.uint8)


def bar() -> np.ndarray:
    """The outline of a one."""
    outline = box(4, 24, 12, 16)
    outline[5:23, 13:15] = 0
    return outline


def cascade(small: Path, upscaler: Path, scratch: Path) -> None:
    """A digit of each class at 16 pixels, and the same at 32."""
    folder = scratch / "cascade"
    words = [word for digit in range(10) for word in ("--class", digit)]
    edit("cascade", small, upscaler, *words, "--out", folder, *STEPS)
    before, after = (sorted(place.glob("*.png")) for place in (folder / "small", folder))
    twice = [grey(path).repeat(2, 0).repeat(2, 1) for path in before]
    sheet("cascade", [twice, [grey(path) for path in after]], INVERSE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inpaint", type=Path)
    parser.add_argument("--edges", type=Path)
    parser.add_argument("--cascade", type=Path, nargs=2, metavar=("SMALL", "UPSCALER"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if options.inpaint is not None:
            inpaint(options.inpaint, scratch)
        if options.edges is not None:
            edges(options.edges, scratch)
        if options.cascade is not None:
            small, upscaler = options.cascade
            cascade(small, upscaler, scratch)


if __name__ == "__main__":
    main()
