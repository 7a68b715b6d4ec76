"""The figures of docs/inside.md, from a run on the digits: `python docs/figures/inside.py runs/digits`."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from sfumato.cli import run as sfumato

IMAGES = Path(__file__).parents[1] / "images"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run = str(parser.parse_args().run)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        sheet = ["--sheet", str(IMAGES / "sheet.png"), "--out", str(out / "x.png")]
        drawing = ["--guidance", "1.5", "--steps", "25"]
        codes = [sfumato(["sample", run, "-n", "1", "--class", "3,7", "--seed", "4", *drawing, *sheet])]
        codes += [sfumato(["look", run, "digits", "--schedule", "--loss", "--out", str(out)])]
        drawing += ["--uncertainty", "-n", "64", "--out", str(out)]
        codes += [sfumato(["look", run, *drawing])]
        if any(codes):
            raise SystemExit(1)
        for name in ("schedule", "loss", "seeds", "way"):
            shutil.copyfile(out / f"{name}.png", IMAGES / f"look-{name}.png")


if __name__ == "__main__":
    main()
