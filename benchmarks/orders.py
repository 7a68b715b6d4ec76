"""The measured order of every solver: the slope of its error on a fixed interval, sigma/alpha from 5 to 0.05,
when the number of steps doubles, on a mixture with an exact denoiser.

    python benchmarks/orders.py          # a table in Markdown: about two minutes of one core

"seeded" gives a multistep solver its history from the exact solution, which is what its order is about;
"real" lets it start as it does when it samples: at order one, climbing, so no higher than order two.
"started" lets Runge-Kutta make its first steps (`solvers.started`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "mathematics"))

from slopes import error as error_of
from slopes import even_in_log_snr, slope

from sfumato.level import Levels
from sfumato.sampling import Solver
from sfumato.schedules import VE, Linear, RectifiedFlow
from sfumato.solvers.multistep import Multistep
from sfumato.solvers.rungekutta import RungeKutta
from sfumato.solvers.singlestep import Heun, Singlestep
from sfumato.solvers.started import Started
from sfumato.solvers.unipc import UniPC

SCHEDULES = {"linear": Linear(), "flow": RectifiedFlow(), "VE": VE()}
STEPS = (80, 160)

SOLVERS: dict[str, Solver] = {
    "DDIM": Multistep(order=1),
    "DPM-Solver++ 2M": Multistep("x0", "log_snr", 2),
    "DPM-Solver++ 3M": Multistep("x0", "log_snr", 3),
    "multistep x0, 4": Multistep("x0", "log_snr", 4),
    "DPM-Solver 2M, DEIS-2": Multistep("eps", "log_snr", 2),
    "DPM-Solver 3M, DEIS-3": Multistep("eps", "log_snr", 3),
    "DEIS tAB-3": Multistep("eps", "time", 3),
    "LMS": Multistep("eps", "ratio", 4),
    "v-AB2": Multistep("v", "log_snr", 2),
    "v-AB3": Multistep("v", "log_snr", 3),
    "vab": Multistep("v", "bounded", 3),
    "flow AB2": Multistep("flow", "linear", 2),
    **{f"UniPC-{p}": UniPC(p) for p in (1, 2, 3)},
    "DPM-Solver-2": Singlestep("eps", 2),
    "DPM-Solver-3": Singlestep("eps", 3),
    "DPM-Solver++ 2S": Singlestep("x0", 2),
    "DPM-Solver++ 3S": Singlestep("x0", 3),
    "flow midpoint": Singlestep("flow", 2, clock="linear"),
    "Heun": Heun("eps"),
    "flow Heun": Heun("flow"),
    "Runge-Kutta 4": RungeKutta("eps", 4),
}
Grid = Callable[..., Levels]


def measured(solver: Solver, extra: int, grid: Grid = even_in_log_snr) -> list[float]:
    """The slope on each schedule, with the history of `extra` estimates seeded."""
    out: list[float] = []
    for schedule in SCHEDULES.values():
        coarse, fine = (error_of(solver, grid(schedule, n, extra), extra) for n in STEPS)
        out.append(slope(coarse, fine))
    return out


def main() -> None:
    torch.set_num_threads(1)
    print(f"| solver | order | seeded: {', '.join(SCHEDULES)} | real | started |\n|---|---|---|---|---|")
    for name, solver in SOLVERS.items():
        history = getattr(solver, "remembers", 0)
        seeded = measured(solver, history)
        cells = [" ".join(f"{value:.2f}" for value in seeded), "", ""]
        if history:
            cells[1] = f"{min(measured(solver, 0)):.2f}"
            started = Started(solver, RungeKutta("eps", 4))  # type: ignore[arg-type]
            cells[2] = f"{min(measured(started, 0)):.2f}"
        print(f"| {name} | {solver.order} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
