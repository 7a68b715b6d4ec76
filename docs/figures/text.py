"""The picture of docs/text.md and the README: what the model that ships draws of eight names, a row for each
drawing style; the seeds are 0 and on.

    python docs/figures/text.py [RUN]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import sfumato
from sfumato.files.pictures import grid, to_bytes, write_png

IMAGES = Path(__file__).parents[1] / "images"
STYLES = ("3d render emoji", "fluent flat emoji", "noto emoji", "twemoji emoji")
NAMES = (
    "red heart",
    "blue heart",
    "yellow circle",
    "purple square",
    "angry face",
    "crying face",
    "new moon",
    "ambulance",
)
ENLARGED = 2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", nargs="?", default="emoji")
    run = sfumato.load(parser.parse_args().run)
    prompts = [f"{name}, {style}" for style in STYLES for name in NAMES]
    drawn = [to_bytes(picture) for picture in run.sample(len(prompts), prompt=prompts)]
    large = [picture.repeat(ENLARGED, 0).repeat(ENLARGED, 1) for picture in drawn]
    write_png(IMAGES / "emoji.png", grid(large, len(NAMES)))


if __name__ == "__main__":
    main()
