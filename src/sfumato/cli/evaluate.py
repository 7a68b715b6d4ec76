"""`sfumato evaluate`: whether a model is good, whether it merely memorised, and what to do next."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.core import TyperCommand

_PARTS, _LIKELIHOOD, _SAID = "Parts", "Likelihood", "Said"
_OF_A_RUN = ("number", "resize", "crop", "weights")


class InContext(TyperCommand):
    """A command that is told its own context, of the kind that its annotation names."""

    context_class = typer.Context


def evaluate(
    context: typer.Context,
    run: Path = typer.Argument(..., metavar="RUN", help="A run, or a folder of pictures that a model made."),  # noqa: B008
    data: str = typer.Argument(..., metavar="DATA", help="A folder of pictures, .npz, or: digits, emoji."),
    metrics: str | None = typer.Option(
        None, "--metrics", help="kid, fid, ... by commas, or: all.", rich_help_panel=_PARTS
    ),
    loss: bool = typer.Option(
        False, "--loss", help="The loss at each noise level: the overfit.", rich_help_panel=_PARTS
    ),
    novelty: bool = typer.Option(
        False, "--novelty", help="Whether it copies what it was trained on.", rich_help_panel=_PARTS
    ),
    coverage: bool = typer.Option(
        False, "--coverage", help="Which classes and kinds it leaves out.", rich_help_panel=_PARTS
    ),
    nll: bool = typer.Option(
        False, "--nll", help="Likelihood: bits per dimension, two ways.", rich_help_panel=_PARTS
    ),
    rate_distortion: bool = typer.Option(
        False,
        "--rate-distortion",
        help="What each bit buys: a curve, and reconstructions.",
        rich_help_panel=_PARTS,
    ),
    every: bool = typer.Option(False, "--all", help="All of these.", rich_help_panel=_PARTS),
    number: int | None = typer.Option(
        None,
        "-n",
        "--number",
        help="How many pictures: samples [as many as were held out, 200 to 1,000], and of --nll [128].",
    ),
    features: str = typer.Option("lite0", help="Whose eyes: lite0, inception, clip, dinov2, ..."),
    features_weights: Path | None = typer.Option(  # noqa: B008
        None, help="Their weights: a file, or a folder of clip and dinov2. [those in the usual places]"
    ),
    size: int | None = typer.Option(None, help="Of a folder of pictures: bring both to this side."),
    resize: str = typer.Option("crop", help="As it was said in training."),
    crop: float = typer.Option(0.0, help="As it was said in training."),
    seed: int = typer.Option(0, help="Decides the pictures and every draw."),
    batch: int = typer.Option(64, help="How many pictures at a time."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    weights: str = typer.Option("ema", help="ema, raw, step:12000 of a checkpoint, or ema:0.05 for a width."),
    out: Path | None = typer.Option(None, help="Folder of the results. [RUN/evaluation]"),  # noqa: B008
    split: str | None = typer.Option(
        None,
        help="Of --nll: held-out, train or all of the run's own data. [held-out; all of other data]",
        rich_help_panel=_LIKELIHOOD,
    ),
    steps: int | None = typer.Option(
        None,
        help="Of --nll: steps of the process. [a table's own; else continuous]",
        rich_help_panel=_LIKELIHOOD,
    ),
    variance: str | None = typer.Option(
        None,
        help="Of these steps: small, large or learned. [learned if it has it, else small]",
        rich_help_panel=_LIKELIHOOD,
    ),
    terms: str = typer.Option(
        "50",
        help="Of --nll: how many of the steps each picture is shown, unbiased; or: all.",
        rich_help_panel=_LIKELIHOOD,
    ),
    flow: str = typer.Option(
        "both",
        help="Of --nll: how the flow dequantises: noise, uniform or both; none: the bound alone.",
        rich_help_panel=_LIKELIHOOD,
    ),
    tolerance: float = typer.Option(
        1e-3, help="Of --nll: of the flow's solver.", rich_help_panel=_LIKELIHOOD
    ),
    clip: bool | None = typer.Option(
        None,
        "--clip/--no-clip",
        help="Of --nll: keep estimates in range. [the run's own]",
        rich_help_panel=_LIKELIHOOD,
    ),
    licence: str | None = typer.Option(None, help="The model's, as apache-2.0.", rich_help_panel=_SAID),
    data_licence: str | None = typer.Option(None, help="The data's.", rich_help_panel=_SAID),
    watts: float | None = typer.Option(
        None, help="Nominal power of the machine, for the energy.", rich_help_panel=_SAID
    ),
) -> None:
    """Measure a run and write its report: how far its pictures are from real ones, whether it overfits,
    copies or leaves anything out, each with its error and beside what real pictures reach, and what to do
    next. Without single parts: --metrics all --loss --novelty --coverage. The report is one offline page,
    RUN/evaluation/report.html; RUN/README.md is the model card."""
    from sfumato.cli import evaluating
    from sfumato.cli.likelihood import Asked
    from sfumato.reporting.energy import estimate
    from sfumato.reporting.measuring import Said
    from sfumato.reporting.subject import is_run

    estimate(0.0, watts)  # a mistake is told before any work is done
    parts = evaluating.parts(metrics, loss, novelty, coverage, nll, rate_distortion, every)
    look = lambda where: evaluating.looking(features, features_weights, where, batch, seed)
    pictures = not is_run(run) and run.exists()
    _check_said(context, pictures, parts.nll or parts.rate_distortion)
    if pictures:
        evaluating.folder(run, data, parts, look, device, size, out)
        return
    asked = Asked(
        parts.nll, parts.rate_distortion, number, split, steps, variance, terms, flow, tolerance, clip,
        seed, batch,
    )  # fmt: skip
    said = Said(licence, data_licence, watts)
    evaluating.run(
        run, data, parts, look, asked, said,
        evaluating.Opening(device, weights, resize, crop, out),
    )  # fmt: skip


def _check_said(context: typer.Context, pictures: bool, likelihood: bool) -> None:
    """Raises SettingsError for an option that would do nothing: of a run where there are pictures alone, of a
    folder where there is a run, of the likelihood where that is not measured."""
    from sfumato.errors import SettingsError

    for one in context.command.params:
        source = context.get_parameter_source(one.name or "")
        if source is None or source.name != "COMMANDLINE":
            continue
        panel = getattr(one, "rich_help_panel", None)
        if pictures and (one.name in _OF_A_RUN or panel in (_LIKELIHOOD, _SAID)):
            why = "of a run, and this is a folder of pictures"
        elif not pictures and one.name == "size":
            why = "of a folder of pictures; a run has its own size"
        elif panel == _LIKELIHOOD and not likelihood:
            why = "of --nll, which was not asked for"
        else:
            continue
        raise SettingsError(f"{one.opts[-1]} is {why}: leave it out")


def report(
    run: Path = typer.Argument(..., metavar="RUN", help="A run that was evaluated."),  # noqa: B008
    licence: str | None = typer.Option(None, help="The model's, as apache-2.0."),
    data_licence: str | None = typer.Option(None, help="The data's."),
    watts: float | None = typer.Option(None, help="Nominal power of the machine, for the energy."),
) -> None:
    """Make the report and the model card of a run again, from what is stored. Nothing is measured."""
    from sfumato.cli.evaluating import written
    from sfumato.data.bundled import home_of, model_path
    from sfumato.errors import RunError
    from sfumato.reporting.energy import estimate
    from sfumato.reporting.measuring import Said
    from sfumato.reporting.stored import stored

    estimate(0.0, watts)
    folder = model_path(run)
    home = home_of(folder) / "evaluation"
    found = stored(folder, home)
    if not home.is_dir():
        raise RunError(f"{run}: not evaluated yet: sfumato evaluate {run} DATA")
    Said(licence, data_licence, watts).kept(home)
    written(stored(folder, home, found.card))


def compare(
    a: Path = typer.Argument(..., metavar="A", help="A run that was evaluated, or a records.json."),  # noqa: B008
    b: Path = typer.Argument(..., metavar="B", help="Another."),  # noqa: B008
) -> None:
    """Compare what was measured of two runs: the difference of each metric with its interval. Figures that
    were not measured alike are not compared, and it is said why."""
    from sfumato.cli.evaluating import comparison

    for line in comparison(a, b):
        typer.echo(line)
