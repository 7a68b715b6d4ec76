"""A model of unbalanced data, and what balanced sampling does about it.

    python benchmarks/balance.py runs/digits [--minutes 9 --classifier-minutes 9 -n 400 --each 30 --home DIR]

Of the digits 0 to 4 one in ten is kept, of 5 to 9 all. The run is trained on with these, told no classes, and
a classifier of noisy pictures is trained on them, each class equally often. Then digits are drawn without
asking for a class, and by `sfumato sample --class none --balanced`. What was drawn is judged by another
classifier, trained on what an extractor sees in all digits, whose errors are taken out (`evaluation.groups`).
--home: a folder where what was trained is kept and found again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from novelty import gone_on
from torch import Tensor

import sfumato
from sfumato.data.bundled import digits_path
from sfumato.data.prepare import prepare
from sfumato.evaluation.balanced import balanced
from sfumato.evaluation.features.extractor import open_extractor
from sfumato.evaluation.features.store import default_cache, features_of
from sfumato.evaluation.groups import Grouping, compare
from sfumato.evaluation.sets import PictureSet, of_dataset, of_tensor
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
    extractor, data = open_extractor(), prepare("digits")
    train, held = of_dataset(data, data.train), of_dataset(data, data.held)
    known, new = (features_of(one, extractor, cache=default_cache()).pooled for one in (train, held))
    grouping = Grouping("digit", data.label_names, torch.tensor(train.classes), torch.tensor(held.classes))

    def judged(name: str, pictures: PictureSet) -> None:
        seen = features_of(pictures, extractor, cache=default_cache()).pooled
        print(f"\n{name}")
        for line in compare(grouping, known, new, seen).lines():
            print(f"  {line}", flush=True)

    with np.load(home / "unbalanced.npz") as file:
        rare = Share(int((file["labels"] < RARE).sum()), len(file["labels"]))
    print(f"0 to 4 among the training pictures: {rare.value:.1%}, {rare.value / RARE:.1%} each")
    none = [None] * options.n
    drawn: Tensor = run.sample(classes=none, guidance=1, steps=options.steps, seed=10_000)
    judged("as drawn", of_tensor(drawn, "as drawn"))
    recipe = run.recipe(classes=[None], guidance=1, steps=options.steps, seed=50_000)
    found = balanced(run, recipe, options.each)
    for line in found.lines():
        print(line)
    judged("balanced", of_tensor(run.make(found.recipe), "balanced"))


if __name__ == "__main__":
    main()
