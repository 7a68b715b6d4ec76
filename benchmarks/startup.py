"""What waits before anything happens, and whether data keeps up: import, --help, and pictures a second from
the cache.

    python benchmarks/startup.py

`import sfumato` is paired with `import torch`, each in a fresh process, in turn; medians of seven. Batches of
64 are read from the decoded cache of the bundled digits and of 2,000 generated 32 x 32 colour pictures, with
flips, on one core.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from sfumato.data.augment import Augment
from sfumato.data.batches import Batches
from sfumato.data.prepare import prepare


def fresh(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def imports(pairs: int = 7) -> None:
    for code in ("import torch", "import sfumato", "import sfumato.sampling, sfumato.runs"):
        fresh("-c", code)
    ours, whole, torchs, helps = [], [], [], []
    for _ in range(pairs):
        torchs.append(fresh("-c", "import torch"))
        ours.append(fresh("-c", "import sfumato") / torchs[-1])
        whole.append(fresh("-c", "import sfumato; sfumato.load") / torchs[-1])
        helps.append(fresh("-m", "sfumato", "--help"))
    print(f"import torch: {statistics.median(torchs):.2f} s")
    print(
        f"import sfumato: {statistics.median(ours):.2f} of it; with all that sfumato.load needs: "
        f"{statistics.median(whole):.2f}"
    )
    print(f"sfumato --help: {statistics.median(helps):.2f} s")


def feed(name: str, batches: Batches, rounds: int = 100) -> None:
    batches.batch(range(64))
    start = time.perf_counter()
    for i in range(rounds):
        batches.batch(range(64 * i, 64 * (i + 1)))
    rate = 64 * rounds / (time.perf_counter() - start)
    print(f"{name}: {rate:,.0f} pictures a second on one core")


def main() -> None:
    imports()
    torch.set_num_threads(1)
    feed("digits, 28 x 28 grey", Batches(prepare("digits")))
    with tempfile.TemporaryDirectory() as folder:
        pictures = np.random.default_rng(0).integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8)
        np.savez(Path(folder) / "noise.npz", images=pictures)
        data = prepare(Path(folder) / "noise.npz", cache=Path(folder) / "cache")
        feed("32 x 32 colour", Batches(data))
        feed("32 x 32 colour, flipped at random", Batches(data, augment=Augment(flip=0.5)))


if __name__ == "__main__":
    main()
