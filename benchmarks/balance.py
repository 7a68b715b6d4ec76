"""A model of unbalanced data, and what balanced sampling does about it.

    python benchmarks/balance.py [--minutes 5 --classifier-minutes 2 -n 1000 --each 50 --home FOLDER]

Of the digits 0 to 4 one in ten is kept, of 5 to 9 all. Three ways to draw digits without asking for a class:
a run trained on these data that is told no classes; the same with `sfumato sample --balanced`, by a
classifier that was trained on the same data; and another run trained with `--balance 0`. What was drawn is
judged by a classifier of its own, trained on all digits, whose errors are taken out of the shares. --home: a
folder where what was trained is kept and found again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from digits import train_judge
from torch import Tensor, nn

import sfumato
from sfumato.data.bundled import digits_path
from sfumato.data.prepare import prepare
from sfumato.evaluation.balanced import balanced
from sfumato.evaluation.judge import confusion, corrected
from sfumato.evaluation.shares import Share
from sfumato.noise import permutation

RARE = 5


def unbalanced(path: Path) -> None:
    """Digits of which 0 to 4 are rare, as an .npz file."""
    with np.load(digits_path()) as held:
        images, labels = held["images"], held["labels"]
    rows = permutation(len(labels), "balance").numpy()
    rare = labels[rows] < RARE
    kept = np.concatenate([rows[~rare], rows[rare][: rare.sum() // 10]])
    np.savez(path, images=images[kept], labels=labels[kept])


def command(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "sfumato", *map(str, words)], check=True)


@torch.no_grad()
def judged(net: nn.Module, pictures: Tensor) -> Tensor:
    return torch.cat([net(part) for part in pictures.split(256)]).argmax(1)


def row(name: str, classes: Tensor, errors: Tensor) -> None:
    """Shares of 0 .. 4 together with their interval, of each class, and the distance from equal ones."""
    counts = torch.bincount(classes, minlength=10)
    shares = corrected(counts, errors)
    rare = Share(int(counts[:RARE].sum()), int(counts.sum()))
    each = ", ".join(f"{100 * float(share):.1f}" for share in shares)
    distance = float((shares - 0.1).abs().sum() / 2)
    print(f"| {name} | {rare} | {each} | {distance:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--classifier-minutes", type=float, default=2.0)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--each", type=int, default=50)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--home", type=Path)
    options = parser.parse_args()
    home: Path = options.home or Path(tempfile.mkdtemp())
    home.mkdir(parents=True, exist_ok=True)
    data, plain, even = home / "unbalanced.npz", home / "plain", home / "even"
    if not data.exists():
        unbalanced(data)
    for run, words in ((plain, ()), (even, ("--balance", 0))):
        length = ("--minutes", options.minutes, "--sample-share", 0)
        command("train", data, "--out", run, "--no-classes", *length, *words)
    if not (plain / "classifier").exists():
        command("train-classifier", plain, data, "--minutes", options.classifier_minutes)
    net, accuracy = train_judge()
    digits = prepare("digits", hold_out=0.0)
    test = permutation(len(digits), 0, "judge", "split")[len(digits) * 9 // 10 :].numpy()
    batch = digits.take(test)
    assert batch.classes is not None
    errors = confusion(batch.classes, judged(net, batch.images), 10)
    print(f"the judge knows {accuracy:.2%} of the real digits it has not seen\n")
    print("| | share of 0 to 4 | of each, % | distance from equal |\n|---|---|---|---|")
    row("training data", torch.from_numpy(np.load(data)["labels"].astype(np.int64)), torch.eye(10).double())
    drawn = {"samples": plain, "samples of a run trained with `--balance 0`": even}
    for name, run in drawn.items():
        row(name, judged(net, sfumato.load(run).sample(options.n, steps=options.steps, seed=10_000)), errors)
    run = sfumato.load(plain)
    found = balanced(run, run.recipe(1, steps=options.steps, seed=50_000), options.each)
    said = judged(net, run.make(found.recipe))
    row("`--balanced`", said, errors)
    right = Share(int((said == torch.tensor(found.classes)).sum()), len(said))
    print(f"\nof the balanced ones the judge agrees about {right}")
    for line in found.lines():
        print(line)


if __name__ == "__main__":
    main()
