"""Do the emoji of a run look like what was asked for?

    python benchmarks/emoji.py runs/emoji [--clip runs/pair] [--guidance 1,2,4] [--out grid.png]
    python benchmarks/emoji.py runs/emoji --guidance 3 --package src/sfumato/data/bundled/emoji

A judge of the four drawing styles is trained on the real emoji (a minute on two cores; its own accuracy on
pictures that it has not seen is printed). Then the run draws concepts in every style by their captions, and
for each guidance the share whose style is recognised is printed: once for captions of the data, once for
concepts in a style in which the data has no picture of them. With a pair that `sfumato train-clip emoji` has
made, also how often a picture finds its own concept among those drawn, in its own style, beside the real
pictures (it is not CLIP: it knows emoji alone). The picture shows a row for each style.

`--package` writes the run's model, in half precision and with its attribution, to where it ships; the first
`--guidance` is what it is drawn with if nothing is said.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from digits import train_judge
from torch import Tensor, nn

import sfumato
from sfumato.conditions.clip import FrozenClip, SmallClip, open_clip
from sfumato.data.dataset import DataSet
from sfumato.data.prepare import prepare
from sfumato.files.pictures import grid, to_bytes, write_png
from sfumato.folders.run import open_folder, save
from sfumato.noise import permutation
from sfumato.runs import Run

STYLES = {
    "3d": "3d render emoji",
    "fluent": "fluent flat emoji",
    "noto": "noto emoji",
    "twemoji": "twemoji emoji",
}
NOTE = (
    "Trained on emoji: Fluent Emoji (c) Microsoft Corporation (MIT), Noto Emoji (c) Google Inc. "
    "(Apache-2.0), Twemoji (c) Twitter, Inc and other contributors (CC BY 4.0, "
    "https://creativecommons.org/licenses/by/4.0/); names from emojibase-data (c) Miles Johnson (MIT) and "
    "Unicode CLDR (Unicode License v3)."
)
SHOWN = 16


@dataclass(frozen=True)
class Asked:
    """Concepts in styles, and whether the data has such a picture."""

    concepts: tuple[str, ...]
    styles: tuple[int, ...]

    @property
    def prompts(self) -> list[str]:
        words = list(STYLES.values())
        return [f"{concept}, {words[style]}" for concept, style in zip(self.concepts, self.styles)]


def styled(data: DataSet) -> DataSet:
    """The emoji with their styles as classes."""
    names = tuple(STYLES)
    labels = np.array([names.index(row["style"]) for row in data.columns])
    return replace(data, labels=labels, label_names=names)


def ask(data: DataSet, concepts: int) -> tuple[Asked, Asked]:
    """Concepts that are there in all four styles, and pairs of concept and style that are not there."""
    there: dict[str, set[int]] = {}
    for row in data.columns:
        there.setdefault(row["concept"], set()).add(list(STYLES).index(row["style"]))
    order = [sorted(there)[i] for i in permutation(len(there), 0, "emoji").tolist()]
    whole = [c for c in order if len(there[c]) == len(STYLES)][:concepts]
    gaps = [(c, s) for c in order for s in range(len(STYLES)) if s not in there[c]][: concepts * len(STYLES)]
    seen = Asked(tuple(c for s in STYLES for c in whole), tuple(i for i in range(len(STYLES)) for _ in whole))
    return seen, Asked(tuple(c for c, _ in gaps), tuple(s for _, s in gaps))


def recognised(judge: nn.Module, pictures: Tensor, asked: Asked) -> list[float]:
    """For each style asked for, the share of its pictures in which the judge sees it."""
    with torch.no_grad():
        right = judge(pictures).argmax(1) == torch.tensor(asked.styles)
    which = torch.tensor(asked.styles)
    return [float(right[which == style].float().mean()) for style in range(len(STYLES))]


def recalls(pair: SmallClip | FrozenClip, pictures: Tensor, asked: Asked) -> tuple[float, float, int]:
    """The shares of pictures whose caption is the nearest and among the five nearest of its own style, and
    the captions of a style."""
    first, fifth, count = [], [], 0
    with torch.no_grad():
        seen, read = pair.see(pictures), pair.read(asked.prompts)
    for style in sorted(set(asked.styles)):
        rows = [i for i, s in enumerate(asked.styles) if s == style]
        cosines = seen[rows] @ read[rows].T
        above = (cosines > cosines.diagonal()[:, None]).sum(1)
        first.append(float((above < 1).float().mean()))
        fifth.append(float((above < 5).float().mean()))
        count = len(rows)
    return sum(first) / len(first), sum(fifth) / len(fifth), count


def real(data: DataSet, asked: Asked) -> Tensor:
    """The data's own pictures of what is asked for."""
    place = {(row["concept"], row["style"]): i for i, row in enumerate(data.columns)}
    names = list(STYLES)
    return data.images([place[c, names[s]] for c, s in zip(asked.concepts, asked.styles)])


def report(options: argparse.Namespace) -> None:
    data = prepare("emoji", hold_out=0.0)
    judge, accuracy = train_judge(styled(data), epochs=6)
    print(f"the judge knows the style of {accuracy:.2%} of the real emoji that it has not seen")
    pair = None if options.clip is None else open_clip(options.clip)
    run = sfumato.load(options.run)
    seen, gaps = ask(data, options.concepts)
    if pair is not None:
        print("real pictures: " + _recall(recalls(pair, real(data, seen), seen)))
    for guidance in options.guidance:
        pictures, unseen = draw(run, seen, guidance, options.steps), draw(run, gaps, guidance, options.steps)
        told = ", ".join(f"{n} {v:.1%}" for n, v in zip(STYLES, recognised(judge, pictures, seen)))
        more = recognised(judge, unseen, gaps)
        print(f"guidance {guidance:g}: style recognised: {told}; of pairs that are not in the data: ", end="")
        print(", ".join(f"{n} {v:.1%}" for n, v in zip(STYLES, more) if v == v))
        if pair is not None:
            print("  " + _recall(recalls(pair, pictures, seen)))
        if options.out is not None:
            place = options.out.with_stem(f"{options.out.stem}-{guidance:g}")
            sheet(pictures, options.concepts, place)


def draw(run: Run, asked: Asked, guidance: float, steps: int | None) -> Tensor:
    prompts = asked.prompts
    return run.sample(len(prompts), prompt=prompts, guidance=guidance, steps=steps, seed=10_000)


def sheet(pictures: Tensor, concepts: int, path: Path) -> None:
    """A row for each style of the first concepts."""
    count = min(SHOWN, concepts)
    rows = [pictures[i * concepts : i * concepts + count] for i in range(len(STYLES))]
    write_png(path, grid([to_bytes(picture) for row in rows for picture in row], count))


def package(run: Path, target: Path, guidance: float) -> None:
    """Writes the averaged weights in half precision; they are computed in float32 once they are read. This
    guidance is what is taken where a user says none."""
    stored = open_folder(run)
    sampler = stored.card.sampler.model_copy(update={"guidance": guidance})
    save(target, stored.model.half(), stored.card.but(note=NOTE, sampler=sampler), text=stored.text)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {size:,} bytes")


def _recall(found: tuple[float, float, int]) -> str:
    first, fifth, count = found
    return f"of {count} captions the right one is nearest for {first:.1%}, among five for {fifth:.1%}"


def _numbers(text: str) -> Sequence[float]:
    return [float(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--concepts", type=int, default=64)
    parser.add_argument("--guidance", type=_numbers, default=[1.0, 2.0, 4.0])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--package", type=Path)
    options = parser.parse_args()
    if options.package is not None:
        package(options.run, options.package, options.guidance[0])
    else:
        report(options)


if __name__ == "__main__":
    main()
