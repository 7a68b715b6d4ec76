"""How long 64 pictures of 32 x 32 take in 50 DDIM steps: ours beside diffusers' DDIMPipeline.

    python benchmarks/sampling.py [--pairs 3]

"same" is the network of the pipeline with its weights' shapes, "base" our preset of about as many parameters.
Each lives in a process of its own, the two of a pair run in turn; the figure is the median ratio of the times
(ours / diffusers).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch

from networks import CONTESTANTS, Process, pair
from sfumato.guidance.bound import Clipped
from sfumato.model import Model
from sfumato.predictions import Epsilon
from sfumato.samplers import SAMPLERS
from sfumato.sampling import sample
from sfumato.tables import Table


def drawing(name: str, pictures: int) -> tuple[torch.nn.Module, Callable[[int], object]]:
    network = CONTESTANTS[name]().network.eval()
    if name == "diffusers":
        from diffusers import DDIMPipeline, DDIMScheduler

        pipeline = DDIMPipeline(network, DDIMScheduler())
        pipeline.set_progress_bar_config(disable=True)
        return network, lambda steps: pipeline(
            batch_size=pictures, num_inference_steps=steps, output_type="np"
        )
    table, ddim = Table.linear(), SAMPLERS["ddim"]
    denoise = Clipped(Model(network, table, Epsilon()).given())
    return network, lambda steps: sample(
        denoise, (3, 32, 32), ddim.plan(table, steps), ddim.solver, range(pictures)
    )


def worker(name: str) -> None:
    network, draw = drawing(name, 64)
    print(sum(w.numel() for w in network.parameters()) / 1e6, flush=True)
    for i, _ in enumerate(sys.stdin):  # the first question only warms up
        start = time.perf_counter()
        draw(50 if i else 2)
        print(time.perf_counter() - start, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options.worker)
    print("| 64 pictures, 50 steps | M parameters | ours / diffusers | s ours | s diffusers |")
    print("|---|---|---|---|---|")
    for name in ("same", "base"):
        ours, theirs = Process(name, script=__file__), Process("diffusers", script=__file__)
        ratio, a, b = pair(ours, theirs, "draw", 64, options.pairs)
        print(f"| {name} | {ours.parameters:.2f} | {ratio:.2f} | {a:.1f} | {b:.1f} |", flush=True)
        ours.close()
        theirs.close()


if __name__ == "__main__":
    main()
