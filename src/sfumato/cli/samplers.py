"""`sfumato samplers`: the samplers by name, and what each is good for."""

from __future__ import annotations

from collections.abc import Sequence

import typer

HEADS = ("name", "order", "evaluations", "noise", "steps", "good for", "also called")


def samplers(
    json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """List the samplers: order, evaluations of the model a step, new noise or none, usual steps, what they
    are good for.

    Any name may end in a grid; they are named below the table.
    """
    from json import dumps

    from sfumato.samplers import GRIDS

    rows = table()
    if json:
        typer.echo(dumps([dict(zip(HEADS, row, strict=True)) for row in rows], indent=2))
        return
    widths = [max(len(row[column]) for row in (HEADS, *rows)) for column in range(len(HEADS) - 1)]
    for row in (HEADS, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        typer.echo("  ".join([*cells, row[-1]]).rstrip())
    typer.echo(f"\nAny name may end in a grid: {', '.join(GRIDS)} (exponential is log-snr).")
    typer.echo("After it, to-least: the grid ends at the least noise that was trained, not at clean data.")
    typer.echo(
        "evaluations: of the model, a step; guidance doubles them. noise: new, or none beyond the first. "
        "steps: where none are said."
    )


def table() -> list[Sequence[str]]:
    """A row for each sampler, its columns asked of the objects."""
    from sfumato.sampler_names import ALIASES
    from sfumato.samplers import KNOWN, Adaptive, traits

    rows: list[Sequence[str]] = []
    for name, known in KNOWN.items():
        found = traits(known.sampler)
        noise = "new" if found.stochastic else "-"
        also = ", ".join(ALIASES.get(name, ()))
        steps = "its own" if isinstance(known.sampler, Adaptive) else str(known.steps)
        each = f"{found.evaluations:.2g}"
        rows.append((name, str(found.order), each, noise, steps, known.good_for, also))
    return rows
