"""`sfumato replay`: the same picture again."""

from __future__ import annotations

from pathlib import Path

import typer


def replay(
    image: Path = typer.Argument(..., metavar="IMAGE", help="A PNG that sfumato sample or edit wrote."),  # noqa: B008
    run: Path | None = typer.Option(None, "--run", help="The run, if it is not where it was."),  # noqa: B008
    source: list[Path] | None = typer.Option(  # noqa: B008
        None, "--source", help="Of an edit: a picture that it was made from, if it is not where it was."
    ),
    out: Path | None = typer.Option(None, help="Where to write the new picture too (x.png)."),  # noqa: B008
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
) -> None:
    """Make a picture again from what its file says, and compare the two.

    Of an edit the whole chain: pictures that it was made from, and that are gone, are made again too. The
    exit code is 0 where the two are the same, rounding aside, and 1 where they differ.
    """
    from sfumato.cli.again import again
    from sfumato.cli.edits.remade import edit_again
    from sfumato.editing.record import is_edit
    from sfumato.files.pictures import read_recipe

    edited = is_edit(read_recipe(image))
    found = edit_again(image, run, device, source or ()) if edited else again(image, run, device)
    typer.echo(f"{image}: {found.verdict}")
    if not found.verdict.identical:
        for change in found.changes:
            typer.echo(f"  {change}")
    if out is not None:
        found.write(out)
        typer.echo(str(out))
    if not found.verdict.same:
        raise typer.Exit(1)
