"""Do the digits of a run look like what was asked for? A classifier trained apart from it says so.

    python benchmarks/digits.py runs/digits [--per-class 100] [--sampler NAME --steps N --guidance W]

Trains a small convolutional classifier on the real bundled digits (a minute on two cores; its own accuracy on
digits it has not seen is printed), draws samples of each class from the run and prints the share that it
assigns to the class asked for.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional

import sfumato
from sfumato.data.dataset import DataSet
from sfumato.data.prepare import prepare
from sfumato.noise import generator, permutation, seeded


def network(channels: int, size: tuple[int, int], classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in [(channels, 32), (32, 64), (64, 128)]:
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
    area = (size[0] // 8) * (size[1] // 8)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * area, classes))


def shifted(x: Tensor, step: int) -> Tensor:
    """Each picture moved by up to two pixels."""
    height, width = x.shape[2:]
    moves = torch.randint(0, 5, (len(x), 2), generator=generator("judge", "shift", step)).tolist()
    padded = functional.pad(x, (2, 2, 2, 2), mode="replicate")
    moved = [p[:, a : a + height, b : b + width] for p, (a, b) in zip(padded, moves, strict=True)]
    return torch.stack(moved)


def train_judge(data: DataSet | None = None, seed: int = 0, epochs: int = 8) -> tuple[nn.Sequential, float]:
    """A classifier trained on nine tenths of the pictures (the digits), and its accuracy on the rest."""
    data = data or prepare("digits", hold_out=0.0)
    rows = range(min(len(data), 10_000))
    x, y = data.images(rows), data.take(rows).classes
    if y is None:
        raise SystemExit("the pictures need classes")
    order = permutation(len(x), seed, "judge", "split")
    train, test = order[: len(x) * 9 // 10], order[len(x) * 9 // 10 :]
    with seeded(seed, "judge"):
        net = network(data.channels, data.size, data.classes)
    steps = epochs * len(train) // 128
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for step in range(steps):
        picked = train[permutation(len(train), seed, "judge", step)[:128]]
        loss = functional.cross_entropy(net(shifted(x[picked], step)), y[picked])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        pace.step()
    net.eval()
    with torch.no_grad():
        right = (net(x[test]).argmax(1) == y[test]).float().mean()
    return net, float(right)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--sampler")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    options = parser.parse_args()
    judge, accuracy = train_judge()
    print(f"the judge knows {accuracy:.2%} of the real digits it has not seen")
    run = sfumato.load(options.run)
    asked = [c for c in range(10) for _ in range(options.per_class)]
    x = run.sample(
        len(asked),
        classes=asked,
        sampler=options.sampler,
        steps=options.steps,
        guidance=options.guidance,
        seed=10_000,
    )
    with torch.no_grad():
        said = judge(x).argmax(1)
    hit = (said == torch.tensor(asked)).float().reshape(10, -1).mean(1)
    print("by class:", " ".join(f"{c}: {v:.0%}" for c, v in enumerate(hit.tolist())))
    print(f"{float(hit.mean()):.1%} of {len(asked)} samples are of the class asked for")


if __name__ == "__main__":
    main()
