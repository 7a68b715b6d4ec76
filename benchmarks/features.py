"""What the built-in extractor sees, and what looking costs: its two sizes, on the bundled digits and emoji.

    python benchmarks/features.py            # about 3 minutes of one core
    python benchmarks/features.py -n 200     # fewer pictures

For each: milliseconds of processor time a picture, and how often the nearest of 2 n / 3 pictures by features
is of a picture's own kind (digits: the class; emoji: group, drawing style), against chance by the commonest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sfumato.data.dataset import DataSet
from sfumato.data.prepare import prepare
from sfumato.evaluation.features.extractor import open_extractor
from sfumato.evaluation.features.lite0 import SIDES
from sfumato.evaluation.features.store import features_of
from sfumato.evaluation.sets import of_dataset
from sfumato.noise import permutation


def nearest(features: Tensor, kinds: Sequence[object]) -> tuple[float, float]:
    """Shares of the last third: its nearest among the others is of its kind; it is of the commonest kind."""
    names, numbers = np.unique([str(kind) for kind in kinds], return_inverse=True)
    cut = 2 * len(numbers) // 3
    found = torch.cdist(features[cut:], features[:cut]).argmin(1).numpy()
    common = np.bincount(numbers[:cut], minlength=len(names)).argmax()
    return float((numbers[found] == numbers[cut:]).mean()), float((numbers[cut:] == common).mean())


def kinds_of(data: DataSet, rows: np.ndarray) -> dict[str, Sequence[object]]:
    """What is known of these pictures, by name."""
    if data.labels is not None:
        return {"class": data.labels[rows].tolist()}
    columns = data.columns_of(rows)
    return {name: [column[name] for column in columns] for name in ("group", "style")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-n", type=int, default=600, help="pictures of each data set")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in SIDES:
        extractor = open_extractor(name)
        for source in ("digits", "emoji"):
            data = prepare(source)
            rows = permutation(len(data.pixels), 0, "features")[: asked.n].numpy()
            pictures = of_dataset(data, rows)
            start = time.process_time()
            seen = features_of(pictures, extractor).pooled
            cost = 1000 * (time.process_time() - start) / len(rows)
            for what, kinds in kinds_of(data, rows).items():
                right, chance = nearest(seen, kinds)
                print(
                    f"{name:<10} {source:<7} {cost:5.1f} ms  {what:<6} {right:.1%} (chance {chance:.1%})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
