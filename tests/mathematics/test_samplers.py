"""Samplers by name: everybody's spelling leads to one object, and every one works from one step up."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from oracles import MIXTURE, exact, flow_map, gaussian_map
from torch import Tensor, nn

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.denoiser import Denoiser, Exact
from sfumato.errors import SettingsError
from sfumato.level import CLEAN, Level
from sfumato.model import Model
from sfumato.noise import Noise, seeded
from sfumato.predictions import Estimate, V
from sfumato.sampler_names import ALIASES, GRID_NAMES
from sfumato.samplers import GRIDS, KNOWN, SAMPLERS, Sampler, Walker, sampler, traits
from sfumato.sampling import prior
from sfumato.schedules import Linear, RectifiedFlow, Schedule
from sfumato.solvers.fresh import Ancestral, LargeVariance, Ode, Sde
from sfumato.solvers.multistep import Multistep
from sfumato.solvers.singlestep import Heun
from sfumato.tables import Table

FAMILIES = {
    "dpmpp-2m-karras": (
        "DPM++ 2M Karras",
        "dpmpp_2m karras",
        "sample_dpmpp_2m_karras",
        "k_dpmpp_2m karras",
        "DPMSolverMultistepScheduler Karras",
        "DPMSolver++ Karras",
    ),
    "dpmpp-2m-sde-exponential": ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde_gpu exponential"),
    "euler-a": ("Euler a", "euler_ancestral", "sample_euler_ancestral", "EulerAncestralDiscreteScheduler"),
    "ddim": ("DDIM", " ddim ", "DDIMScheduler", "DDIM Automatic", "dpm-solver-1"),
    "ddim-trailing": ("ddim sgm_uniform", "DDIM SGM Uniform", "ddim_simple", "ddim"),
    "ddim-leading": ("DDIM ddim_uniform", "DDIMScheduler leading"),
    "dpmpp-2m-uniform": ("DPM++ 2M normal",),
    "dpmpp-2m": ("dpmpp-2m-log-snr", "DPM++ 2M Exponential"),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler",),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_everybodys_spelling_leads_to_one_object(name: str) -> None:
    for said in FAMILIES[name]:
        assert sampler(said) == sampler(name), said


A1111 = """Euler a; Euler; LMS; Heun; DPM2; DPM2 a; DPM++ 2S a; DPM++ 2M; DPM++ SDE; DPM++ 2M SDE; DPM++ 3M
SDE; DPM++ 2M SDE Heun; DPM fast; DPM adaptive; LMS Karras; DPM2 Karras; DPM2 a Karras; DPM++ 2S a Karras;
DPM++ 2M Karras; DPM++ SDE Karras; DPM++ 2M SDE Karras; DPM++ 2M SDE Exponential; DPM++ 3M SDE Karras; DPM++
3M SDE Exponential; DPM++ 2M SDE Heun Karras; DPM++ 2M SDE Heun Exponential; Restart; DDIM; PLMS; UniPC;
DDPM; LCM; DPM++ 2M Automatic; DPM++ 2M SGM Uniform; Euler Simple; Euler Normal; Euler a Polyexponential"""
COMFY = """euler euler_ancestral heun dpm_2 dpm_2_ancestral lms dpm_fast dpm_adaptive dpmpp_2s_ancestral
dpmpp_sde dpmpp_sde_gpu dpmpp_2m dpmpp_2m_sde dpmpp_2m_sde_gpu dpmpp_2m_sde_heun dpmpp_3m_sde
dpmpp_3m_sde_gpu ddpm lcm ipndm deis res_multistep ddim uni_pc uni_pc_bh2 sample_dpmpp_2m_sde sample_heun"""
DIFFUSERS = """DDPM DDIM PNDM DPMSolverMultistep DPMSolverSinglestep DPMSolverSDE UniPCMultistep
DEISMultistep LMSDiscrete EulerDiscrete EulerAncestralDiscrete HeunDiscrete KDPM2Discrete
KDPM2AncestralDiscrete EDMEuler EDMDPMSolverMultistep CosineDPMSolverMultistep FlowMatchEulerDiscrete
FlowMatchHeunDiscrete LCM IPNDM CMStochasticIterative ScoreSdeVe"""


def test_every_name_that_people_bring_is_known() -> None:
    for name in A1111.split(";"):
        assert isinstance(sampler(name.strip()), Walker)
    for name in COMFY.split():
        assert isinstance(sampler(name.strip()), Walker)
        for scheduler in ("karras", "exponential", "normal", "simple", "sgm_uniform", "ddim_uniform"):
            assert "adaptive" in name or isinstance(sampler(f"{name} {scheduler}"), Sampler)
    for name in DIFFUSERS.split():
        assert isinstance(sampler(f"{name}Scheduler"), Sampler)


def test_every_other_name_and_grid_leads_somewhere() -> None:
    assert set(ALIASES) <= set(KNOWN)
    assert set(GRID_NAMES.values()) == {"", *GRIDS}
    for name, others in ALIASES.items():
        for other in others:
            assert sampler(other) == KNOWN[name].sampler


def test_a_grid_at_the_end_of_a_name_replaces_the_samplers_own() -> None:
    for (name, own), (grid, place) in itertools.product(SAMPLERS.items(), GRIDS.items()):
        assert sampler(f"{name}-{grid}") == replace(own, grid=place)


def test_names_that_pictures_carry_mean_what_they_meant() -> None:
    second, third = Multistep("x0", "log_snr", 2), Multistep("x0", "log_snr", 3)
    then = {
        "ddpm": Sampler(Multistep(order=1), Ancestral()),
        "ddpm-large": Sampler(Multistep(order=1), LargeVariance()),
        "ddim": Sampler(Multistep(order=1), Ode(), plans.trailing, plans.descend),
        "dpmpp-2m": Sampler(second, grid=plans.log_snr),
        "dpmpp-2m-karras": Sampler(second, grid=plans.karras),
        "dpmpp-3m": Sampler(third, grid=plans.log_snr),
        "dpmpp-3m-karras": Sampler(third, grid=plans.karras),
        "dpmpp-2m-sde": Sampler(second, Sde(), grid=plans.log_snr),
        "heun": Sampler(Heun("eps"), grid=plans.karras),
        "euler": Sampler(Multistep(order=1), grid=plans.karras),
        "euler-a": Sampler(Multistep(order=1), Ancestral(), grid=plans.karras),
        "flow-euler": Sampler(Multistep("flow", "linear", 1), grid=plans.uniform),
        "flow-heun": Sampler(Heun("flow"), grid=plans.uniform),
        "flow-ab2": Sampler(Multistep("flow", "linear", 2), grid=plans.uniform),
    }
    assert {name: sampler(name) for name in then} == then
    assert sampler("DPMPP_2M", eta=0.5) == Sampler(second, Ancestral(0.5), plans.log_snr)


@pytest.mark.parametrize(
    ("said", "near"),
    [
        ("dim", "ddim"),
        ("DPM++ 2N", "dpmpp-2m"),
        ("dpmpp-2n karras", "dpmpp-2m"),
        ("EulerDiscreteSchedular", "euler"),
        ("painting", "ddim"),
        ("", "ddim"),
    ],
)
def test_a_name_that_nobody_knows_is_one_sentence_with_the_nearest(said: str, near: str) -> None:
    with pytest.raises(SettingsError, match=rf"there are: .*\b{near}\b") as found:
        sampler(said)
    assert "\n" not in str(found.value)


DATA = Mixture.gaussian([0.3, -0.2], [0.5, 0.8])
FEW: tuple[Schedule, ...] = (Table.linear(), RectifiedFlow())
WIDE = Mixture.gaussian([0.3] * 200, [0.5] * 200)


def renews(how: Sampler) -> bool:
    return how.fresh != Ode() or any(move.renoise for move in how.plan(Linear(), 24))


STEADY = [name for name, how in SAMPLERS.items() if not renews(how)]


@dataclass(frozen=True)
class Watched:
    """The exact denoiser, and every level and x that it was asked at."""

    asked: list[tuple[float, float, Tensor]]

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        self.asked.append((float(level.alpha), float(level.sigma), x))
        return Estimate.of(x, level, x0=DATA.posterior_mean(x, level.alpha, level.sigma))

    def take(self, rows: Sequence[int]) -> Watched:
        return self

    def check(self, level: Level) -> None:
        return None


def ended(
    how: Walker, schedule: Schedule, steps: int, seeds: range, denoise: Denoiser | None = None, width: int = 2
) -> Tensor:
    """Where a sampler takes these seeds, in float64."""
    noise = Noise(tuple(seeds))
    x = prior(how.start(schedule, steps), (width,), noise).double()
    *_, last = how.walk(denoise or Watched([]), x, schedule, steps, noise)
    return last.x


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_table_says_what_counting_finds(name: str) -> None:
    how = SAMPLERS[name]
    counted: list[int] = []
    for steps in (12, 24):
        seen = Watched([])
        ended(how, Linear(), steps, range(1), seen)
        counted.append(len(seen.asked))
    found = traits(how)
    assert found == (how.solver.order, (counted[1] - counted[0]) / 12, renews(how))


# few steps


def few(grid: str) -> Iterator[tuple[Schedule, int]]:
    """From the table's last step on every grid; from pure noise on those that visit it."""
    schedules = FEW if grid in ("trailing", "bounded") else FEW[:1]
    return itertools.product(schedules, (1, 2, 3))


@cache
def furthest(name: str, schedule: Schedule, steps: int) -> float:
    """The largest error over a Gaussian whose flow is known."""
    how = sampler(name)
    start = how.start(schedule, steps)
    x = torch.linspace(-2.5, 2.5, 21, dtype=torch.float64)[:, None].expand(21, 2) * start.norm
    known = zip((0.3, -0.2), (0.5, 0.8), strict=True)
    truth = [gaussian_map(mean, std, x[:, i], start, CLEAN) for i, (mean, std) in enumerate(known)]
    *_, last = how.walk(Watched([]), x, schedule, steps, Noise(tuple(range(21))))
    return float((last.x - torch.stack(truth, 1)).abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", STEADY)
def test_one_two_and_three_steps_are_hardly_worse_than_ddims(name: str, grid: str) -> None:
    for schedule, steps in few(grid):
        off, ddim = (furthest(f"{one}-{grid}", schedule, steps) for one in (name, "ddim"))
        assert off < 3 * ddim, (schedule, steps)


@pytest.mark.slow
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {*STEADY, "langevin"}))
def test_one_two_and_three_steps_with_new_noise_stay_on_the_data(name: str, grid: str) -> None:
    """One step says what DDIM's says; more are never twice as wide as unit data and keep the mean as well.

    Annealed Langevin dynamics has no move of its own between levels, so it needs many: see test_langevin.
    """
    how, plain = (replace(SAMPLERS[one], grid=GRIDS[grid]) for one in (name, "ddim"))
    denoise = Exact(lambda x, level: WIDE.posterior_mean(x, level.alpha, level.sigma))
    for schedule, steps in few(grid):
        x, ddim = (ended(one, schedule, steps, range(4), denoise, 200) for one in (how, plain))
        assert bool(x.isfinite().all())
        assert float(x.std()) < 2, (schedule, steps)
        assert abs(float(x.mean()) - 0.3) < abs(float(ddim.mean()) - 0.3) + 0.15, (schedule, steps)
        assert steps > 1 or how.route != plans.descend or torch.equal(x, ddim)


@pytest.mark.parametrize(("name", "lower"), [("deis", "dpm-solver-2m"), ("v-ab3", "v-ab2")])
def test_a_higher_order_is_not_stretched_over_a_leap_to_clean_data(name: str, lower: str) -> None:
    """Trailing grids end far from clean data, infinitely far in log-SNR."""
    noise, table = Noise(tuple(range(32))), FEW[0]
    start = sampler(name).start(table, 10)
    x = prior(start, (2,), noise).double()
    truth = flow_map(MIXTURE, x, start, Level.of(1.0, 1e-5), 200)

    def off(said: str) -> float:
        *_, last = sampler(f"{said}-trailing").walk(exact(MIXTURE), x, table, 10, noise)
        return float((last.x - truth).square().mean().sqrt())

    assert off(name) < 1.3 * off(lower)
    assert off(name) < off("ddim")


# where the model is asked


def ratio(level: Level) -> float:
    return float(level.sigma / level.alpha) if float(level.alpha) > 0 else math.inf


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_model_is_asked_where_the_solver_stands(name: str) -> None:
    """Every step begins by asking at the level and the x that the last one ended with; further looks lie
    within the step."""
    for schedule, grid in zip(FEW, ("karras", "leading"), strict=True):
        how = replace(SAMPLERS[name], grid=GRIDS[grid])
        plan, seen = how.plan(schedule, 4), Watched([])
        at = 0
        noise = Noise((1, 2))
        x = prior(plan[0].here, (2,), noise).double()
        for step in how.walk(seen, x, schedule, 4, noise):
            here, there = plan[step.i].here, plan[step.i].there
            asked = seen.asked[at:]
            at = len(seen.asked)
            if not plan[step.i].renoise:
                alpha, sigma, told = asked[0]
                assert (alpha, sigma) == (float(here.alpha), float(here.sigma))
                assert torch.equal(told, x)
                for a, s, _ in asked[1:]:
                    low, high = sorted((ratio(here), ratio(there)))
                    assert low - 1e-9 <= ratio(Level.of(a, s)) <= high * (1 + 1e-9)
            x = step.x


class Labelled(nn.Module):
    """A network that says x, and remembers the numbers by which it was told its level."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[float] = []

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        self.told.append(float(label[0]))
        return x


@pytest.mark.parametrize("grid", GRIDS)
def test_a_network_is_told_the_step_of_the_table_where_the_solver_stands(grid: str) -> None:
    """Fractional steps between the nodes; whole ones if the plan was moved to them."""
    table, network = Table.linear(), Labelled()
    model = Model(network, table, V())
    nodes = table.nodes()
    for moved in (False, True):
        network.told.clear()
        place = (lambda s, n: plans.at_nodes(table, GRIDS[grid](s, n))) if moved else GRIDS[grid]
        how = Sampler(SAMPLERS["dpmpp-2m"].solver, grid=place)
        ended(how, table, 9, range(2), denoise=model.given())
        stands = [ratio(move.here) for move in how.plan(table, 9)]
        assert len(network.told) == len(stands)
        if moved:
            assert all(told.is_integer() for told in network.told)
            assert stands == [float(nodes.sigma[int(t)] / nodes.alpha[int(t)]) for t in network.told]
        for told, stood in zip(network.told, stands, strict=True):
            level = table.level(torch.tensor((told + 1) / 1000, dtype=torch.float64))
            assert ratio(level) == pytest.approx(stood, rel=1e-5)  # the label is float32


# threads


def test_two_threads_on_one_model_get_what_each_gets_alone_to_the_bit() -> None:
    with seeded(0, "weights"):
        network = Little()
    model = Model(network, Table.linear(), V())
    wishes = [(name, range(9 * i, 9 * i + 3)) for i, name in enumerate(SAMPLERS)]
    make = lambda wish: ended(sampler(wish[0]), FEW[0], 5, wish[1], denoise=model.given())
    alone = [make(wish) for wish in wishes]
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(make, wishes))
    assert all(torch.equal(a, b) for a, b in zip(alone, both, strict=True))


class Little(nn.Module):
    """A network that bends x a little."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return torch.tanh(self.layer(torch.cat([x, label[:, None] / 1000], 1).float())).to(x)
