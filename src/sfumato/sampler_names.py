"""What people call samplers: A1111's names, k-diffusion's and ComfyUI's, diffusers' classes.

A name is a base and, if wanted, a grid: "DPM++ 2M Karras", "dpmpp_2m karras" and "DPMSolverMultistepScheduler
Karras" are all ("dpmpp-2m", "karras"). Nothing here knows what the words stand for.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

ALIASES: Mapping[str, tuple[str, ...]] = {
    "vab": ("recommended", "best"),
    "ddim": ("DDIMScheduler", "dpm-solver-1", "dpmpp-1"),
    "euler": ("EulerDiscreteScheduler", "EDMEulerScheduler"),
    "ddpm": ("DDPMScheduler",),
    "euler-a": ("Euler a", "EulerAncestralDiscreteScheduler"),
    "lcm": ("LCMScheduler", "consistency", "CMStochasticIterativeScheduler"),
    "dpmpp-2m": (
        "DPM++ 2M",
        "DPMSolverMultistepScheduler",
        "EDMDPMSolverMultistepScheduler",
        "dpmsolver++",
        "res_multistep",
    ),
    "dpmpp-2m-sde": (
        "DPM++ 2M SDE",
        "DPM++ 2M SDE Heun",
        "CosineDPMSolverMultistepScheduler",
        "sde-dpmsolver++",
    ),
    "dpmpp-3m-sde": ("DPM++ 3M SDE",),
    "unipc": ("UniPCMultistepScheduler", "uni_pc", "uni_pc_bh2", "unipc-2"),
    "dpm-solver-2m": ("dpmsolver", "deis-2"),
    "deis": ("DEISMultistepScheduler", "dpm-solver-3m", "deis-3"),
    "lms": ("LMSDiscreteScheduler",),
    "plms": ("IPNDMScheduler", "ipndm"),
    "pndm": ("PNDMScheduler",),
    "heun": ("HeunDiscreteScheduler",),
    "dpm2": ("KDPM2DiscreteScheduler", "dpm_2"),
    "dpm-fast": ("DPM-Solver-fast",),
    "dpmpp-2s-strides": ("DPMSolverSinglestepScheduler",),
    "dpm2-a": ("DPM2 a", "dpm_2_ancestral", "KDPM2AncestralDiscreteScheduler"),
    "dpmpp-2s-a": ("DPM++ 2S a", "dpmpp_2s_ancestral"),
    "dpmpp-sde": ("DPM++ SDE", "DPMSolverSDEScheduler"),
    "pc": ("predictor-corrector", "ScoreSdeVeScheduler"),
    "langevin": ("annealed-langevin",),
    "dpm-adaptive": ("DPM adaptive", "dpm-solver-23"),
    "dpm-adaptive-12": ("dpm-solver-12",),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler",),
    "flow-heun": ("FlowMatchHeunDiscreteScheduler",),
}
"""Names of the same sampler, as their programs write them."""

GRID_NAMES: Mapping[str, str] = {
    "karras": "karras",
    "log-snr": "log-snr",
    "exponential": "log-snr",
    "polyexponential": "log-snr",
    "uniform": "uniform",
    "normal": "uniform",
    "trailing": "trailing",
    "simple": "trailing",
    "sgm-uniform": "trailing",
    "leading": "leading",
    "ddim-uniform": "leading",
    "bounded": "bounded",
    "interior": "interior",
    "late": "late",
    "fast": "fast",
    "automatic": "",
}
"""The second half of a name. A1111's and ComfyUI's simple, SGM uniform and DDIM uniform round to whole steps
of the table, so they may stand up to a step beside ours; "automatic" leaves a sampler its own grid."""


def plain(name: str) -> str:
    """A name without the habits of its program: "sample_dpmpp_2s_ancestral" and "DPM++ 2S a" are
    "dpmpp-2s-a"."""
    words = name.lower().replace("++", "pp").replace("_", " ").replace("-", " ").split()
    text = "-".join(words).removeprefix("sample-").removeprefix("k-")
    return text.replace("-gpu", "").replace("-ancestral", "-a")


_KNOWN = {plain(also): name for name, others in ALIASES.items() for also in others}


def split(name: str, bases: Iterable[str]) -> tuple[str, str] | None:
    """(base, grid) of a name, the grid "" where it says none; None for a name that nobody knows."""
    known = _KNOWN | {base: base for base in bases}
    text = plain(name)
    if text in known:
        return known[text], ""
    for said in sorted(GRID_NAMES, key=len, reverse=True):
        base = known.get(text.removesuffix(f"-{said}"))
        if base is not None:
            return base, GRID_NAMES[said]
    return None


def nearest(name: str, bases: Iterable[str]) -> list[str]:
    """Up to three of our names that are spelt like this one, the nearest first."""
    known = _KNOWN | {base: base for base in bases}
    close = difflib.get_close_matches(plain(name), known, n=5, cutoff=0.5)
    return list(dict.fromkeys(known[text] for text in close))[:3]
