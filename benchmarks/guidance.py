"""What guidance buys and what it costs, on the digits: the class that was asked for, against variety.

    python benchmarks/guidance.py FOLDER [--minutes 3] [--per-class 30] [--out guidance.json]

Trains, in FOLDER, what is not there yet: a run on the digits without their classes (`plain`) with a
noise-aware classifier, and a run with classes (`told`). Draws each class at many scales, from the same
noise, with the classifier on the one and classifier-free guidance on the other. A judge that neither has
seen (`benchmarks/digits.py`) says what share is of the class asked for. Variety is the mean distance of two
pictures of one class in the judge's features, as a share of that of real digits; the figure of the pictures
themselves, in pixels, stands beside it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from digits import train_judge
from torch import Tensor, nn

from sfumato import cli
from sfumato.data.bundled import digits_path
from sfumato.data.prepare import prepare
from sfumato.runs import Run, load

CLASSIFIER = (0.0, 1.0, 2.0, 4.0, 8.0)
FREE = (1.0, 2.0, 4.0, 8.0)
SEED = 20_000


def ready(folder: Path, minutes: float) -> tuple[Run, Run]:
    """The two runs, trained if they are not there."""
    plain, told = folder / "plain", folder / "told"
    if not plain.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pictures = np.load(digits_path(), allow_pickle=False)["images"]
        np.savez_compressed(folder / "unlabelled.npz", images=pictures)
        command("train", folder / "unlabelled.npz", "--out", plain, "--minutes", minutes)
    if not (plain / "classifier").exists():
        command("train-classifier", plain, "digits", "--minutes", minutes / 2)
    if not told.exists():
        command("train", "digits", "--out", told, "--minutes", minutes)
    return load(plain), load(told)


def command(*words: object) -> None:
    if cli.run([str(word) for word in words]):
        raise SystemExit(1)


def spread(features: Tensor) -> float:
    """The mean distance of two of them, (classes, n, F), within classes."""
    n = features.shape[1]
    return float(torch.cdist(features, features).sum((1, 2)).mean() / (n * (n - 1)))


def real(judge: nn.Sequential, each: int) -> tuple[float, float]:
    """The spread of real digits, in features and in pixels."""
    data = prepare("digits", hold_out=0.0)
    assert data.labels is not None
    rows = np.concatenate([np.flatnonzero(data.labels == c)[:each] for c in range(10)])
    x = data.images(rows)
    with torch.no_grad():
        features = judge[:-1](x)
    return spread(features.reshape(10, each, -1)), spread(x.reshape(10, each, -1))


def measured(
    run: Run, judge: nn.Sequential, each: int, real: tuple[float, float], how: dict[str, Any]
) -> dict[str, float]:
    """The share of the class asked for, and the variety within classes, in features and in pixels."""
    asked = [c for c in range(10) for _ in range(each)]
    unguided = not run.classes and not how["classifier_guidance"]
    x = run.sample(len(asked), classes=None if unguided else asked, seed=SEED, **how)
    with torch.no_grad():
        features = judge[:-1](x)
        right = float((judge[-1:](features).argmax(1) == torch.tensor(asked)).float().mean())
    return {
        "right": right,
        "variety": spread(features.reshape(10, each, -1)) / real[0],
        "pixels": spread(x.reshape(10, each, -1)) / real[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--per-class", type=int, default=30)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    plain, told = ready(options.folder, options.minutes)
    judge, accuracy = train_judge()
    print(f"the judge knows {accuracy:.2%} of the real digits it has not seen")
    natural = real(judge, options.per_class)
    found: dict[str, list[dict[str, float]]] = {"classifier": [], "classifier-free": []}
    for name, run, scales, option in (
        ("classifier", plain, CLASSIFIER, "classifier_guidance"),
        ("classifier-free", told, FREE, "guidance"),
    ):
        print(f"\n{name} guidance: the class asked for, variety in features, in pixels")
        for scale in scales:
            figures = measured(
                run, judge, options.per_class, natural, {"steps": options.steps, option: scale}
            )
            found[name].append({"scale": scale, **figures})
            print(
                f"  scale {scale:4g}  {figures['right']:6.1%}  {figures['variety']:5.2f}  "
                f"{figures['pixels']:5.2f}",
                flush=True,
            )
    if options.out is not None:
        options.out.write_text(json.dumps({"pictures": 10 * options.per_class, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
