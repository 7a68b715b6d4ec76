"""Stochastic samplers against the exact distribution, by number of evaluations.

    python benchmarks/stochastic.py [--samples 10000] [--steps 10 20 50 100] [--repeats 3] [--weights]

Ten thousand samples of `gmm2d` from an exact denoiser, each sampler on each of its grids: the sliced
Wasserstein-2 distance to ten thousand draws of the data, in its standard deviations (64 directions), and
the ratio of the variances, averaged over repeats with other seeds and other draws. The first row is what the
estimator says of the data itself. A sampler that looks k times a step makes 1/k of the steps. --weights also
prints the largest error of a component's weight at 200 evaluations, in per cent, of ten times the samples.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from oracles import SCHEDULE, Problem, gmm2d
from torch import Tensor

from sfumato import plans
from sfumato.denoiser import Exact
from sfumato.level import Level, Levels
from sfumato.noise import Noise
from sfumato.sampling import Solver, walk
from sfumato.solvers.fresh import Ancestral, Anew, Fresh, LargeVariance, Ode, Sde
from sfumato.solvers.langevin import Langevin
from sfumato.solvers.moves import Move
from sfumato.solvers.multistep import Multistep
from sfumato.solvers.singlestep import Heun, Singlestep

Row = tuple[Solver, Fresh, Callable[[Levels], list[Move]]]

CHURN = partial(plans.churn, amount=20.0, low=0.05, high=50.0, spare=1.0)
SAMPLERS: dict[str, Row] = {
    "DDPM": (Multistep(order=1), Ancestral(), plans.descend),
    "DDPM, large variance": (Multistep(order=1), LargeVariance(), plans.descend),
    "SDE-DPM++ 2M": (Multistep("x0", "log_snr", 2), Sde(), plans.descend),
    "SDE-DPM++ 2M, midpoint": (Multistep("x0", "log_snr", 2, "midpoint"), Sde(), plans.descend),
    "SDE-DPM++ 2M, eta 0.5": (Multistep("x0", "log_snr", 2), Sde(0.5), plans.descend),
    "SDE-DPM++ 3M": (Multistep("x0", "log_snr", 3), Sde(), plans.descend),
    "SDE v-AB 2": (Multistep("v", "log_snr", 2), Sde(), plans.descend),
    "SDE v-AB 3": (Multistep("v", "log_snr", 3), Sde(), plans.descend),
    "SDE v-AB 2, eta 0.5": (Multistep("v", "log_snr", 2), Sde(0.5), plans.descend),
    "SDE v-AB 3, eta 0.5": (Multistep("v", "log_snr", 3), Sde(0.5), plans.descend),
    "DPM++ 2S ancestral": (Singlestep("x0", 2), Ancestral(), plans.descend),
    "DPM++ 3S ancestral": (Singlestep("x0", 3), Ancestral(), plans.descend),
    "DPM2 ancestral": (Singlestep("eps", 2), Ancestral(), plans.descend),
    "Heun with churn": (Heun("eps"), Ode(), CHURN),
    "restart, DPM++ 2M": (Multistep("x0", "log_snr", 2), Ode(), plans.restart),
    "predictor-corrector": (Multistep(order=1), Langevin(0.16, Ancestral()), plans.corrected),
    "all noise anew": (Multistep(order=1), Anew(), plans.descend),
}
GRIDS = {
    "trailing": plans.trailing,
    "log-SNR": plans.log_snr,
    "Karras": plans.karras,
    "bounded": plans.bounded,
}
ROWS = 100
"""Seeds; each draws many samples at once: a stream for each would cost more than the sampling."""


def wide(problem: Problem) -> Exact:
    """The exact denoiser for rows that hold many samples, (B, n, D)."""

    def belief(x: Tensor, level: Level) -> Tensor:
        return problem.posterior_mean(x.flatten(0, 1), level).reshape(x.shape)

    return Exact(belief)


def moves(row: Row, grid: plans.Grid, evaluations: int) -> list[Move]:
    """The longest plan of this sampler that asks the model at most so often."""
    solver, _, route = row
    looks = 1 if isinstance(solver, Multistep) else solver.order
    plan: list[Move] = []
    for n in range(1, evaluations + 1):
        try:
            longer = route(grid(SCHEDULE, n))
        except plans.SettingsError:  # a restart whose interval holds too few nodes yet
            continue
        solved = [move for move in longer if not move.renoise]
        once = sum(float(m.there.sigma) == 0 or Levels.of(m.here, m.there).sigma.diff() == 0 for m in solved)
        if looks * len(solved) - (looks - 1) * once > evaluations:
            break
        plan = longer
    return plan


def drawn(problem: Problem, row: Row, plan: Sequence[Move], n: int, repeat: int = 0) -> Tensor:
    """n samples, (n, D)."""
    noise = Noise(tuple(range(ROWS * repeat, ROWS * (repeat + 1))))
    size = (n // ROWS, problem.mixture.means.shape[1])
    x = noise.normal(size, "start").double() * float(plan[0].here.norm)
    for step in walk(wide(problem), x, plan, row[0], noise, row[1]):
        x = step.x
    return x.flatten(0, 1)


def sliced(x: Tensor, y: Tensor) -> float:
    """The sliced Wasserstein-2 distance of two samples of one size, over 64 even directions of the plane."""
    angles = torch.arange(64, dtype=torch.float64) * math.pi / 64
    on = torch.stack([angles.cos(), angles.sin()])
    return float(((x @ on).sort(0).values - (y @ on).sort(0).values).pow(2).mean().sqrt())


def weights_off(problem: Problem, x: Tensor) -> float:
    """The largest error of a component's share, in per cent of all samples."""
    mixture = problem.mixture
    away = ((x[:, None] - mixture.means) / mixture.stds).pow(2).sum(-1) / 2
    share = torch.softmax(mixture.weights.log() - mixture.stds.log().sum(1) - away, 1).mean(0)
    return float((share - mixture.weights).abs().max()) * 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 50, 100])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--weights", action="store_true")
    options = parser.parse_args()
    problem, n = gmm2d(), options.samples // ROWS * ROWS
    data = [problem.sample(n, 1 + repeat) for repeat in range(options.repeats)]

    def show(samples: Sequence[Tensor]) -> str:
        far = sum(sliced(x, y) for x, y in zip(samples, data, strict=True)) / len(data) / problem.std
        variance = sum(float(x.var(0).sum()) for x in samples) / len(data)
        return f"{far:.3f} / {variance / float(problem.mixture.variance.sum()):.2f}"

    print(f"| sampler | grid | {' | '.join(map(str, options.steps))} |")
    print("|---" * (2 + len(options.steps)) + "|")
    others = show([problem.sample(n, 101 + repeat) for repeat in range(options.repeats)])
    print(f"| the data itself | | {' | '.join([others] * len(options.steps))} |")
    for name, row in SAMPLERS.items():
        for grid_name, grid in GRIDS.items():
            cells: list[str] = []
            for steps in options.steps:
                plan = moves(row, grid, steps)
                runs = range(options.repeats) if plan else ()
                samples = [drawn(problem, row, plan, n, repeat) for repeat in runs]
                cells.append(show(samples) if plan else "-")
            if options.weights:
                off = weights_off(problem, drawn(problem, row, moves(row, grid, 200), 10 * n))
                cells.append(f"{off:.2f} %")
            print(f"| {name} | {grid_name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
