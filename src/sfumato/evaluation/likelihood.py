"""Bits per dimension of a run: `bound` and `flow`, picture by picture.

run = sfumato.load("runs/digits")
pictures = choose(run, "digits", n=256)
bound(run, pictures).total, Mean.of(flow(run, pictures).bits)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.bound import Variance
from sfumato.denoiser import Denoiser
from sfumato.errors import RunError, SettingsError
from sfumato.evaluation import flow_likelihood, rate_distortion, variational
from sfumato.evaluation.dormand_prince import DormandPrince
from sfumato.evaluation.flow_likelihood import Dequantise, FlowLikelihood
from sfumato.evaluation.pictures import Pictures, bins_of
from sfumato.evaluation.rate_distortion import Stage
from sfumato.evaluation.variational import Bound, Continuous, Process, Steps, Told
from sfumato.level import Levels
from sfumato.noise import Noise
from sfumato.runs import Recipe, Run
from sfumato.tables import Table

TERMS = 50
"""How many levels each picture is shown where not every term is asked for."""


class Part(NamedTuple):
    """A batch: its pictures on the run's device, the denoiser with their classes bound, a stream for each."""

    x0: Tensor
    denoise: Denoiser
    noise: Noise


def _recipe(run: Run, pictures: Pictures, clip: bool | None, batch: int) -> Recipe:
    """The run's own words for these pictures: their classes, no guidance, clipping as the card says."""
    classes = None if pictures.classes is None else list(pictures.classes)
    return run.recipe(len(pictures), classes=classes, guidance=1.0, clip=clip, batch=batch)


def clips(run: Run, pictures: Pictures, clip: bool | None = None) -> bool:
    """Whether estimates of x0 are clipped: as asked, else as the card says."""
    return _recipe(run, pictures, clip, 1).clip


def parts(run: Run, pictures: Pictures, clip: bool | None, seed: int, batch: int) -> Iterator[Part]:
    """The pictures in batches. Sums are taken in float64 wherever the device has it."""
    dtype = torch.float32 if run.device.type == "mps" else torch.float64
    done = 0
    for some in _recipe(run, pictures, clip, batch).parts():
        places = range(done, done + len(some.seeds))
        x0 = pictures.x0[places.start : places.stop].to(run.device, dtype)
        yield Part(x0, run.denoiser(some), Noise.of(seed, "likelihood", places=places))
        done = places.stop


def process_of(
    run: Run, steps: int | None = None, variance: Variance | None = None, terms: int | None = TERMS
) -> Process:
    """The process whose bound is taken: a table's own steps, continuous time for a curve, or `steps` of
    either.

    terms: how many levels a picture is shown; None: every one, in continuous time 1000. variance: "learned"
    if the model has it, else "small". Raises SettingsError.
    """
    schedule, bins = run.model.schedule, bins_of(run.card)
    if variance == "learned" and not run.model.learned_variance:
        raise SettingsError(f"{run.name}: this model has no learned variance: use small or large")
    if steps is None and isinstance(schedule, Table):
        steps = schedule.steps
    if steps is not None:
        own: Variance = "learned" if run.model.learned_variance else "small"
        return Steps.of(schedule, steps, variance or own, terms, bins)
    if variance is not None:
        raise SettingsError(
            f"a variance ({variance}) is of a process in steps, and this model's is in continuous time: say "
            "how many --steps"
        )
    return Continuous.of(schedule, 1000 if terms is None else terms, bins)


def bound(
    run: Run,
    pictures: Pictures,
    process: Process | None = None,
    *,
    clip: bool | None = None,
    seed: int = 0,
    batch: int = 64,
    told: Told | None = None,
) -> Bound:
    """The variational bound, see `variational.bound`; of `process_of(run)` if no process is given.

    Estimates are clipped as the card says, if it is not said. Raises RunError for a figure that is not
    finite.
    """
    process = process or process_of(run)
    calls, batches = len(process.sizes) + 1, -(-len(pictures) // max(1, batch))
    found: list[Bound] = []

    def telling(done: int, _: int) -> None:
        if told is not None:
            told(len(found) * calls + done, batches * calls)

    for part in parts(run, pictures, clip, seed, batch):
        found.append(variational.bound(part.denoise, part.x0, process, part.noise, telling))
    whole = Bound.joined(found)
    _check(run, whole.bits)
    return whole


def flow(
    run: Run,
    pictures: Pictures,
    process: Process | None = None,
    *,
    dequantise: Dequantise = "uniform",
    tolerance: float = 1e-3,
    probes: int | None = 1,
    clip: bool | None = None,
    seed: int = 0,
    batch: int = 64,
    told: Told | None = None,
) -> FlowLikelihood:
    """The probability-flow ODE's likelihood, see `flow_likelihood.flow_likelihood`, between the ends of the
    process; of `process_of(run)` if none is given. told: pictures done."""
    process, solver = process or process_of(run), DormandPrince(tolerance)
    ask = flow_likelihood.flow_likelihood
    found: list[FlowLikelihood] = []
    for part in parts(run, pictures, clip, seed, batch):
        found.append(ask(part.denoise, part.x0, process, part.noise, dequantise, probes, solver))
        if told is not None:
            told(sum(len(one.bits) for one in found), len(pictures))
    whole = FlowLikelihood.joined(found)
    _check(run, whole.bits)
    return whole


def reconstructions(
    run: Run,
    pictures: Pictures,
    found: Bound,
    shown: Sequence[Stage],
    *,
    clip: bool | None = None,
    seed: int = 0,
    batch: int = 64,
) -> Tensor:
    """What is believed of each picture at each stage, then the picture itself: (n (stages + 1), C, H, W),
    float32 on the CPU, picture by picture."""
    at = [stage.edge for stage in shown]
    levels = Levels(found.edges.alpha[at], found.edges.sigma[at])
    rows: list[Tensor] = []
    for part in parts(run, pictures, clip, seed, batch):
        each = rate_distortion.reconstructions(part.denoise, part.x0, levels, part.noise)
        rows.append(torch.stack([*each, part.x0], dim=1).flatten(0, 1))
    return torch.cat(rows).float().cpu()


def _check(run: Run, bits: Tensor) -> None:
    wrong = ~bits.isfinite()
    if bool(wrong.any()):
        raise RunError(
            f"{run.name}: the likelihood of {int(wrong.sum())} of {len(bits)} pictures is not finite: the "
            "model's estimates are not, so train it again or take other --weights"
        )
