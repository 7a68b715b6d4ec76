"""`sfumato replay`: the same picture again."""

from __future__ import annotations

from pathlib import Path

import typer


def replay(
    image: Path = typer.Argument(..., metavar="IMAGE", help="A PNG that `sfumato sample` wrote."),  # noqa: B008
    run: Path | None = typer.Option(None, "--run", help="The run, if it is not where it was."),  # noqa: B008
    out: Path | None = typer.Option(None, help="Where to write the new picture too (x.png)."),  # noqa: B008
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
) -> None:
    """Make a picture again from what its file says, and compare the two.

    The exit code is 0 where the two are the same, rounding aside, and 1 where they differ.
    """
    from sfumato.cli.again import again

    found = again(image, run, device)
    typer.echo(f"{image}: {found.verdict}")
    if not found.verdict.identical:
        for change in found.changes:
            typer.echo(f"  {change}")
    if out is not None:
        found.write(out)
        typer.echo(str(out))
    if not found.verdict.same:
        raise typer.Exit(1)
