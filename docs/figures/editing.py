"""The pictures of docs/editing.md, from a run on the digits: `python docs/figures/editing.py runs/digits`.

Every picture is made by the commands that the page shows.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sfumato.cli import run as sfumato
from sfumato.data.bundled import digits_path
from sfumato.data.decode import decode

IMAGES = Path(__file__).parents[1] / "images" / "editing"
ENLARGED, GAP = 3, 4
STEPS = ("--steps", "25")


def edit(*words: object) -> None:
    """Runs `sfumato edit`, or ends the script."""
    if sfumato(["edit", *(str(word) for word in words)]):
        raise SystemExit(1)


def grey(path: Path) -> np.ndarray:
    return decode(path).array[..., 0]


def sheet(name: str, rows: Sequence[Sequence[np.ndarray]], folder: Path = IMAGES) -> None:
    """Rows of grey pictures, enlarged, on white."""
    height = max(p.shape[0] for row in rows for p in row)
    wide = max(sum(p.shape[1] + GAP for p in row) for row in rows) + GAP
    whole = np.full((len(rows) * (height + GAP) + GAP, wide), 255, np.uint8)
    for i, row in enumerate(rows):
        left = GAP
        for p in row:
            top = GAP + i * (height + GAP)
            whole[top : top + p.shape[0], left : left + p.shape[1]] = p
            left += p.shape[1] + GAP
    image = Image.fromarray(whole)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.png"
    image.resize((wide * ENLARGED, whole.shape[0] * ENLARGED), Image.Resampling.NEAREST).save(
        target, optimize=True
    )
    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


def saved(array: np.ndarray, path: Path) -> Path:
    Image.fromarray(array).save(path)
    return path


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros((28, 28), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def masked(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with its mask in grey."""
    weight = mask / 255.0
    return (picture * (1 - weight) + 128 * weight).astype(np.uint8)


def several(folder: Path, *words: object, n: int = 5) -> list[np.ndarray]:
    edit(*words, "-n", n, "--out", folder, *STEPS)
    return [grey(path) for path in sorted(folder.iterdir())]


def img2img(run: Path, scratch: Path, three: Path) -> None:
    rows: list[list[np.ndarray]] = []
    for digit in ("3", "5"):
        row = [grey(three)]
        for strength in (0.2, 0.4, 0.6, 0.8, 1.0):
            out = scratch / "out.png"
            edit("img2img", run, three, "--strength", strength, "--class", digit, "--out", out, *STEPS)
            row.append(grey(out))
        rows.append(row)
    sheet("img2img", rows)


def inpaint(run: Path, scratch: Path, picture: Path, digit: str) -> None:
    mask = saved(box(12, 28, 0, 28), scratch / "mask.png")
    first = ("inpaint", run, picture, "--mask", mask)
    rows: list[list[np.ndarray]] = []
    for name, words in {"class": ("--class", digit), "none": ("--class", "none")}.items():
        row = [grey(picture), masked(grey(picture), grey(mask))]
        row += several(scratch / f"inpaint-{name}", *first, *words)
        edit(*first, *words, "--ensemble", 64, "--out", scratch / "e.png", *STEPS)
        rows.append([*row, grey(scratch / "e-mean.png"), grey(scratch / "e-deviation.png")])
    sheet("inpaint", rows)


def soft(run: Path, scratch: Path, picture: Path, digit: str) -> None:
    ramp = np.broadcast_to(np.linspace(255, 0, 28).astype(np.uint8), (28, 28)).copy()
    mask = saved(ramp, scratch / "soft.png")
    results = several(scratch / "soft", "inpaint", run, picture, "--mask", mask, "--class", digit, n=5)
    sheet("soft", [[grey(picture), ramp, *results]])


def outpaint(run: Path, scratch: Path, picture: Path, digit: str) -> None:
    half = saved(grey(picture)[:, :14], scratch / "half.png")
    more = several(scratch / "half", "outpaint", run, half, "--right", 14, "--class", digit)
    wide = scratch / "wide.png"
    edit("outpaint", run, picture, "--left", 28, "--right", 28, "--class", digit, "--out", wide, *STEPS)
    sheet("outpaint", [[grey(half), *more], [grey(picture), grey(wide)]])


def restore(run: Path, scratch: Path, picture: Path) -> None:
    clean = grey(picture)
    draws = np.random.default_rng(1)
    torn = np.dstack([clean, np.full_like(clean, 255)])
    torn[5:8, :, 1], torn[:, 17:19, 1] = 0, 0
    scratched = saved(torn, scratch / "scratched.png")
    blocks = np.dstack([clean, np.full_like(clean, 255)])
    for y, x in draws.integers(0, 23, (8, 2)):
        blocks[y : y + 5, x : x + 5, 1] = 0
    holes = saved(blocks, scratch / "holes.png")
    wrong = clean.astype(float) + 0.2 * 255 * draws.standard_normal(clean.shape)
    noisy = saved(wrong.clip(0, 255).astype(np.uint8), scratch / "noisy.png")
    over = lambda p: np.where(p[..., 1] == 0, 128, p[..., 0]).astype(np.uint8)
    rows: list[list[np.ndarray]] = []
    for name, before, words in (
        ("scratched", over(torn), (scratched, "--missing", "transparent")),
        ("holes", over(blocks), (holes, "--missing", "transparent")),
        ("noisy", grey(noisy), (noisy, "--noise", 0.2, "--eta", 1)),
    ):
        rows.append([clean, before, *several(scratch / name, "restore", run, *words, "--class", "none", n=4)])
    sheet("restore", rows)


def objects(run: Path, scratch: Path) -> None:
    """Two digits on one picture of 28 x 56: one is taken away, or another one is put in its place."""
    two = np.concatenate([digit_of(4), digit_of(7)], axis=1)
    picture = saved(two, scratch / "two.png")
    mask = np.zeros_like(two)
    mask[:, 30:56] = 255
    where = saved(mask, scratch / "second.png")
    rows = [[two, masked(two, mask)]]
    for digit in ("2", "8"):
        out = scratch / "out.png"
        words = ("--mask", where, "--crop", "--class", digit, "--out", out, *STEPS)
        edit("replace", run, picture, *words)
        rows[-1].append(grey(out))
    sheet("replace", rows)
    blotted = digit_of(9).copy()
    blot = (np.arange(28)[:, None] - 21) ** 2 + (np.arange(28) - 12) ** 2 <= 16
    blotted[blot] = 230
    picture = saved(blotted, scratch / "blotted.png")
    mask = (blot * 255).astype(np.uint8)
    where = saved(mask, scratch / "blot.png")
    results = several(scratch / "removed", "remove", run, picture, "--mask", where)
    sheet("remove", [[blotted, masked(blotted, mask), *results]])


def digit_of(number: int, place: int = 3) -> np.ndarray:
    """One of the bundled digits, grey."""
    with np.load(digits_path()) as stored:
        where = np.flatnonzero(stored["labels"] == number)[place]
        return stored["images"][where]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        three = saved(digit_of(3), scratch / "three.png")
        eight = saved(digit_of(8), scratch / "eight.png")
        img2img(run, scratch, three)
        inpaint(run, scratch, eight, "8")
        soft(run, scratch, eight, "3")
        outpaint(run, scratch, eight, "8")
        restore(run, scratch, eight)
        objects(run, scratch)


if __name__ == "__main__":
    main()
