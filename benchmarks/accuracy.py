"""How far samplers end from the exact solution, by the number of evaluations they are allowed: ours and those
of other libraries, each on its best grid, on three mixtures with exact denoisers under DDPM's schedule.

    python benchmarks/accuracy.py                 # all three problems: about half an hour of one core
    python benchmarks/accuracy.py --problems gmm2d --counts 5,10 --out /tmp/accuracy.json
    python benchmarks/accuracy.py --no-peers      # ours alone: 3 minutes

The error of a picture is its root mean square distance from the exact end of the probability flow, in units
of the data's standard deviation; a sampler is judged by its root mean square over pictures, which the few
that change mode decide, and by the median, which they do not. A family's figure is that of its best grid at
that count, chosen with hindsight; `vab`, what Sfumato recommends, has one grid and one order for all. Peers
that are not installed are left out (`pip install --no-deps k-diffusion azula scipy`: LMS needs the last).
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accuracy_peers import everybody
from oracles import PROBLEMS, SCHEDULE, Problem, reference
from torch import Tensor

from sfumato import grids
from sfumato.errors import SettingsError
from sfumato.grids import Grid
from sfumato.noise import Noise
from sfumato.samplers import GRIDS, SAMPLERS, Sampler, sampler
from sfumato.sampling import Counted
from sfumato.solvers.multistep import Multistep


def named(*names: str) -> dict[str, Sampler]:
    """These samplers, whose grids are replaced."""
    return {name: SAMPLERS[name] for name in names}


def multistep(of: str, orders: tuple[int, ...], names: str, clock: str = "log_snr") -> dict[str, Sampler]:
    """Adams-Bashforth of these orders; also as published, and with the last moves at falling order."""
    made: dict[str, Sampler] = {}
    for order in orders:
        made[names.format(order)] = Sampler(Multistep(of, clock, order))  # type: ignore[arg-type]
        made[f"{names.format(order)} published"] = Sampler(Multistep(of, clock, order, "published"))  # type: ignore[arg-type]
        made[f"{names.format(order)} tapered"] = Sampler(Multistep(of, clock, order, tapered=True))  # type: ignore[arg-type]
    return made


COUNTS = (5, 8, 10, 15, 20, 25, 50, 100)
FAMILIES: dict[str, dict[str, Sampler]] = {
    "DDIM": named("ddim"),
    "PLMS": named("plms", "pndm"),
    "LMS": named("lms"),
    "Heun": named("heun"),
    "DPM2": named("dpm2"),
    "DPM-Solver M": multistep("eps", (2, 3), "dpm-solver-{}m"),
    "DPM-Solver-fast": named("dpm-solver-2", "dpm-solver-3", "dpm-fast"),
    "DPM++ 2M": multistep("x0", (2,), "dpmpp-{}m"),
    "DPM++ 3M": multistep("x0", (3,), "dpmpp-{}m"),
    "DPM++ 2S": named("dpmpp-2s", "dpmpp-2s-strides"),
    "DPM++ 3S": named("dpmpp-3s", "dpmpp-3s-strides"),
    "UniPC-2": named("unipc"),
    "UniPC-3": named("unipc-3"),
    "DEIS-2": multistep("eps", (2,), "dpm-solver-{}m") | multistep("eps", (2,), "deis-tab-{}", "time"),
    "DEIS-3": multistep("eps", (3,), "dpm-solver-{}m") | multistep("eps", (3,), "deis-tab-{}", "time"),
    "AB eps": {f"ab{k}": Sampler(Multistep("eps", "ratio", k)) for k in (2, 3)},
    "AB flow": {f"flow-ab{k}": Sampler(Multistep("flow", "linear", k)) for k in (2, 3)},
    "exponential AB eps": multistep("eps", (2, 3), "eab{}"),
    "exponential AB x0": multistep("x0", (2, 3), "dpmpp-{}m"),
}
"""A family as peers name it -> our samplers of that family."""
DEFAULT = "vab"
PLACES: dict[str, Grid] = {
    **GRIDS,
    "fast": grids.fast,
    **{
        f"{name} to least": grids.ToLeast(GRIDS[name]) for name in ("trailing", "interior", "late", "leading")
    },
}
"""Every grid; some also to the least noise that was trained instead of clean data, as a few peers do."""

Run = Callable[[Problem, int], Tensor | None]


def ours() -> Iterator[tuple[str, str, Run]]:
    """(family, name with grid, run)."""
    recommended = sampler(DEFAULT)
    assert isinstance(recommended, Sampler)
    yield "recommended", DEFAULT, partial(by_sampler, recommended)
    for family, samplers in FAMILIES.items():
        for name, how in samplers.items():
            for place, grid in PLACES.items():
                yield family, f"{name} {place}", partial(by_sampler, replace(how, grid=grid))


def by_sampler(how: Sampler, problem: Problem, evaluations: int) -> Tensor | None:
    """The end of a walk with the most steps that cost no more than these evaluations; None if none cost as
    many, or up to two less."""
    asked = evaluations
    while asked > 0:
        try:
            cost = counted(how, asked)
        except SettingsError:
            return None
        if cost <= evaluations:
            break
        asked = min(asked - 1, max(1, asked * evaluations // cost + 1))
    if asked == 0 or cost < evaluations - 2:
        return None
    *_, last = how.walk(problem.denoiser, problem.start(), SCHEDULE, asked, streams(problem.starts))
    return last.x


def counted(how: Sampler, steps: int) -> int:
    """How often a walk of so many steps asks the model."""
    problem = PROBLEMS["gmm2d"]
    counts = Counted.of(problem.denoiser, 1)
    *_, _ = how.walk(counts, problem.start(1), SCHEDULE, steps, streams(1))
    return counts.counts[0]


def streams(n: int) -> Noise:
    return Noise(tuple(range(n)))


def errors(x: Tensor | None, truth: Tensor, std: float) -> tuple[float, float]:
    """(root mean square, median over pictures) of the error in units of std; infinite for no or a bad end."""
    if x is None or not bool(x.isfinite().all()):
        return math.inf, math.inf
    square = ((x.double() - truth) / std) ** 2
    return float(square.mean().sqrt()), float(square.mean(1).sqrt().median())


def measure(problems: list[str], counts: list[int], peers: bool) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name in problems:
        problem, truth = PROBLEMS[name], reference(PROBLEMS[name], steps=2000)
        for who, everyone in (("sfumato", ours), ("peers", everybody)):
            if who == "peers" and not peers:
                continue
            for family, variant, run in everyone():
                for n in counts:
                    rms, median = errors(run(problem, n), truth, problem.std)
                    rows.append({"problem": name, "who": who, "family": family, "variant": variant,
                                 "evaluations": n, "rms": rms, "median": median})  # fmt: skip
    return rows


def best(rows: list[dict[str, object]], figure: str, **where: object) -> tuple[float, str]:
    """The least error of the rows where..., and whose it is."""
    chosen = [r for r in rows if all(r[k] == v for k, v in where.items()) and math.isfinite(float(r[figure]))]  # type: ignore[arg-type]
    if not chosen:
        return math.inf, "-"
    least = min(chosen, key=lambda r: float(r[figure]))  # type: ignore[arg-type]
    return float(least[figure]), str(least["variant"])  # type: ignore[arg-type]


def found(
    rows: list[dict[str, object]], figure: str, problem: str, n: int, **where: object
) -> tuple[float, str]:
    return best(rows, figure, problem=problem, evaluations=n, **where)


def report(rows: list[dict[str, object]]) -> None:
    """Tables in Markdown: for each problem and figure, every family's best grid, peers' beside ours."""
    counts = sorted({int(str(r["evaluations"])) for r in rows})
    shown = lambda v: "-" if math.isinf(v) else f"{v:.2g}" if v >= 0.001 else f"{v:.1e}"
    for name in dict.fromkeys(str(r["problem"]) for r in rows):
        for figure in ("rms", "median"):
            print(f"\n### {name}, {figure}\n\n| family | whose | " + " | ".join(map(str, counts)) + " |")
            print("|---" * (len(counts) + 2) + "|")
            here = partial(found, rows, figure, name)
            for family in dict.fromkeys(str(r["family"]) for r in rows):
                for who in ("peers", "sfumato"):
                    values = [here(n, family=family, who=who)[0] for n in counts]
                    if any(map(math.isfinite, values)):
                        print(f"| {family} | {who} | " + " | ".join(map(shown, values)) + " |")
            frontier = [here(n, who="peers") for n in counts]
            print("| **all peers** | | " + " | ".join(f"**{shown(v)}**" for v, _ in frontier) + " |")
            print("| who | | " + " | ".join(who for _, who in frontier) + " |")
            ratios = [
                here(n, family="recommended")[0] / v for n, (v, _) in zip(counts, frontier, strict=True)
            ]
            print(f"| {DEFAULT} / all peers | | " + " | ".join(f"{v:.2f}" for v in ratios) + " |")
    for figure in ("rms", "median"):
        behind = list(worse(rows, figure))
        print(f"\nOurs behind a peer's same family by more than 5 % in {figure}: {behind or 'nowhere'}")


def worse(rows: list[dict[str, object]], figure: str) -> Iterator[tuple[object, ...]]:
    """Where a family of ours, on its best grid, is more than 5 % worse than the peers' best grid."""
    keys = dict.fromkeys((r["problem"], r["family"], r["evaluations"]) for r in rows if r["who"] == "peers")
    for problem, family, n in keys:
        if family not in FAMILIES:
            continue
        theirs, mine = (
            best(rows, figure, problem=problem, family=family, evaluations=n, who=who)[0]
            for who in ("peers", "sfumato")
        )
        if mine > 1.05 * theirs:
            yield problem, family, n, round(mine / theirs, 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)))
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--out", type=Path, help="all rows as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = measure(
        options.problems.split(","), [int(n) for n in options.counts.split(",")], not options.no_peers
    )
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))
    report(rows)


if __name__ == "__main__":
    main()
