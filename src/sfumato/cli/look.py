"""`sfumato look`: inside a run."""

from __future__ import annotations

from pathlib import Path

import typer


def look(
    run: str = typer.Argument(
        ...,
        metavar="RUN",
        help="A run folder; or a schedule by its name (cosine, linear, ...) or file, for its plot.",
    ),
    data: str | None = typer.Argument(
        None, metavar="DATA", help="For the loss: the pictures that it was trained on."
    ),
    schedule: bool = typer.Option(False, "--schedule", help="The schedule, and where training looks."),
    loss: bool = typer.Option(
        False, "--loss", help="The loss per noise level, training and held-out, beside the least possible."
    ),
    uncertainty: bool = typer.Option(
        False, "--uncertainty", help="The deviation of each pixel, over seeds and along the way of a picture."
    ),
    out: Path | None = typer.Option(None, help="The folder for what is found. [RUN/look]"),  # noqa: B008
    pictures: int = typer.Option(256, help="Of the loss: training pictures, and as many held-out ones."),
    resize: str = typer.Option("crop", help="Of the loss: as it was said in training."),
    crop: float = typer.Option(0.0, help="Of the loss: as it was said in training."),
    number: int = typer.Option(
        32, "-n", "--number", help="Of the uncertainty: pictures of each class, and endings of each x_t."
    ),
    class_: list[str] | None = typer.Option(  # noqa: B008
        None, "--class", help="Of the uncertainty: classes by name or number, by commas. [the first ten]"
    ),
    steps: int | None = typer.Option(None, help="Of the uncertainty: steps. [the run's own]"),
    guidance: float | None = typer.Option(None, help="Of the uncertainty: as for sample. [the run's own]"),
    seed: int = typer.Option(0, help="Decides what is drawn."),
    batch: int = typer.Option(64, help="How many pictures at a time."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    weights: str = typer.Option("ema", help="ema, raw, step:12000 of a checkpoint, or ema:0.05 for a width."),
) -> None:
    """Look inside a run: its schedule, its loss at each noise level, how sure it is. Without --schedule,
    --loss or --uncertainty: all three, the loss if DATA is given. Figures go into a folder."""
    from sfumato.cli import looking
    from sfumato.data.bundled import home_of
    from sfumato.errors import SettingsError
    from sfumato.runs import load

    every = not (schedule or loss or uncertainty)
    if looking.is_schedule(run):
        if loss or uncertainty or data is not None:
            raise SettingsError(f"{run} is a schedule and no run: there is only its plot to look at")
        looking.show(looking.schedule(run, out or Path("look")))
        return
    if loss and data is None:
        raise SettingsError(
            f"--loss needs the pictures that {run} was trained on: sfumato look {run} DATA --loss"
        )
    if data is not None and not (loss or every):
        raise SettingsError("DATA is looked at by --loss alone: add --loss, or leave DATA out")
    opened = load(run, device, weights)
    folder = out or home_of(opened.path) / "look"
    if schedule or every:
        looking.show(looking.schedule(opened, folder))
    if data is not None:
        looking.show(looking.loss(opened, data, folder, pictures, seed, batch, resize, crop))
    if uncertainty or every:
        how = looking.Drawing(number, class_ or [], steps, guidance, seed, batch)
        looking.show(looking.uncertainty(opened, how, folder))
