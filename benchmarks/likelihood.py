"""Bits per dimension of a run, by the bound and by the flow, and what each bit buys.

    python benchmarks/likelihood.py [RUN] [--data digits -n 256 --steps 25 --out FIGURE.png]

Without a run, one is trained first (--minutes, and --learned-variance if wished). The pictures are those that
the run held out. The bound is taken with the process's own steps and with `--steps` of them, with each
variance that the model has, all on the same pictures with the same noise; the flow with both ways to
dequantise. The bound must be at least the flow's value, dequantised by the process's noise, less 2 standard
errors of their difference; the script ends with 1 where it is not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import sfumato
from sfumato.bound import Variance
from sfumato.evaluation import likelihood
from sfumato.evaluation.flow_likelihood import FlowLikelihood
from sfumato.evaluation.mean import Mean
from sfumato.evaluation.pictures import choose
from sfumato.evaluation.rate_distortion import rate_distortion, stages, write_curve
from sfumato.evaluation.report import curve_lines
from sfumato.evaluation.variational import Bound, Process, Steps
from sfumato.training.figures import write_grid


def trained(data: str, minutes: float, learned: bool) -> Path:
    """A run on this data, trained now."""
    out = Path(tempfile.mkdtemp()) / "run"
    words = ["train", data, "--out", str(out), "--minutes", str(minutes), "--sample-share", "0"]
    subprocess.run(
        [sys.executable, "-m", "sfumato", *words, *(["--learned-variance"] if learned else [])], check=True
    )
    return out


def row(name: str, mean: Mean, seconds: float | None = None) -> None:
    took = "" if seconds is None else f"{seconds:.0f} s"
    print(f"| {name} | {mean.value:.4f} +- {mean.error:.4f} | {took} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--learned-variance", action="store_true")
    parser.add_argument("-n", type=int, default=256)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--terms", type=int, default=50)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/images/rate-distortion.png"))
    options = parser.parse_args()
    folder = options.run or trained(options.data, options.minutes, options.learned_variance)
    run = sfumato.load(folder)
    pictures = choose(run, options.data, n=options.n, seed=options.seed)
    print(f"{folder}, {run.card.training.steps:,} steps of training: {', '.join(pictures.about)}\n")
    print("| bits per dimension | held out | took |\n|---|---|---|")
    variances: list[Variance] = ["small", "large", *(["learned"] if run.model.learned_variance else [])]  # type: ignore[list-item]
    bounds: dict[str, tuple[Process, Bound]] = {}
    own = likelihood.process_of(run)
    for steps in (len(own.levels) if isinstance(own, Steps) else None, options.steps):
        for variance in variances if steps is not None else [None]:
            process = likelihood.process_of(run, steps, variance, options.terms)
            name = "continuous time" if steps is None else f"{steps} steps, {variance} variance"
            began = time.perf_counter()
            found = likelihood.bound(run, pictures, process, seed=options.seed)
            bounds[name] = (process, found)
            row(f"bound, {name}", found.total, time.perf_counter() - began)
    few = [found for name, (_, found) in bounds.items() if name.startswith(f"{options.steps} steps")]
    for name, (_, found) in bounds.items():
        if name == f"{options.steps} steps, learned variance":
            best = torch.stack([other.bits for other in few[:2]])
            row(f"{name}, less the better fixed one", Mean.of(found.bits - best[best.mean(1).argmin()]))
    name, (process, found) = min(bounds.items(), key=lambda item: item[1][1].total.value)
    flows: list[FlowLikelihood] = []
    for kind in ("noise", "uniform"):
        began = time.perf_counter()
        flows.append(
            likelihood.flow(
                run, pictures, process, dequantise=kind, tolerance=options.tolerance, seed=options.seed
            )
        )
        asked = float(flows[-1].evaluations.double().mean())
        row(
            f"flow, {kind}, {asked:.0f} evaluations a picture",
            Mean.of(flows[-1].bits),
            time.perf_counter() - began,
        )
    gap = Mean.of(found.bits - flows[0].bits)
    row(f"gap: bound ({name}) less flow (noise)", gap)
    points, shown = rate_distortion(found, pictures.bins), stages(found, 9)
    write_curve(options.out, found, points)
    progressive = options.out.with_name(f"{options.out.stem}-progressive.png")
    rows = likelihood.reconstructions(run, pictures.take(range(8)), found, shown, seed=options.seed)
    write_grid(progressive, rows, len(shown) + 1)
    print("\n" + "\n".join(curve_lines(points)))
    print(f"\n{options.out}, {progressive}")
    holds = gap.value >= -2 * gap.error
    print(f"the bound is at least the flow's value - 2 standard errors: {'yes' if holds else 'NO'}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
