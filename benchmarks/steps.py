"""How many steps a trained model needs: pictures in few steps beside a fine walk from the same noise.

    python benchmarks/steps.py runs/digits [-n 20 --guidance 2 --samplers ddim:50,vab:10,vab:20]

The fine walk is Heun's, 150 steps even in log-SNR. Root mean square over pixels in [-1, 1], over all pictures
and its median over pictures. Estimates are not clipped, so that only the steps differ.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

import sfumato

MANY = (
    "ddim:20,ddim:50,dpmpp-2m-karras:20,dpmpp-2m:10,dpmpp-2m:20,unipc:10,unipc:20,"
    "vab:8,vab:10,vab:15,vab:20,vab:50"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("-n", type=int, default=20)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--samplers", default=MANY)
    options = parser.parse_args()
    run = sfumato.load(options.run)
    classes = [i % len(run.classes) for i in range(options.n)] if run.classes else None

    def drawn(sampler: str, steps: int) -> Tensor:
        return run.sample(
            options.n, classes=classes, sampler=sampler, steps=steps, guidance=options.guidance, clip=False
        )

    fine = drawn("heun-log-snr", 150)
    print("| sampler | steps | root mean square | median |\n|---|---|---|---|")
    for words in options.samplers.split(","):
        name, steps = words.split(":")
        error = (drawn(name, int(steps)) - fine).flatten(1).pow(2).mean(1)
        print(f"| {name} | {steps} | {error.mean().sqrt():.4f} | {error.sqrt().median():.4f} |", flush=True)


if __name__ == "__main__":
    main()
