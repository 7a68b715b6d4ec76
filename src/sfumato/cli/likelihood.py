"""The parts of `sfumato evaluate` that are about likelihood: bits per dimension, and what each bit buys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import typer

from sfumato.bound import Variance
from sfumato.cli.drawing import make_room
from sfumato.cli.telling import telling
from sfumato.errors import SettingsError
from sfumato.evaluation import likelihood, report
from sfumato.evaluation.dormand_prince import DormandPrince
from sfumato.evaluation.flow_likelihood import Dequantise, FlowLikelihood
from sfumato.evaluation.pictures import Split, choose
from sfumato.evaluation.rate_distortion import rate_distortion, stages, write_curve
from sfumato.evaluation.report import Question
from sfumato.evaluation.variational import Bound, Process
from sfumato.files import write_json
from sfumato.runs import Run
from sfumato.training.figures import write_grid

FLOWS: dict[str, tuple[Dequantise, ...]] = {
    "both": ("noise", "uniform"),
    "noise": ("noise",),
    "uniform": ("uniform",),
    "none": (),
}
STAGES = 9
"""How many reconstructions of a picture are shown, before the picture itself."""
ROWS = 8
PICTURES = 128
"""If nobody says how many."""


@dataclass(frozen=True)
class Asked:
    """What was asked, as the options say it. Raises SettingsError for what cannot be, before any work."""

    nll: bool
    rate_distortion: bool
    number: int | None
    split: str | None
    steps: int | None
    variance: str | None
    terms: str
    flow: str
    tolerance: float
    clip: bool | None
    seed: int
    batch: int

    def __post_init__(self) -> None:
        if self.flow not in FLOWS:
            raise SettingsError(f"--flow is one of {', '.join(FLOWS)}, not {self.flow!r}")
        _one_of("--variance", self.variance, get_args(Variance))
        _one_of("--split", self.split, get_args(Split))
        _ = self.shown
        DormandPrince(self.tolerance)

    @property
    def shown(self) -> int | None:
        """How many of the steps each picture is shown; None for all."""
        text = self.terms
        if text == "all":
            return None
        if not (text.isascii() and text.isdigit() and 0 < len(text) < 8 and int(text)):
            raise SettingsError(f"--terms is a whole number from 1, or all, not {text!r}")
        return int(text)


def process(run: Run, asked: Asked) -> Process:
    """The process whose bound is taken. Raises SettingsError for one that this model does not have."""
    variance: Any = asked.variance
    return likelihood.process_of(run, asked.steps, variance, asked.shown)


def measure(run: Run, data: str, asked: Asked, process: Process, target: Path) -> None:
    """Both parts, those that were asked for."""
    split: Any = asked.split
    number = PICTURES if asked.number is None else asked.number
    with telling("reading pictures") as told:
        pictures = choose(run, data, number, split, asked.seed, progress=told)
    clips = likelihood.clips(run, pictures, asked.clip)
    question = report.Question(run, pictures, process, clips, asked.seed)
    for line in question.about():
        typer.echo(line)
    how: dict[str, Any] = {"clip": question.clip, "seed": asked.seed, "batch": asked.batch}
    with telling("bound") as told:
        found = likelihood.bound(run, pictures, process, **how, told=told)
    if asked.nll:
        flows: list[FlowLikelihood] = []
        for kind in FLOWS[asked.flow]:
            with telling(f"flow, {kind}") as told:
                flows.append(
                    likelihood.flow(
                        run, pictures, process, dequantise=kind, tolerance=asked.tolerance, **how, told=told
                    )
                )
        _likelihood(target, question, found, flows, asked.tolerance)
    if asked.rate_distortion:
        _rate_distortion(target, question, found, how)


def _likelihood(
    target: Path, question: Question, found: Bound, flows: list[FlowLikelihood], tolerance: float
) -> None:
    """The likelihood as a table and as JSON."""
    bits = question.pictures.bins.count.bit_length() - 1
    typer.echo(f"\nbits per dimension of {bits}-bit pictures, +- standard error over the pictures")
    for line in report.bound_lines(question.process, found):
        typer.echo(line)
    for one in flows:
        for line in report.flow_lines(one, found.bits):
            typer.echo(line)
    said = question.to_json() | {"bound": report.bound_json(question.process, found)}
    said["flow"] = [{**report.flow_json(one, found.bits), "tolerance": tolerance} for one in flows]
    make_room(target)
    write_json(target / "likelihood.json", said)
    typer.echo(str(target / "likelihood.json"))


def _rate_distortion(target: Path, question: Question, found: Bound, how: dict[str, Any]) -> None:
    """The curve as a table, as JSON and as a figure, and reconstructions as a grid."""
    points, shown = rate_distortion(found, question.pictures.bins), stages(found, STAGES)
    typer.echo("\nrate and distortion of the progressive code")
    for line in report.curve_lines(points):
        typer.echo(line)
    rows = likelihood.reconstructions(question.run, question.pictures.take(range(ROWS)), found, shown, **how)
    make_room(target)
    curve, figure, progressive = (
        target / name for name in ("rate-distortion.json", "rate-distortion.png", "progressive.png")
    )
    write_json(
        curve,
        question.to_json()
        | {"process": report.process_json(question.process)}
        | report.curve_json(points, shown, found),
    )
    write_curve(figure, found, points)
    bins = question.pictures.bins
    write_grid(progressive, (rows - bins.low) / (bins.high - bins.low) * 2 - 1, len(shown) + 1)
    for path in (curve, figure, progressive):
        typer.echo(str(path))


def _one_of(option: str, text: str | None, allowed: tuple[str, ...]) -> None:
    if text is not None and text not in allowed:
        raise SettingsError(f"{option} is one of {', '.join(allowed)}, not {text!r}")
