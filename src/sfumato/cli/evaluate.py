"""`sfumato evaluate`: figures of a run on pictures, with their errors."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:  # nothing heavy is imported until the command runs
    from sfumato.evaluation.flow_likelihood import Dequantise, FlowLikelihood
    from sfumato.evaluation.report import Question
    from sfumato.evaluation.variational import Bound

FLOWS: dict[str, tuple[Dequantise, ...]] = {
    "both": ("noise", "uniform"),
    "noise": ("noise",),
    "uniform": ("uniform",),
    "none": (),
}
STAGES = 9
"""How many reconstructions of a picture are shown, before the picture itself."""
ROWS = 8


def evaluate(
    run: Path = typer.Argument(..., metavar="RUN", help="A run folder, or a folder that diffusers wrote."),  # noqa: B008
    data: str = typer.Argument(..., metavar="DATA", help="A folder of pictures, an .npz file, or: digits."),
    nll: bool = typer.Option(False, "--nll", help="Likelihood: bits per dimension, two ways."),
    rate_distortion: bool = typer.Option(
        False, "--rate-distortion", help="What each bit buys: a curve, and reconstructions."
    ),
    number: int = typer.Option(128, "-n", "--number", help="How many pictures, drawn by the seed."),
    split: str | None = typer.Option(
        None, help="held-out, train or all, of the run's own data. [held-out; all of other data]"
    ),
    steps: int | None = typer.Option(
        None, help="Steps of the process. [a table's own; else continuous time]"
    ),
    variance: str | None = typer.Option(
        None, help="Of these steps: small, large or learned. [learned if the model has it, else small]"
    ),
    terms: str = typer.Option("50", help="How many of the steps each picture is shown, unbiased; or: all."),
    flow: str = typer.Option(
        "both", help="How the flow dequantises: noise, uniform or both; none: the bound alone."
    ),
    tolerance: float = typer.Option(1e-3, help="Of the flow's solver."),
    clip: bool | None = typer.Option(
        None, "--clip/--no-clip", help="Keep estimates in range. [the run's own]"
    ),
    seed: int = typer.Option(0, help="Decides the pictures and every draw."),
    batch: int = typer.Option(64, help="How many pictures at a time."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    weights: str = typer.Option("ema", help="ema, raw, or ema:0.05 for an average of this relative width."),
    out: Path | None = typer.Option(None, help="Folder of the results. [RUN/evaluation]"),  # noqa: B008
) -> None:
    """Measure how good a model is: likelihood, and the rate-distortion curve of the code that it is."""
    from sfumato.errors import SettingsError
    from sfumato.evaluation import likelihood, report
    from sfumato.evaluation.dormand_prince import DormandPrince
    from sfumato.evaluation.pictures import choose
    from sfumato.runs import load

    if not (nll or rate_distortion):
        raise SettingsError(
            "nothing was asked: give --nll (bits per dimension) or --rate-distortion (what each bit buys)"
        )
    if flow not in FLOWS:
        raise SettingsError(f"--flow is one of {', '.join(FLOWS)}, not {flow!r}")
    DormandPrince(tolerance)  # a mistake is told before any work is done
    opened = load(run, device, weights)
    process = likelihood.process_of(opened, steps, _variance(variance), _terms(terms))
    with _telling("reading pictures") as told:
        pictures = choose(opened, data, number, _split(split), seed, progress=told)
    question = report.Question(opened, pictures, process, likelihood.clips(opened, pictures, clip), seed)
    for line in question.about():
        typer.echo(line)
    how: dict[str, Any] = {"clip": question.clip, "seed": seed, "batch": batch}
    with _telling("bound") as told:
        found = likelihood.bound(opened, pictures, process, **how, told=told)
    target = opened.path / "evaluation" if out is None else out
    if nll:
        flows: list[FlowLikelihood] = []
        for kind in FLOWS[flow]:
            with _telling(f"flow, {kind}") as told:
                flows.append(
                    likelihood.flow(
                        opened, pictures, process, dequantise=kind, tolerance=tolerance, **how, told=told
                    )
                )
        _likelihood(target, question, found, flows, tolerance)
    if rate_distortion:
        _rate_distortion(target, question, found, how)


def _likelihood(
    target: Path, question: Question, found: Bound, flows: list[FlowLikelihood], tolerance: float
) -> None:
    """The likelihood as a table and as JSON."""
    from sfumato.cli.drawing import make_room
    from sfumato.evaluation import report
    from sfumato.files import write_json

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
    from sfumato.cli.drawing import make_room
    from sfumato.evaluation import likelihood, report
    from sfumato.evaluation.rate_distortion import rate_distortion, stages, write_curve
    from sfumato.files import write_json
    from sfumato.training.figures import write_grid

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


@contextmanager
def _telling(what: str) -> Generator[Callable[[int, int], None], None, None]:
    """A bar on a terminal while something takes its time."""
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(f"{what:<16}"), BarColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with bar:
        task = bar.add_task(what, total=1.0)
        yield lambda done, total: bar.update(task, completed=done / max(1, total))


def _terms(text: str) -> int | None:
    from sfumato.errors import SettingsError

    if text == "all":
        return None
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 8 and int(text)):
        raise SettingsError(f"--terms is a whole number from 1, or all, not {text!r}")
    return int(text)


def _variance(text: str | None) -> Any:
    from typing import get_args

    from sfumato.bound import Variance
    from sfumato.errors import SettingsError

    if text is not None and text not in get_args(Variance):
        raise SettingsError(f"--variance is one of {', '.join(get_args(Variance))}, not {text!r}")
    return text


def _split(text: str | None) -> Any:
    from typing import get_args

    from sfumato.errors import SettingsError
    from sfumato.evaluation.pictures import Split

    if text is not None and text not in get_args(Split):
        raise SettingsError(f"--split is one of {', '.join(get_args(Split))}, not {text!r}")
    return text
