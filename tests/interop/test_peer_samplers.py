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

from sfumato.data.toy import Mixture
from sfumato.denoiser import Exact
from sfumato.level import Level, Levels
from sfumato.noise import Noise
from sfumato.samplers import Sampler, sampler
from sfumato.sampling import prior
from sfumato.schedules import RectifiedFlow, Schedule
from sfumato.tables import Table

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the peer's own, about numpy

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


def ours(how: Sampler, steps: int, schedule: Schedule = TABLE) -> tuple[Tensor, Tensor]:
    """Where we start and where we end, in float64."""
    start = x = prior(how.start(schedule, steps), (2,), NOISE).double()
    for step in how.walk(EXACT, x, schedule, steps, NOISE):
        x = step.x
    return start, x


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


def theirs(name: str, steps: int, x: Tensor, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Tensor:
    """Where the peer's scheduler ends from x, with our noise drawn in its order."""
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
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t)
        level = where(scheduler, t)
        x = scheduler.step(EXACT(x, level).eps, t, x).prev_sample
    return x


SAME: dict[str, tuple[str, str, dict[str, Any]]] = {
    "DDIM": ("ddim-trailing", "DDIMScheduler", {"clip_sample": False}),
    "DDPM": ("ddpm-trailing", "DDPMScheduler", {"clip_sample": False}),
    "DPM++ 2M": ("dpmpp-2m-trailing", "DPMSolverMultistepScheduler", {"solver_type": "heun"}),
    "SDE-DPM++ 2M": (
        "dpmpp-2m-sde-trailing",
        "DPMSolverMultistepScheduler",
        {"solver_type": "heun", "algorithm_type": "sde-dpmsolver++"},
    ),
    "Euler": ("euler-trailing", "EulerDiscreteScheduler", {}),
    "Euler a": ("euler-a-trailing", "EulerAncestralDiscreteScheduler", {}),
    "Heun": ("heun-trailing", "HeunDiscreteScheduler", {}),
}


@pytest.mark.parametrize("steps", [10, 20])
@pytest.mark.parametrize("what", SAME)
def test_the_peer_ends_where_we_end(what: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    name, peer, settings = SAME[what]
    start, x = ours(sampler(name), steps)
    found = theirs(peer, steps, start, monkeypatch, **{**TRAILING, **settings})
    assert float((x - found).abs().max()) < 1e-5  # the peers' coefficients are float32


def test_ddpm_with_the_large_variance_on_the_grid_on_which_the_peer_ends_clean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {**BETAS, "clip_sample": False, "variance_type": "fixed_large"}
    start, x = ours(sampler("ddpm-large-leading"), 20)
    found = theirs("DDPMScheduler", 20, start, monkeypatch, **settings)
    assert float((x - found).abs().max()) < 1e-5


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddims_eta(eta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    start, x = ours(sampler("ddim-trailing", eta), 20)
    scheduler_step = diffusers.DDIMScheduler.step
    monkeypatch.setattr(
        diffusers.DDIMScheduler, "step", lambda self, e, t, x: scheduler_step(self, e, t, x, eta=eta)
    )
    found = theirs("DDIMScheduler", 20, start, monkeypatch, **TRAILING, clip_sample=False)
    assert float((x - found).abs().max()) < 1e-5


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
