"""`sfumato tune-sampler`: the best sampler of a run for so many evaluations, kept as its default."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

if TYPE_CHECKING:  # nothing heavy is imported until the command runs
    from sfumato.conditions.schema import Wish
    from sfumato.data.dataset import DataSet
    from sfumato.runs import Run
    from sfumato.tuning.sampler import Metric, Question
    from sfumato.tuning.verdict import Tuning


def tune_sampler(
    run: Path = typer.Argument(..., metavar="RUN", help="A run folder, or a folder that diffusers wrote."),  # noqa: B008
    steps: int | None = typer.Option(
        None,
        help="Evaluations of the model for a picture: solvers that look several times a step take fewer "
        "steps, guidance is not counted. [what the run's default takes]",
    ),
    metric: str = typer.Option(
        "error",
        help="error: distance from the model's own fine solution, of samplers without new noise; kid: how "
        "alike the pictures are to --data or to the fine solution's, of all samplers.",
    ),
    data: str | None = typer.Option(
        None, help="Real pictures for kid, a folder, .npz, digits or emoji; what they are the model is told."
    ),
    class_: list[str] | None = typer.Option(  # noqa: B008
        None, "--class", help="A class by name or number; several by commas. [all, in turns]"
    ),
    prompt: list[str] | None = typer.Option(None, "--prompt", help="For models with text; several times."),  # noqa: B008
    set_: list[str] | None = typer.Option(None, "--set", help="An attribute, as in age=0.7; several times."),  # noqa: B008
    guidance: str | None = typer.Option(None, help="As for sfumato sample. [the run's own]"),
    number: int | None = typer.Option(
        None, "-n", "--number", help="Pictures of each figure. [128; of kid 512]"
    ),
    table: str = typer.Option("5,8,10,15,20,30,50", help="The evaluations that the table shows."),
    fine: int = typer.Option(150, help="Evaluations of the fine solution."),
    features: str | None = typer.Option(
        None, help="Whose eyes kid has: lite0, inception, clip or dinov2. [lite0]"
    ),
    features_weights: Path | None = typer.Option(  # noqa: B008
        None, help="The weights of these eyes. [what is installed or in the usual cache]"
    ),
    store: bool = typer.Option(True, "--store/--no-store", help="Keep a better sampler as the default."),
    restore: bool = typer.Option(False, "--restore", help="Bring back the default before the last tuning."),
    seed: int = typer.Option(0, help="Decides every picture."),
    batch: int = typer.Option(64, help="How many pictures at a time."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    weights: str = typer.Option("ema", help="ema, raw, step:12000 of a checkpoint, or ema:0.05 for a width."),
    out: Path | None = typer.Option(None, help="x.json: everything that was found, also there."),  # noqa: B008
) -> None:
    """Find the sampler that suits this model and so many evaluations: solver, grid and new noise.

    The best of a race is compared with the run's present default from fresh noise. If it is better by more
    than the error it becomes the default, and RUN/tuning.json keeps the one before.
    """
    from sfumato.errors import SettingsError

    if restore:
        _restore(run)
        return
    if metric not in ("error", "kid"):
        raise SettingsError(f"--metric is error or kid, not {metric!r}")
    if out is not None and out.suffix != ".json":
        raise SettingsError(f"--out {out}: what was found is written as x.json")
    from sfumato.cli.wishes import scale_of
    from sfumato.runs import load

    counts, scale = _counts(table), scale_of(guidance)
    opened = load(run, device, weights)
    found = _tuned(
        opened, metric, data, features, features_weights,
        evaluations=_cost(opened) if steps is None else steps,
        wishes=_wishes(opened, class_ or [], prompt or [], set_ or [], data),
        pictures=number if number is not None else 128 if metric == "error" else 512,
        guidance=scale, fine=fine, counts=counts, seed=seed, batch=batch,
    )  # fmt: skip
    for line in found.lines():
        typer.echo(line)
    _write(out, found)
    _keep(opened, found, scale, store)


def _write(out: Path | None, found: Tuning) -> None:
    """Everything that was found, where it is asked for."""
    from sfumato.cli.drawing import make_room
    from sfumato.files import write_json

    if out is not None:
        make_room(out.parent)
        write_json(out, found.to_json())


def _tuned(
    opened: Run,
    metric: str,
    data: str | None,
    eyes: str | None,
    weights: Path | None,
    **said: Any,
) -> Tuning:
    """Runs the race, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from sfumato.errors import SettingsError
    from sfumato.evaluation.features.extractor import open_extractor
    from sfumato.tuning.sampler import Question, tune

    if metric == "error" and (eyes is not None or weights is not None):
        raise SettingsError("--features is of --metric kid: add that, or leave it out")
    question = Question(
        opened, metric=cast("Metric", metric), data=None if data is None else _data(opened, data),
        extractor=open_extractor(eyes or "lite0", weights, opened.device) if metric == "kid" else None,
        **said,
    )  # fmt: skip
    _about(question)
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), console=console, transient=True,
        disable=not sys.stderr.isatty(),
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=1.0)
        return tune(
            question,
            lambda words, done, total: bar.update(
                task, description=words, completed=done, total=max(1, total)
            ),
        )


def _about(question: Question) -> None:
    """What is tuned, and how."""
    from sfumato.tuning.sampler import present

    run, own = question.run, question.run.card.sampler
    eta = "" if own.eta is None else f", eta {own.eta:g}"
    typer.echo(f"default    {own.name}, {own.steps} steps{eta}")
    asked = question.asked(0, question.wishes)
    recipe = asked.recipe(*present(run, question.evaluations), range(len(question.wishes)))
    scales = ", ".join(f"{name} {scale:g}" for name, scale in recipe.scales.items())
    typer.echo(f"guidance   {scales or format(recipe.guidance, 'g')}")
    typer.echo(f"budget     {question.evaluations} evaluations a picture")


def _cost(run: Run) -> int:
    """The evaluations that the run's default takes. Raises SettingsError where that is no number."""
    from sfumato.errors import SettingsError
    from sfumato.tuning.sampler import default_cost

    cost = default_cost(run)
    if cost is None:
        raise SettingsError(f"{run.name}: its default sampler chooses its own steps: say --steps")
    return cost


def _data(run: Run, data: str) -> DataSet:
    from sfumato.data.bundled import open_source
    from sfumato.data.prepare import prepare

    source = open_source(data)
    return prepare(source, **run.card.fitting(source))


def _wishes(
    run: Run, classes: list[str], prompts: list[str], settings: list[str], data: str | None
) -> tuple[Wish, ...]:
    from sfumato.cli.wishes import settings_of
    from sfumato.errors import SettingsError
    from sfumato.tuning.asked import wishes_of

    if data is not None and (classes or prompts or settings):
        raise SettingsError("--data says itself what the pictures are: leave --class, --prompt and --set out")
    named = [part.strip() for said in classes for part in said.split(",") if part.strip()]
    return wishes_of(run, named, prompts, settings_of(settings))


def _counts(text: str) -> tuple[int, ...]:
    from sfumato.errors import SettingsError

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdigit() and 0 < int(part) <= 1000 for part in parts):
        raise SettingsError(f"--table is numbers of evaluations from 1 to 1000, as in 5,10,20, not {text!r}")
    return tuple(sorted({int(part) for part in parts}))


def _keep(run: Run, found: Tuning, scale: float | dict[str, float] | None, store: bool) -> None:
    """Keeps a better sampler, or says how to sample by it."""
    from sfumato.card import CARD
    from sfumato.data.bundled import bundled_name
    from sfumato.tuning.kept import keep

    best = found.verdict.winner
    if not found.better or best is None:
        return
    eta = "" if best.candidate.eta is None else f" --eta {best.candidate.eta:g}"
    ours = (run.path / CARD).is_file() and bundled_name(run.path) is None
    if not (store and ours):
        why = "" if ours else f" ({run.name} keeps no default of yours)"
        typer.echo(f"not stored{why}; sample by it with")
        typer.echo(f"  sfumato sample {run.name} --sampler {best.candidate.name} --steps {best.steps}{eta}")
        return
    card = keep(run, found, scale if isinstance(scale, float) else None)
    typer.echo(f"stored as the default of {run.name}: {card.sampler.name}, {card.sampler.steps} steps{eta}")
    typer.echo(f"  sfumato tune-sampler {run.name} --restore    brings the old one back")


def _restore(folder: Path) -> None:
    from sfumato.tuning.kept import restore

    own = restore(folder).sampler
    eta = "" if own.eta is None else f", eta {own.eta:g}"
    typer.echo(f"the default of {folder} is {own.name}, {own.steps} steps{eta}, again")
