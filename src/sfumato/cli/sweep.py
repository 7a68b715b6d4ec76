"""`sfumato sweep`: a small search for the settings of a run, at equal time for each trial."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:  # nothing heavy is imported until the command runs
    from sfumato.evaluation.features.extractor import Extractor
    from sfumato.training.interrupt import Interrupt
    from sfumato.training.settings import Habits
    from sfumato.tuning.ranking import Place
    from sfumato.tuning.sweep import Done, Sweep


def sweep(
    data: str = typer.Argument(..., metavar="DATA", help="A folder of pictures, .npz, or: digits, emoji."),
    out: Path = typer.Option(  # noqa: B008
        ..., "--out", "-o", help="The sweep's folder; a sweep that is there goes on."
    ),
    try_: list[str] | None = typer.Option(  # noqa: B008
        None,
        "--try",
        help="An option of sfumato train with its values, as lr=1e-4,3e-4,1e-3; more than once; one value "
        "holds for all. [lr, model (the width), schedule and dropout]",
    ),
    minutes: float | None = typer.Option(None, help="Minutes of training for each trial. [5]"),
    steps: int | None = typer.Option(None, help="Steps, in place of minutes."),
    images: int | None = typer.Option(None, help="Images seen, in place of minutes."),
    trials: int | None = typer.Option(
        None, help="How many combinations, drawn by the seed. [all, at most 12]"
    ),
    metric: str = typer.Option("loss", help="What decides: the held-out loss, or kid."),
    number: int = typer.Option(500, "-n", "--number", help="Pictures of a trial's KID; 0: no KID."),
    features: str | None = typer.Option(None, help="KID's eyes: lite0, inception, clip, dinov2. [lite0]"),
    features_weights: Path | None = typer.Option(  # noqa: B008
        None, help="The weights of these eyes. [what is installed or in the usual cache]"
    ),
    size: str | None = typer.Option(None, help="Side, or WIDTHxHEIGHT; from the data if not given."),
    channels: int | None = typer.Option(None, help="1 grey, 3 colour, 4 transparency."),
    resize: str = typer.Option("crop", help="How pictures of other shapes are fitted."),
    hold_out: float = typer.Option(0.05, help="Share that is not trained on, and judges."),
    seed: int = typer.Option(0, help="Decides which combinations, and every draw."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    workers: int = typer.Option(1, help="Threads that read ahead."),
    cache: Path | None = typer.Option(None, help="Where decoded pictures are kept."),  # noqa: B008
) -> None:
    """Try settings at equal time each, and rank them by the held-out loss on a common scale, and by KID.

    The same command goes on with a sweep that was stopped or killed. Ends with 130 after Ctrl-C.
    """
    from sfumato.cli.train import read_resize, read_size
    from sfumato.data.prepare import prepare
    from sfumato.training.device import choose_device
    from sfumato.training.interrupt import listening
    from sfumato.training.settings import Habits
    from sfumato.tuning.space import read_axes, usual_axes
    from sfumato.tuning.sweep import Sweep

    length = {name: value for name, value in (("minutes", minutes), ("steps", steps), ("images", images))
              if value is not None} or {"minutes": 5.0}  # fmt: skip
    _check(metric, number, (features, features_weights))
    said, where = read_axes(try_ or []), choose_device(device)
    with listening() as asked:
        pictures = prepare(
            data, size=read_size(size), multiple=4, channels=channels, resize=read_resize(resize),
            hold_out=hold_out, cache=cache,
        )  # fmt: skip
        whole = Sweep(
            pictures, said or usual_axes(pictures, where.type), length, trials,
            by="kid" if metric == "kid" else "loss", pictures=number, seed=seed, device=where.type,
            source=data, options=_options(size, channels, resize, hold_out),
        )  # fmt: skip
        places = _run(
            whole,
            out,
            _eyes(number, features or "lite0", features_weights, device),
            Habits(device, workers),
            asked,
        )
        if places is None:
            typer.echo(f"stopped by a signal; every trial is kept in {out}, and the same command goes on")
            raise typer.Exit(asked.exit_code)
    _tell(places, whole, out)


def _check(metric: str, number: int, eyes: tuple[str | None, Path | None]) -> None:
    from sfumato.errors import SettingsError

    if metric not in ("loss", "kid"):
        raise SettingsError(f"--metric is loss or kid, not {metric!r}")
    if number < 0:
        raise SettingsError(f"-n {number}: give a whole number from 0")
    if not number and eyes != (None, None):
        raise SettingsError("-n 0 is no KID, so nothing looks at pictures: leave --features or the -n out")


def _eyes(number: int, name: str, weights: Path | None, device: str) -> Extractor | None:
    from sfumato.evaluation.features.extractor import open_extractor
    from sfumato.training.device import choose_device

    return open_extractor(name, weights, choose_device(device)) if number else None


def _options(size: str | None, channels: int | None, resize: str, hold_out: float) -> tuple[str, ...]:
    """The options of the data that sfumato train is to be told too."""
    out = [] if size is None else ["--size", size]
    out += [] if channels is None else ["--channels", str(channels)]
    out += [] if resize == "crop" else ["--resize", resize]
    out += [] if hold_out == 0.05 else ["--hold-out", f"{hold_out:g}"]
    return tuple(out)


def _run(
    whole: Sweep, out: Path, eyes: Extractor | None, habits: Habits, asked: Interrupt
) -> list[Place] | None:
    """Runs the sweep and says how it goes; the ranking, None where it was stopped."""
    from sfumato.tuning.space import words
    from sfumato.tuning.sweep import Done, run_sweep

    name, each = next(iter(whole.length.items()))
    count, last = len(whole.every), 0
    typer.echo(f"{count} trials of {each:g} {name} each")
    ran = run_sweep(whole, out, eyes, habits, asked, typer.echo)
    while True:
        try:
            event = next(ran)
        except StopIteration as end:
            return end.value
        if isinstance(event, Done):
            typer.echo(_done(event, count))
            continue
        if event.number != last:
            last = event.number
            typer.echo(f"trial {last} of {count}: {words(whole.every[last - 1])}")
        if sys.stderr.isatty():
            step = event.step
            end = "\n" if step.last else ""
            print(f"\r  step {step.step}  {step.share:4.0%}", end=end, file=sys.stderr, flush=True)


def _done(event: Done, count: int) -> str:
    """What came of a trial, in a line."""
    one = event.result
    head = f"  trial {one.number} of {count}" + (", judged before" if event.again else "")
    if one.failed is not None:
        return f"{head}: failed, {one.failed}"
    loss = "" if one.loss is None else f": held-out loss {one.loss}"
    kid = "" if one.kid is None else f", KID x 1000 {1000 * one.kid.value:.2f}"
    return f"{head}{loss}{kid}, {one.steps} steps"


def _tell(places: list[Place], whole: Sweep, out: Path) -> None:
    from sfumato.tuning.ranking import legend, table, winner
    from sfumato.tuning.sweep import TRIALS, command

    for line in (*table(places, whole.by), *legend(places, whole.by)):
        typer.echo(line)
    best = winner(places, whole.by)
    for name in ("table.md", "results.json", "curves.png", "winner.json"):
        typer.echo(f"  {out / name}")
    typer.echo(f"the winner is a run, {out / TRIALS / f'{best.number:03d}'}; train another like it with")
    typer.echo(f"  {command(whole, best)}")
