"""The pictures of docs/attributes.md: `python docs/figures/attributes.py runs/digits [--emoji emoji]`.

Every picture is made by the commands that the page shows.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from editing import edit, saved
from sfumato.data.bundled import digits_path, emoji_path
from sfumato.data.decode import decode

IMAGES = Path(__file__).parents[1] / "images" / "attributes"
GAP = 3
STYLES = ("noto", "fluent flat", "3d render", "twemoji")


def pixels(path: Path) -> np.ndarray:
    """(H, W, C)"""
    return decode(path).array


def cells(sheet: np.ndarray, side: int) -> list[list[np.ndarray]]:
    """The pictures of a grid that sfumato wrote, row by row."""
    step = side + 2
    rows, columns = ((n + 2) // step for n in sheet.shape[:2])
    return [[sheet[y * step :, x * step :][:side, :side] for x in range(columns)] for y in range(rows)]


def show(name: str, rows: Sequence[Sequence[np.ndarray]], enlarged: int = 2) -> None:
    """Rows of pictures of one size, enlarged, on white."""
    side, channels = rows[0][0].shape[0], rows[0][0].shape[2]
    wide = max(len(row) for row in rows)
    step = side + GAP
    whole = np.full((len(rows) * step + GAP, wide * step + GAP, channels), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = GAP + i * step, GAP + j * step
            whole[top : top + side, left : left + side] = picture
    big = whole.repeat(enlarged, 0).repeat(enlarged, 1)
    IMAGES.mkdir(parents=True, exist_ok=True)
    target = IMAGES / f"{name}.png"
    Image.fromarray(big[..., 0] if channels == 1 else big).save(target, optimize=True)
    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


def inversion(run: Path, scratch: Path, files: Sequence[Path]) -> None:
    """Real, made again after plain inversion, made again after the exact one."""
    rows: list[list[np.ndarray]] = [[pixels(path) for path in files]]
    for looks in (1, 30):
        row: list[np.ndarray] = []
        for path in files:
            out, more = scratch / f"{path.stem}-{looks}.png", ["--guidance", 3, "--steps", 20]
            edit("invert", run, path, "--class", path.stem[-1], *more, "--looks", looks, "--out", out)
            row.append(pixels(out))
        rows.append(row)
    show("invert", rows)


def ways(run: Path, scratch: Path, files: Sequence[Path]) -> None:
    out = scratch / "way.png"
    three = [path for path in files if path.stem.endswith("-3")]
    edit("interpolate", run, *three[:2], "--class", 3, "--guidance", 2, "--frames", 10, "--out", out)
    rows = cells(pixels(out), 28)
    more = ["--guidance", 2, "--class", 3, "--to-class", 8, "--seed", 5, "--frames", 10]
    edit("interpolate", run, *more, "--out", scratch / "to.png")
    rows += cells(pixels(scratch / "to.png"), 28)
    show("ways", rows)
    out, more = scratch / "sheet.png", ["--guidance", 2, "--class", 2, "--seeds", "1,2,3,4"]
    edit("interpolate", run, *more, "--sheet", "--frames", 7, "--out", out)
    show("sheet", cells(pixels(out), 28))


def film(run: Path, scratch: Path) -> None:
    """From one prompt to another with the seed kept: as a row, and as a film."""
    said = ["--prompt", "angry face, noto emoji", "--to-prompt", "red heart, noto emoji", "--seed", 5]
    row = scratch / "row.png"
    edit("interpolate", run, *said, "--frames", 12, "--out", row)
    show("words-way", cells(pixels(row), 32))
    target = IMAGES / "way.webp"
    edit("interpolate", run, *said, "--frames", 24, "--film", target, "--out", row)
    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


def variations(run: Path, scratch: Path) -> None:
    rows: list[list[np.ndarray]] = []
    for angle in (0.2, 0.4, 0.8):
        out = scratch / f"near-{round(10 * angle)}"
        edit("vary", run, "--of", 3, "--class", 5, "--angle", angle, "-n", 9, "--out", out)
        rows.append([pixels(path) for path in sorted(out.iterdir())])
    show("vary", rows)


def changes(run: Path, scratch: Path, files: Sequence[Path]) -> None:
    rows: list[list[np.ndarray]] = []
    for path in files[:4]:
        out = scratch / f"change-{path.stem}"
        edit(
            "change",
            run,
            path,
            "--was-class",
            path.stem.split("-")[1],
            "--class",
            "all",
            "--guidance",
            3,
            "--out",
            out,
        )
        rows.append([pixels(path), *(pixels(one) for one in sorted(out.iterdir(), key=lambda p: p.stem[-1]))])
    show("change", rows)


def sliders(run: Path, scratch: Path) -> None:
    for space in ("features", "noise"):
        file = scratch / f"{space}.safetensors"
        more = ["--class", 3, "--guidance", 1, "--seed", 5, "--steps", 25, "--file", file]
        edit("directions", run, "--space", space, "--count", 4, *more, "--out", scratch / f"{space}.png")
        amounts = "-8,-4,0,4,8" if space == "features" else "-2,-1,0,1,2"
        slid = scratch / f"slid-{space}.png"
        edit("slide", run, "--direction", "1,2,3,4", f"--amounts={amounts}", *more, "--out", slid)
        show(f"slide-{space}", cells(pixels(slid), 28))


def words(run: Path, scratch: Path) -> None:
    """Each row a real emoji, then what its words are changed to, with more and more kept of the old one."""
    ways = {
        "red heart": (
            ("blue heart",),
            ("blue heart", "--keep-words", 0.8),
            ("black heart", "--keep-words", 0.8),
        ),
        "crying face": (
            ("angry face",),
            ("angry face", "--keep-words", 0.8),
            ("angry face", "--keep-rest", 0.3),
        ),
    }
    with np.load(emoji_path()) as held:
        images, captions = held["images"], held["captions"].tolist()
    rows: list[list[np.ndarray]] = []
    for word, changes in ways.items():
        was = f"{word}, 3d render emoji"
        path = saved(images[captions.index(was)], scratch / f"{word}.png")
        row = [pixels(path)]
        for i, (now, *more) in enumerate(changes):
            out = scratch / f"{word}-{i}.png"
            said = ["--was-prompt", was, "--prompt", f"{now}, 3d render emoji"]
            edit("change", run, path, *said, *more, "--out", out)
            row.append(pixels(out))
        rows.append(row)
    show("words", rows, 3)


def half(run: Path, scratch: Path) -> None:
    """A real yellow heart, and its right half replaced by that of a red one, three times."""
    with np.load(emoji_path()) as held:
        images, captions = held["images"], held["captions"].tolist()
    heart = saved(images[captions.index("yellow heart, 3d render emoji")], scratch / "yellow.png")
    right = np.zeros((32, 32), np.uint8)
    right[:, 16:] = 255
    mask, out = saved(right, scratch / "right.png"), scratch / "half"
    edit(
        "replace", run, heart, "--mask", mask, "--prompt", "red heart, 3d render emoji", "-n", 3, "--out", out
    )
    show("half", [[pixels(heart), *(pixels(path) for path in sorted(out.iterdir()))]], 3)


def styles(run: Path, scratch: Path, names: Sequence[str]) -> None:
    """The same emoji in the four drawing styles: each column is made from the first picture alone."""
    with np.load(emoji_path()) as held:
        images, captions = held["images"], held["captions"].tolist()
    rows: list[list[np.ndarray]] = []
    for word in names:
        was = f"{word}, noto emoji"
        path = saved(images[captions.index(was)], scratch / f"{word}.png")
        row = [pixels(path)]
        for style in STYLES:
            out = scratch / f"{word}-{style}.png"
            said = [
                "--was-prompt",
                was,
                "--prompt",
                f"{word}, {style} emoji",
                "--structure",
                8,
                "--until",
                0.3,
            ]
            edit("style", run, path, *said, "--out", out)
            row.append(pixels(out))
        rows.append(row)
    show("style", rows, 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--emoji", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        with np.load(digits_path()) as held:
            images, labels = held["images"], held["labels"]
        rows = [0, 1, 2, 3, 4, 7, *[i for i in range(8, 200) if labels[i] == 3][:1]]
        files = [saved(images[i], scratch / f"{i}-{labels[i]}.png") for i in rows]
        inversion(options.run, scratch, files)
        ways(options.run, scratch, files)
        variations(options.run, scratch)
        changes(options.run, scratch, files)
        sliders(options.run, scratch)
        if options.emoji is not None:
            film(options.emoji, scratch)
            words(options.emoji, scratch)
            half(options.emoji, scratch)
            styles(
                options.emoji, scratch, ("red heart", "tulip", "angry face", "full moon face", "automobile")
            )


if __name__ == "__main__":
    main()
