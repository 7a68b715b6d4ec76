"""Our named samplers beside diffusers' schedulers: the exact denoiser as their network, the same noise, the
same levels. Both must end in the same place, where the peer is right."""

from __future__ import annotations

import importlib
import math
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.denoiser import Exact
from sfumato.level import Level, Levels
from sfumato.noise import Noise
from sfumato.samplers import Sampler, Walker, sampler
from sfumato.sampling import prior, walk
from sfumato.schedules import RectifiedFlow
from sfumato.solvers.fresh import Sde
from sfumato.solvers.multistep import Multistep
from sfumato.tables import Table

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # the peer's

MIXTURE = Mixture(
    torch.tensor([0.3, 0.3, 0.4]),
    torch.tensor([[-0.8, 0.1], [0.2, 0.7], [0.6, -0.5]]),
    torch.tensor([[0.35, 0.3], [0.25, 0.4], [0.4, 0.3]]),
)
EXACT = Exact(lambda x, level: MIXTURE.posterior_mean(x, level.alpha, level.sigma))
TABLE = Table.linear()
BETAS = {"beta_start": 1e-4, "beta_end": 0.02}
TRAILING = {**BETAS, "timestep_spacing": "trailing"}
NOISE = Noise(tuple(range(16)))


def ours(how: Walker, steps: int) -> tuple[Tensor, list[Tensor]]:
    """Where we start, and where we are after each step, in float64."""
    start = prior(how.start(TABLE, steps), (2,), NOISE).double()
    return start, [step.x for step in how.walk(EXACT, start, TABLE, steps, NOISE)]


def where(scheduler: Any, t: Tensor) -> Level:
    """The level at which a scheduler stands, asked of its own scale or its own table."""
    fed = float(scheduler.scale_model_input(torch.ones((), dtype=torch.float64), t))
    if fed < 1:  # x = x0 + sigma eps, and the network is fed x / sqrt(1 + sigma^2)
        return Level.of(1.0, math.sqrt(1 / fed**2 - 1))
    if scheduler.config.get("prediction_type") == "epsilon" and hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        sigma = float(scheduler.sigmas[scheduler.step_index or 0])
        return Level.of(1.0, sigma).scaled(1 / math.hypot(1.0, sigma))
    nodes = TABLE.nodes()
    return Level(nodes.alpha[int(t)], nodes.sigma[int(t)])


def theirs(
    name: str, steps: int, x: Tensor, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> list[Tensor]:
    """Where the peer's scheduler is after each of its looks, from x, with our noise drawn in its order."""
    scheduler = getattr(diffusers, name)(**settings)
    module = importlib.import_module(type(scheduler).__module__)
    drawn: list[int] = []

    def our_normal(shape: Any, **_: Any) -> Tensor:
        drawn.append(len(drawn))
        return NOISE.normal(tuple(shape[1:]), "step", drawn[-1]).double()

    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", our_normal)
    scheduler.set_timesteps(steps)
    level = where(scheduler, scheduler.timesteps[0])
    x = x * level.norm  # ours start on the unit circle
    seen: list[Tensor] = []
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t)
        level = where(scheduler, t)
        x = scheduler.step(EXACT(x, level).eps, t, x).prev_sample
        seen.append(x)
    return seen


SDE = {"algorithm_type": "sde-dpmsolver++"}
SAME: dict[str, tuple[str | Sampler, str, dict[str, Any]]] = {
    "DDIM": ("ddim", "DDIMScheduler", {"clip_sample": False}),
    "DDPM": ("ddpm", "DDPMScheduler", {"clip_sample": False}),
    "LCM": ("lcm", "LCMScheduler", {"beta_schedule": "linear"}),
    "Euler": ("euler-trailing", "EulerDiscreteScheduler", {}),
    "Euler a": ("euler-a-trailing", "EulerAncestralDiscreteScheduler", {}),
    "LMS": ("lms-trailing", "LMSDiscreteScheduler", {}),
    "Heun": ("heun-trailing", "HeunDiscreteScheduler", {}),
    "DPM2": ("dpm2-trailing", "KDPM2DiscreteScheduler", {}),
    "DPM2 a": ("dpm2-a-trailing", "KDPM2AncestralDiscreteScheduler", {}),
    "DPM++ 2M": ("dpmpp-2m-trailing", "DPMSolverMultistepScheduler", {"solver_type": "heun"}),
    "DPM++ 2M SDE": ("dpmpp-2m-sde-trailing", "DPMSolverMultistepScheduler", {"solver_type": "heun", **SDE}),
    "DPM++ 2M, midpoint": (
        Sampler(Multistep("x0", "log_snr", 2, "midpoint")),
        "DPMSolverMultistepScheduler",
        {},
    ),
    "DPM++ 2M SDE, midpoint": (
        Sampler(Multistep("x0", "log_snr", 2, "midpoint"), Sde()),
        "DPMSolverMultistepScheduler",
        SDE,
    ),
    "UniPC": ("unipc-trailing", "UniPCMultistepScheduler", {}),
    "UniPC-1": ("unipc-1-trailing", "UniPCMultistepScheduler", {"solver_order": 1}),
}


@pytest.mark.parametrize("what", SAME)
def test_the_peer_ends_where_we_end(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, peer, settings = SAME[what]
    if what == "LMS":
        pytest.importorskip("scipy", reason="diffusers integrates LMS with scipy, which we do not need")
    start, x = ours(sampler(name) if isinstance(name, str) else name, 10)
    found = theirs(peer, 10, start, monkeypatch, **{**TRAILING, **settings})
    assert float((x[-1] - found[-1]).abs().max()) < 2e-6  # the peers' coefficients are float32


DESCENT: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "UniPC-3": ("unipc-3-trailing", "UniPCMultistepScheduler", {"solver_order": 3}, 8),
    "DEIS-2": ("deis-2-trailing", "DEISMultistepScheduler", {"solver_order": 2}, 9),
    "DEIS-3": ("deis-trailing", "DEISMultistepScheduler", {"solver_order": 3}, 8),
    "DPM-Solver 2M": (
        "dpm-solver-2m-trailing",
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "solver_type": "heun"},
        9,
    ),
}
"""Those that the peer ends at lower orders, and the steps until then."""


@pytest.mark.parametrize("what", DESCENT)
def test_the_peer_goes_where_we_go_until_it_lowers_its_order(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, peer, settings, until = DESCENT[what]
    start, x = ours(sampler(name), 10)
    found = theirs(peer, 10, start, monkeypatch, **{**TRAILING, **settings})
    for a, b in zip(x[:until], found[:until], strict=True):
        assert float((a - b).abs().max()) < 3e-5  # DEIS integrates by quotients of float32 logarithms


def test_ddpm_with_the_large_variance_on_the_grid_on_which_the_peer_ends_clean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {**BETAS, "clip_sample": False, "variance_type": "fixed_large"}
    start, x = ours(sampler("ddpm-large-leading"), 20)
    found = theirs("DDPMScheduler", 20, start, monkeypatch, **settings)
    assert float((x[-1] - found[-1]).abs().max()) < 2e-6


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddims_eta(eta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    start, x = ours(sampler("ddim-trailing", eta), 20)
    scheduler_step = diffusers.DDIMScheduler.step
    monkeypatch.setattr(
        diffusers.DDIMScheduler, "step", lambda self, e, t, x: scheduler_step(self, e, t, x, eta=eta)
    )
    found = theirs("DDIMScheduler", 20, start, monkeypatch, **TRAILING, clip_sample=False)
    assert float((x[-1] - found[-1]).abs().max()) < 2e-6


@pytest.mark.parametrize(
    ("name", "peer"),
    [("flow-euler", "FlowMatchEulerDiscreteScheduler"), ("flow-heun", "FlowMatchHeunDiscreteScheduler")],
)
def test_flows(name: str, peer: str) -> None:
    """The peer's levels run from 1 to 1/1000 and then jump to 0; ours are given the same."""
    scheduler = getattr(diffusers, peer)()
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas.double().unique_consecutive()
    x = start = NOISE.normal((2,), "start").double()
    for t in scheduler.timesteps:
        sigma = t.double() / 1000
        x = scheduler.step(EXACT(x, Level.of(1 - sigma, sigma)).flow, t, x).prev_sample
    grid = lambda schedule, n: Levels(1 - sigmas, sigmas)
    how = Sampler(sampler(name).solver, grid=grid)
    z = start
    for step in how.walk(EXACT, z, RectifiedFlow(), 10, NOISE):
        z = step.x
    assert float((x - z).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dpmpp-2s", {}),
        ("dpm-solver-2", {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    ],
)
def test_single_steps_where_the_peer_looks_at_even_parts(
    name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer's steps are evaluations, and its looks lie on its grid: on one even in log-SNR, where ours do.
    All of its whole steps but the last, which it takes at order one. (Its third-order step gets to its second
    look by another rule than Lu et al. publish.)"""
    order, count = 2, 8
    kinds = {**BETAS, "solver_order": order, "use_exponential_sigmas": True, **settings}
    peer = diffusers.DPMSolverSinglestepScheduler(**kinds)
    peer.set_timesteps(count)
    ratios = peer.sigmas.double()[: count - 1 : order]
    levels = Level(torch.ones_like(ratios), ratios).scaled(1 / torch.hypot(torch.ones_like(ratios), ratios))
    start = NOISE.normal((2,), "start").double()
    how = sampler(name)
    assert isinstance(how, Sampler)
    plan = plans.descend(Levels(levels.alpha, levels.sigma))
    x = [step.x for step in walk(EXACT, start, plan, how.solver)]
    found = theirs("DPMSolverSinglestepScheduler", count, start, monkeypatch, **kinds)
    off = [float((a - b).abs().max()) for a, b in zip(x, found[order - 1 :: order], strict=False)]
    assert max(off) < 3e-5, off
