"""The deterministic samplers of other libraries, each on all of its grids: what `accuracy.py` measures ours
beside.

A peer's sampler is a function (problem, evaluations) -> x at sigma = 0, or None where it cannot take that
many evaluations. All start from the same normals at the last step of DDPM's table and ask the same exact
denoiser; the ones that stop at the least noise of the table are given a last look there, whose estimate of x0
is their answer.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from oracles import SCHEDULE, Problem
from torch import Tensor

from networks import Stand
from sfumato.level import CLEAN, Level

Run = Callable[[Problem, int], Tensor | None]

LOG_SIGMAS = (SCHEDULE.nodes().sigma / SCHEDULE.nodes().alpha).log()
LEAST, MOST = float(LOG_SIGMAS[0].exp()), float(LOG_SIGMAS[-1].exp())

FIXED = ("solver_order", "sigma_min", "sigma_max", "final_sigmas_type", "clip_sample")


def log_sigma(step: Tensor | float) -> float:
    """log(sigma/alpha) at a step of the table, linear between steps: how k-diffusion and diffusers ask."""
    step = min(max(float(step), 0.0), 999.0)
    low = min(int(step), 998)
    return float(torch.lerp(LOG_SIGMAS[low], LOG_SIGMAS[low + 1], step - low))


def preserving(log_sigma: float) -> Level:
    ratio = math.exp(log_sigma)
    return Level.of(1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio))


def diffusers() -> Iterator[tuple[str, str, Run]]:
    """(family, variant, run)."""
    import diffusers as d

    d.utils.logging.set_verbosity_error()
    spaced = [{"timestep_spacing": s} for s in ("linspace", "leading", "trailing")]
    sigmas = [*spaced, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}]
    lu = {"use_lu_lambdas": True}
    multi, single = d.DPMSolverMultistepScheduler, d.DPMSolverSinglestepScheduler
    table: list[tuple[str, type, dict[str, Any], list[dict[str, Any]]]] = [
        ("DDIM", d.DDIMScheduler, {"clip_sample": False}, spaced),
        ("DDIM", d.EulerDiscreteScheduler, {}, sigmas),
        ("PLMS", d.PNDMScheduler, {"skip_prk_steps": True}, spaced),
        ("PLMS", d.PNDMScheduler, {"skip_prk_steps": False}, spaced[1:]),
        ("LMS", d.LMSDiscreteScheduler, {}, sigmas),
        ("Heun", d.HeunDiscreteScheduler, {}, sigmas),
        ("DPM2", d.KDPM2DiscreteScheduler, {}, sigmas),
        *[
            (f"DPM++ {k}M", multi, {"solver_order": k, "euler_at_final": e}, [*sigmas, lu])
            for k in (2, 3)
            for e in (False, True)
        ],
        *[("DPM-Solver M", multi, {"solver_order": k, "algorithm_type": "dpmsolver",
           "final_sigmas_type": "sigma_min"}, [*sigmas, lu]) for k in (2, 3)],
        *[(f"DPM++ {k}S", single, {"solver_order": k}, [{}, *sigmas[3:], lu]) for k in (2, 3)],
        *[(f"UniPC-{k}", d.UniPCMultistepScheduler, {"solver_order": k}, sigmas) for k in (2, 3)],
        *[(f"DEIS-{k}", d.DEISMultistepScheduler, {"solver_order": k}, sigmas) for k in (2, 3)],
        *[(f"DPM++ {k}M", d.EDMDPMSolverMultistepScheduler, {"solver_order": k, "sigma_min": LEAST,
           "sigma_max": MOST, "sigma_schedule": s}, [{}]) for k in (2, 3) for s in ("karras", "exponential")],
    ]  # fmt: skip
    for family, kind, settings, grids in table:
        known = inspect.signature(kind.__init__).parameters
        for grid in grids:
            if set(grid) <= set(known):
                said = {**settings, **grid}
                words = " ".join(
                    v if isinstance(v, str) else k for k, v in said.items() if v and k not in FIXED
                )
                yield family, f"diffusers {kind.__name__} {words}", partial(by_scheduler, kind, said)


def by_scheduler(kind: type, settings: dict[str, Any], problem: Problem, evaluations: int) -> Tensor | None:
    """Runs a scheduler of diffusers with the most steps that cost no more than these evaluations."""
    steps = evaluations
    while True:
        scheduler = kind(**settings)
        try:
            scheduler.set_timesteps(steps)
        except (ValueError, IndexError, RuntimeError):
            return None
        asked = len(scheduler.timesteps)
        if asked <= evaluations:
            break
        steps = min(steps - 1, max(1, (steps * evaluations + asked - 1) // asked))
        if steps < 2:
            return None
    if asked < evaluations - 1:
        return None
    edm = "EDM" in kind.__name__
    x = problem.start() * (math.hypot(1, MOST) if edm else float(scheduler.init_noise_sigma))
    try:
        for i, t in enumerate(scheduler.timesteps):
            fed = scheduler.scale_model_input(x, t)
            if edm:  # it feeds x / hypot(sigma, data) and takes F
                sigma = float(scheduler.sigmas[i])
                x0 = problem.posterior_mean(x, Level.of(1.0, sigma))
                data = scheduler.config["sigma_data"]
                skip, out = data**2 / (sigma**2 + data**2), sigma * data / math.hypot(sigma, data)
                said = (x0 - skip * x) / out
            else:
                level = preserving(log_sigma(t))
                alpha, sigma = float(level.alpha), float(level.sigma)
                said = (fed - alpha * problem.posterior_mean(fed, level)) / sigma
            x = scheduler.step(said, t, x).prev_sample
    except (ValueError, IndexError, RuntimeError):
        return None
    return x.double()


def k_diffusion() -> Iterator[tuple[str, str, Run]]:
    """k-diffusion's samplers on its Karras and exponential grids, and dpm_fast on its own."""
    found = importlib.util.find_spec("k_diffusion")
    if found is None:
        return
    sys.meta_path.append(Stand())
    package = types.ModuleType("k_diffusion")  # without its __init__, which imports everything it has
    package.__path__, package.__spec__ = list(found.submodule_search_locations or ()), found
    sys.modules.setdefault("k_diffusion", package)
    sampling = importlib.import_module("k_diffusion.sampling")
    grids = {"karras": sampling.get_sigmas_karras, "exponential": sampling.get_sigmas_exponential}
    table = {
        "DDIM": ("sample_euler", lambda n: n),
        "LMS": ("sample_lms", lambda n: n),
        "Heun": ("sample_heun", lambda n: (n + 1) // 2),
        "DPM2": ("sample_dpm_2", lambda n: (n + 1) // 2),
        "DPM++ 2M": ("sample_dpmpp_2m", lambda n: n),
    }
    for family, (name, steps) in table.items():
        for grid, sigmas in grids.items():
            yield (
                family,
                f"k-diffusion {name} {grid}",
                partial(by_sigmas, getattr(sampling, name), sigmas, steps),
            )
    yield "DPM-Solver-fast", "k-diffusion sample_dpm_fast", partial(fast, sampling.sample_dpm_fast)


def by_sigmas(sampler: Any, sigmas: Any, steps: Any, problem: Problem, evaluations: int) -> Tensor | None:
    n = steps(evaluations)
    if n < 2:
        return None
    grid = sigmas(n, LEAST, MOST).double()
    return sampler(denoised(problem), problem.start() * math.hypot(1, MOST), grid, disable=True)


def fast(sampler: Any, problem: Problem, evaluations: int) -> Tensor | None:
    """dpm_fast, then a last look at its end, sigma_min."""
    if evaluations < 4:
        return None
    ask = denoised(problem)
    x = sampler(ask, problem.start() * math.hypot(1, MOST), LEAST, MOST, evaluations - 1, disable=True)
    return problem.posterior_mean(x, Level.of(1.0, LEAST))


def denoised(problem: Problem) -> Callable[..., Tensor]:
    """k-diffusion's model: D(x, sigma) in variance-exploding coordinates, sigma of shape (B,)."""
    return lambda x, sigma, **_: problem.posterior_mean(x, Level.of(1.0, float(sigma.flatten()[0])))


def azula() -> Iterator[tuple[str, str, Run]]:
    """azula's samplers on grids even in time and in log-SNR."""
    from azula import sample

    kinds = {"AB eps": "zABSampler", "AB flow": "vABSampler", "exponential AB eps": "zEABSampler",
             "exponential AB x0": "xEABSampler", "REAB": "REABSampler"}  # fmt: skip
    for family, name in kinds.items():
        for order in (2, 3):
            for grid in ("time", "log-snr"):
                run = partial(by_azula, getattr(sample, name), order, grid)
                yield family, f"azula {name} {order} {grid}", run
    yield "DDIM", "azula DDIMSampler log-snr", partial(by_azula, sample.DDIMSampler, None, "log-snr")
    yield "Heun", "azula HeunSampler log-snr", partial(by_azula, sample.HeunSampler, None, "log-snr")


def by_azula(kind: Any, order: int | None, grid: str, problem: Problem, evaluations: int) -> Tensor | None:
    """An azula sampler from the noisiest step to the least noise of the table and on to sigma = 0 by itself;
    where that is not finite, a last look at the least noise instead."""
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import Schedule

    def log_ratio(t: float) -> float:
        return math.log(LEAST) + t * math.log(MOST / LEAST) if grid == "log-snr" else log_sigma(999 * t)

    def level(t: float) -> Level:
        return CLEAN if t < 0 else preserving(log_ratio(t))

    class Nodes(Schedule):
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            levels = [level(float(v)) for v in t.flatten()]
            return (
                torch.stack([at.alpha for at in levels]).reshape(t.shape),
                torch.stack([at.sigma for at in levels]).reshape(t.shape),
            )

    class Asked(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.schedule = Nodes()

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> DiracPosterior:
            return DiracPosterior(mean=problem.posterior_mean(x_t, level(float(t))))

    each = 2 if "Heun" in kind.__name__ else 1
    told = {} if order is None else {"order": order}
    ends: list[Tensor] = []
    if each == 1:

        class ToClean(kind):
            @property
            def timesteps(self) -> Tensor:
                return torch.cat(
                    [torch.linspace(1, 0, self.steps, dtype=torch.float64), -torch.ones(1).double()]
                )

        ends.append(ToClean(Asked(), steps=evaluations, silent=True, **told)(problem.start()))
    sampler = kind(Asked(), steps=(evaluations - 1) // each, silent=True, dtype=torch.float64, **told)
    ends.append(problem.posterior_mean(sampler(problem.start()), level(0.0)))
    return next((x for x in ends if bool(x.isfinite().all())), None)


def everybody() -> Iterator[tuple[str, str, Run]]:
    """Every peer that is installed."""
    for name, peer in (("diffusers", diffusers), ("k_diffusion", k_diffusion), ("azula", azula)):
        if importlib.util.find_spec(name) is not None:
            yield from peer()
        else:
            warnings.warn(f"{name} is not installed: left out", stacklevel=1)
