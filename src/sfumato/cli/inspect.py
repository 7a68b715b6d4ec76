"""`sfumato inspect`: what a data set holds and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import typer

_LINES = 20


def inspect(
    data: str = typer.Argument(
        ..., metavar="DATA", help="A folder of pictures, an .npz file, digits or emoji."
    ),
    json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """Say what a data set holds: sizes, colours, classes, captions, columns of its tables, and what is
    corrupt, double or tiny."""
    import sys
    from json import dumps

    from rich.console import Console

    from sfumato.conditions.columns import offered
    from sfumato.data.bundled import open_source
    from sfumato.data.inspection import TINY
    from sfumato.data.inspection import inspect as look
    from sfumato.data.source import Flaw

    source = open_source(data)
    columns = offered([dict(item.columns) for item in source.items])
    if json:
        typer.echo(dumps(look(source).to_json() | {"columns": columns}, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
    errors = Console(stderr=True, highlight=False)
    if sys.stderr.isatty():
        with errors.status("looking") as status:
            found = look(source, progress=lambda done, all: status.update(f"looked at {done} of {all}"))
    else:
        found = look(source)

    def say(head: str, body: str) -> None:
        console.print(f"{head:<14}{body}")

    def several(head: str, lines: Sequence[str | Flaw]) -> None:
        if lines:
            say(head, str(len(lines)))
            for line in lines[:_LINES]:
                console.print(f"    {line}")
            if len(lines) > _LINES:
                console.print(f"    and {len(lines) - _LINES} more (all with --json)")

    say("pictures", f"{found.good} of {found.pictures} can be read")
    say("sizes", _listed(found.sizes))
    say("pixels", _listed(found.modes))
    say("files", _listed(found.formats))
    say("transparent", str(found.transparent))
    if found.classes:
        say("classes", f"{len(found.classes)}, the largest {found.imbalance:.3g} times the smallest")
        console.print(f"    {_listed(found.classes)}")
    else:
        say("classes", "none")
    say("captions", str(found.with_caption) if found.with_caption else "none")
    if columns:
        say("columns", f"{len(columns)} that a model could be told by --attribute")
        console.print(f"    {', '.join(f'{_line(name)} ({kind})' for name, kind in columns.items())}")
    several("no caption", [_line(name) for name in found.without_caption])
    several("unreadable", found.bad)
    several("unusable", found.flaws)
    several("the same", [" = ".join(_line(name) for name in group) for group in found.duplicates])
    several(f"under {TINY} px", [_line(name) for name in found.tiny])
    several("notes", found.notes)
    height, width = found.train_size
    say("suggested", f"--size {height}" if height == width else f"--size {width}x{height}")


def _line(name: str) -> str:
    from sfumato.data.decode import shown

    return shown(name)


def _listed(counts: Mapping[str, int]) -> str:
    """ "64 x 64: 90, 32 x 32: 10 and 3 more"."""
    first = ", ".join(f"{_line(name)}: {count}" for name, count in list(counts.items())[:_LINES])
    return first if len(counts) <= _LINES else f"{first} and {len(counts) - _LINES} more"
