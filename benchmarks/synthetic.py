"""How much is a synthetic data set worth? A classifier trained on a run's digits, tried on real ones.

    python benchmarks/synthetic.py runs/digits [--per-class 500] [--guidance 1] [--data DIR]

Makes a balanced data set with the run (`sfumato sample --per-class --as-dataset`, resumed if DIR holds a part
of it), then trains one small convolutional classifier on it and one on as many real digits, of those that the
run was trained on. Both are tried on the digits that the run never saw; their accuracies are printed, and the
first as a share of the second, with the standard error over the test digits.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from digits import network, shifted
from torch import Tensor, nn
from torch.nn import functional

import sfumato
from sfumato.cli.dataset import balanced, write_dataset
from sfumato.data.dataset import DataSet
from sfumato.data.prepare import prepare
from sfumato.noise import permutation, seeded


def labelled(data: DataSet, rows: list[int]) -> tuple[Tensor, Tensor]:
    """Pictures and classes."""
    batch = data.take(rows)
    if batch.classes is None:
        raise SystemExit("the pictures need classes")
    return batch.images, batch.classes


def trained(x: Tensor, y: Tensor, steps: int, seed: int) -> nn.Module:
    """The judge of `digits.py`, trained on these pictures alone."""
    with seeded(seed, "synthetic"):
        net = network(x.shape[1], (x.shape[2], x.shape[3]), 10)
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for step in range(steps):
        picked = permutation(len(x), seed, "synthetic", step)[:128]
        loss = functional.cross_entropy(net(shifted(x[picked], step)), y[picked])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        pace.step()
    return net.eval()


@torch.no_grad()
def right(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Which of the pictures it knows, (N,)."""
    return (torch.cat([net(part) for part in x.split(256)]).argmax(1) == y).double()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--per-class", type=int, default=500)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    run = sfumato.load(options.run)
    classes = balanced(run.classes, options.per_class, ())
    recipe = run.recipe(
        len(classes), classes=classes, guidance=options.guidance, steps=options.steps, seed=options.seed
    )
    with tempfile.TemporaryDirectory() as scratch:
        place = write_dataset(run, recipe, options.data or Path(scratch) / "synthetic")
        made = prepare(place, hold_out=0.0)
        synthetic = labelled(made, list(range(len(made.pixels))))
    digits = prepare("digits")
    order = permutation(len(digits.train), "synthetic", "real").tolist()
    real = labelled(digits, [int(digits.train[row]) for row in order[: len(classes)]])
    x, y = labelled(digits, digits.held.tolist())
    steps = options.epochs * len(classes) // 128
    known = {
        name: torch.stack([right(trained(*data, steps, seed), x, y) for seed in range(2)]).mean(0)
        for name, data in (("real", real), ("synthetic", synthetic))
    }
    print(f"{len(classes):,} pictures each, {steps} steps of 128, two seeds; tried on {len(y)} real digits")
    for name, one in known.items():
        print(f"trained on {name} digits: {float(one.mean()):.2%} +- {float(one.std()) / len(y) ** 0.5:.2%}")
    share = known["synthetic"].mean() / known["real"].mean()
    apart = (known["synthetic"] - share * known["real"]).std() / known["real"].mean() / len(y) ** 0.5
    print(f"the synthetic ones reach {float(share):.1%} +- {float(apart):.1%} of the real ones' accuracy")


if __name__ == "__main__":
    main()
