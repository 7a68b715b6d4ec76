"""Samplers by name: everybody's spelling leads to one object, and every one works from one step up."""

from __future__ import annotations

import pytest

from sfumato import plans
from sfumato.errors import SettingsError
from sfumato.sampler_names import ALIASES, GRID_NAMES
from sfumato.samplers import GRIDS, KNOWN, SAMPLERS, Sampler, sampler
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
