"""Samplers by name: everybody's spelling leads to one object, and every one works from one step up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from torch import Tensor

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.noise import Noise
from sfumato.predictions import Estimate
from sfumato.sampler_names import ALIASES, GRID_NAMES
from sfumato.samplers import GRIDS, KNOWN, SAMPLERS, Sampler, sampler, traits
from sfumato.sampling import prior
from sfumato.schedules import Cosine, Schedule
from sfumato.solvers.fresh import Ancestral, LargeVariance, Ode, Sde
from sfumato.solvers.multistep import Multistep
from sfumato.solvers.singlestep import Heun

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


def test_every_other_name_and_grid_leads_somewhere() -> None:
    assert set(ALIASES) <= set(KNOWN)
    assert set(GRID_NAMES.values()) == {"", *GRIDS}
    for name, others in ALIASES.items():
        for other in others:
            assert sampler(other) == SAMPLERS[name]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_grid_at_the_end_of_a_name_replaces_the_samplers_own(name: str, grid: str) -> None:
    found = sampler(f"{name}-{grid}")
    assert found.grid == GRIDS[grid]
    assert (found.solver, found.fresh, found.route) == (
        SAMPLERS[name].solver,
        SAMPLERS[name].fresh,
        SAMPLERS[name].route,
    )


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
    how: Sampler, schedule: Schedule, steps: int, seeds: range, watched: Watched | None = None
) -> Tensor:
    """Where a sampler takes these seeds, in float64."""
    noise = Noise(tuple(seeds))
    x = prior(how.start(schedule, steps), (2,), noise).double()
    for step in how.walk(watched or Watched([]), x, schedule, steps, noise):
        x = step.x
    return x


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_table_says_what_counting_finds(name: str) -> None:
    how = SAMPLERS[name]
    watched: list[int] = []
    for steps in (20, 40):
        seen = Watched([])
        ended(how, Cosine(), steps, range(1), seen)
        watched.append(len(seen.asked))
    assert traits(how).evaluations == pytest.approx((watched[1] - watched[0]) / 20, abs=0.1)
    assert traits(how).order == how.solver.order
    assert traits(how).stochastic == (how.fresh != Ode())
