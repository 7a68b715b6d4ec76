"""The quick form of benchmarks/accuracy.py: at equal evaluations the recommended sampler ends nearer the
exact solution than diffusers' best on their best grids, and each of ours is as near as its namesake there."""

import math
from functools import cache

import diffusers
import pytest
import torch
from oracles import exact, flow_map
from torch import Tensor

from sfumato.data.toy import Mixture
from sfumato.level import Level
from sfumato.noise import Noise
from sfumato.samplers import GRIDS, Sampler, sampler
from sfumato.tables import Table

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # in diffusers

TABLE = Table.linear(1000)
LOG_RATIO = (TABLE.nodes().sigma / TABLE.nodes().alpha).log()
STARTS = 256


def ring() -> Mixture:
    """Six narrow components on a ring: most starts are near a fork of the flow."""
    angle = torch.arange(6, dtype=torch.float64) * math.pi / 3 + 0.3
    means = 0.7 * torch.stack([angle.cos(), angle.sin()], 1) * (1 + 0.2 * (2 * angle).cos())[:, None]
    return Mixture(
        torch.tensor([1.0, 2, 1, 3, 1, 2], dtype=torch.float64), means, torch.full((6, 2), 0.12).double()
    )


DATA = ring()
START = Noise(tuple(range(STARTS))).normal((2,), "start").double()


@cache
def truth() -> Tensor:
    noisiest = TABLE.level(torch.ones((), dtype=torch.float64))
    return flow_map(DATA, START, noisiest, Level.of(1.0, 1e-5), 500)


def errors(x: Tensor) -> tuple[float, float]:
    """(root mean square, median over starts), in units of the data's standard deviation."""
    square = (x.double() - truth()) ** 2 / float(DATA.variance.mean())
    return float(square.mean().sqrt()), float(square.mean(1).sqrt().median())


def ours(how: Sampler, steps: int) -> Tensor:
    *_, last = how.walk(exact(DATA), START, TABLE, steps, Noise(tuple(range(STARTS))))
    return last.x


def theirs(kind: str, steps: int, **settings: object) -> Tensor:
    """A scheduler of diffusers, asking the exact denoiser at the fractional step that it names."""
    scheduler = getattr(diffusers, kind)(**settings)
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == steps
    x = START * float(scheduler.init_noise_sigma)
    for t in scheduler.timesteps:
        low = min(int(t), 998)
        ratio = math.exp(float(torch.lerp(LOG_RATIO[low], LOG_RATIO[low + 1], float(t) - low)))
        alpha = 1 / math.hypot(1, ratio)
        fed = scheduler.scale_model_input(x, t)
        eps = (fed - alpha * DATA.posterior_mean(fed, alpha, alpha * ratio)) / (alpha * ratio)
        x = scheduler.step(eps, t, x).prev_sample
    return x


PEERS = {
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {"solver_order": 2}),
    "dpmpp-3m": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "unipc-3": ("UniPCMultistepScheduler", {"solver_order": 3}),
    "deis-3": ("DEISMultistepScheduler", {"solver_order": 3}),
}
SPACINGS = [{"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"timestep_spacing": "trailing"}]


def best_of_theirs(name: str, steps: int) -> tuple[float, float]:
    kind, settings = PEERS[name]
    found = [errors(theirs(kind, steps, **settings, **spacing)) for spacing in SPACINGS]
    return min(rms for rms, _ in found), min(median for _, median in found)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [5, 10, 20])
def test_the_recommended_sampler_is_nearer_the_truth_than_any_of_theirs(steps: int) -> None:
    how = sampler("vab")
    assert isinstance(how, Sampler)
    rms, median = errors(ours(how, steps))
    for name in PEERS:
        their_rms, their_median = best_of_theirs(name, steps)
        assert rms < their_rms, name
        assert median < their_median, name


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PEERS))
@pytest.mark.parametrize("steps", [10, 20])
def test_a_sampler_on_its_best_grid_is_as_near_as_its_namesake(name: str, steps: int) -> None:
    found = []
    for grid in GRIDS:
        how = sampler(f"{name}-{grid}")
        assert isinstance(how, Sampler)
        found.append(errors(ours(how, steps)))
    assert min(rms for rms, _ in found) <= 1.05 * best_of_theirs(name, steps)[0]
