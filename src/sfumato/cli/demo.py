"""`sfumato demo`: a model of handwritten digits in a few minutes, from nothing."""

from __future__ import annotations

from pathlib import Path

import typer

GUIDANCE = 2.0
"""Scale of the classifier-free guidance of the demo's pictures."""


def demo(
    out: Path = typer.Option(Path("runs/digits"), help="The run's folder; a run that is there goes on."),  # noqa: B008
    minutes: float = typer.Option(6.0, help="Minutes of training."),
    seed: int = typer.Option(0, help="Decides every draw of the run."),
    steps: int | None = typer.Option(None, help="Steps of training, in place of minutes."),
) -> None:
    """Train on the bundled digits on the CPU, then draw samples, a film and a loss curve.

    What comes of it lies in the run's folder: samples.png (ten rows, one for each digit), film.webp (noise
    becoming digits) and loss.png.
    """
    from sfumato.cli.train import train

    command = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    command.command()(train)
    length = ["--minutes", str(minutes)] if steps is None else ["--steps", str(steps)]
    options = ["--out", str(out), *length, "--model", "tiny", "--device", "cpu", "--seed", str(seed)]
    code = command(args=["digits", *options], prog_name="sfumato train", standalone_mode=False)
    if code:
        raise typer.Exit(code)
    from sfumato.cli.drawing import Film, draw
    from sfumato.runs import load

    run = load(out, "cpu")
    rows = [digit for digit in range(len(run.classes)) for _ in range(10)]
    recipe = run.recipe(len(rows), classes=rows, guidance=GUIDANCE)
    for path in draw(run, recipe, out / "samples.png", 10, Film(out / "film.webp")):
        typer.echo(f"wrote {path}")
    typer.echo(f"wrote {out / 'loss.png'}")
    typer.echo("")
    typer.echo("Go on with:")
    for line in (
        f"sfumato sample {out} --class 7 -n 16 --guidance {GUIDANCE:g} --out sevens.png",
        f"sfumato replay {out / 'samples.png'}",
        f"sfumato train digits --out {out}-longer --minutes 30",
        "sfumato train my-photos/ --out runs/mine",
    ):
        typer.echo(f"  {line}")
