"""A model of unbalanced data, and what balanced sampling does about it.

    python benchmarks/balance.py runs/digits [--minutes 9 --classifier-minutes 9 -n 400 --each 30 --home DIR]

Of the digits 0 to 4 one in ten is kept, of 5 to 9 all. The run is trained on with these, told no classes, and
a classifier of noisy pictures is trained on them, each class equally often. Then digits are drawn without
asking for a class, and by `sfumato sample --class none --balanced`. What was drawn is judged by another
classifier, trained apart on all digits (`benchmarks/digits.py`): the share of each digit, and the total
variation from a tenth each, beside that of as many pictures of perfect balance.
--home: a folder where what was trained is kept and found again.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from digits import train_judge
from novelty import gone_on
from torch import Tensor

import sfumato
from sfumato.data.bundled import digits_path
from sfumato.evaluation.balanced import balanced
from sfumato.evaluation.shares import Share
from sfumato.noise import permutation

RARE = 5


def unbalanced(path: Path) -> None:
    """Digits of which 0 to 4 are rare, as an .npz file, and beside it the same without their classes."""
    with np.load(digits_path()) as held:
        images, labels = held["images"], held["labels"]
    rows = permutation(len(labels), "balance").numpy()
    rare = labels[rows] < RARE
    kept = np.concatenate([rows[~rare], rows[rare][: rare.sum() // 10]])
    np.savez(path, images=images[kept], labels=labels[kept])
    np.savez(path.with_name(f"plain-{path.name}"), images=images[kept])


def prepared(run: Path, home: Path, minutes: float, classifier_minutes: float) -> Path:
    """The run trained on with unbalanced digits, and its classifier."""
    data, out = home / "unbalanced.npz", home / "run"
    if not data.exists():
        unbalanced(data)
    if not out.exists():
        gone_on(run, home / "plain-unbalanced.npz", out, minutes, batch=32, lr=1e-3)
    if not (out / "classifier").exists():
        words = ["train-classifier", str(out), str(data), "--balance", "0"]
        words += ["--minutes", str(classifier_minutes)]
        subprocess.run([sys.executable, "-m", "sfumato", *words], check=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--classifier-minutes", type=float, default=9.0)
    parser.add_argument("-n", type=int, default=400)
    parser.add_argument("--each", type=int, default=30)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--home", type=Path)
    options = parser.parse_args()
    home: Path = options.home or Path(tempfile.mkdtemp())
    home.mkdir(parents=True, exist_ok=True)
    run = sfumato.load(prepared(options.run, home, options.minutes, options.classifier_minutes))
    judge, accuracy = train_judge()
    print(f"the judge knows {accuracy:.2%} of the real digits that it has not seen")

    def judged(name: str, pictures: Tensor) -> None:
        with torch.no_grad():
            found = torch.cat([judge(part).argmax(1) for part in pictures.split(256)]).bincount(minlength=10)
        n = len(pictures)
        variation = float((found / n - 0.1).abs().sum()) / 2
        by_chance = 5 * math.sqrt(2 / math.pi * 0.1 * 0.9 / n)  # ten shares' mean absolute errors, halved
        print(f"\n{name}: total variation {variation:.3f} from a tenth each, by chance about {by_chance:.3f}")
        print(f"  0 to 4 together: {Share(int(found[:RARE].sum()), n)}")
        for digit, count in enumerate(found.tolist()):
            print(f"  {digit}: {Share(count, n)}", flush=True)

    with np.load(home / "unbalanced.npz") as file:
        rare = Share(int((file["labels"] < RARE).sum()), len(file["labels"]))
    print(f"0 to 4 among the training pictures: {rare.value:.1%}, {rare.value / RARE:.1%} each")
    none = [None] * options.n
    drawn: Tensor = run.sample(classes=none, guidance=1, steps=options.steps, seed=10_000)
    judged("as drawn", drawn)
    recipe = run.recipe(classes=[None], guidance=1, steps=options.steps, seed=50_000)
    found = balanced(run, recipe, options.each)
    for line in found.lines():
        print(line)
    judged("balanced", run.make(found.recipe))


if __name__ == "__main__":
    main()
