"""`sfumato blind` and `sfumato votes`: which of two people prefer, without their knowing which is which."""

from __future__ import annotations

from pathlib import Path

import typer


def blind(
    a: Path = typer.Argument(..., metavar="A", help="A run, or a folder of pictures."),  # noqa: B008
    b: Path = typer.Argument(..., metavar="B", help="Another."),  # noqa: B008
    out: Path = typer.Option(Path("blind.html"), "--out", "-o", help="The page; its key lies beside it."),  # noqa: B008
    number: int = typer.Option(50, "-n", "--number", help="How many pairs."),
    class_: list[str] | None = typer.Option(  # noqa: B008
        None, "--class", help="Classes by name, more than once. [those that both know take turns]"
    ),
    prompt: list[str] | None = typer.Option(  # noqa: B008
        None, "--prompt", help="What both are asked for, more than once; prompts take turns."
    ),
    question: str = typer.Option("Which picture is better?", help="What the page asks."),
    checks: int = typer.Option(0, help="Pairs of a picture and its own pieces, which tell who looks."),
    steps: int | None = typer.Option(None, help="Of the sampler, for both. [each run's own]"),
    guidance: float | None = typer.Option(None, help="For both. [each run's own]"),
    seed: int = typer.Option(0, help="Of the pictures, of their order and of their sides."),
    batch: int = typer.Option(64, help="How many pictures are drawn at a time."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
) -> None:
    """Make one offline page of pairs of pictures, for people to vote on, and the key that tells which was
    which. Pictures of a pair have one seed, and one class and prompt where both runs know it."""
    from sfumato.cli.drawing import make_room
    from sfumato.errors import SettingsError
    from sfumato.files import write_json
    from sfumato.reporting.blind import blind as make
    from sfumato.reporting.page import write_page
    from sfumato.reporting.pairs import Wanted, pairs

    if out.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(f"--out {out}: the page is written as .html")
    key = out.with_suffix(".key.json")
    if key.exists():
        raise SettingsError(f"{key}: votes may still need this key: choose another --out, or remove it")
    wanted = Wanted(number, tuple(class_ or ()), tuple(prompt or ()), steps, guidance, seed, batch, device)
    made = make(pairs(a, b, wanted), (str(a), str(b)), seed=seed, checks=checks, question=question)
    make_room(out.parent)
    write_json(key, made.to_json())
    write_page(out, made.page)
    typer.echo(f"{out}   for the voters: open it in a browser, it needs no network")
    typer.echo(f"{key}   for you: with the votes, sfumato votes {key} votes-*.json")


def votes(
    key: Path = typer.Argument(..., metavar="KEY", help="The .key.json beside the page."),  # noqa: B008
    files: list[Path] = typer.Argument(..., metavar="VOTES", help="What the page saved, one a voter."),  # noqa: B008
    json: bool = typer.Option(False, "--json", help="Print everything as JSON."),
) -> None:
    """Count votes: the share of preference with its interval, an exact test, and how far voters agree."""
    from json import dumps

    from sfumato.reporting.votes import count, read_ballot, read_key

    found = count(read_key(key), [read_ballot(path) for path in files], files)
    if json:
        typer.echo(dumps(found.to_json(), indent=2))
        return
    for line in found.lines():
        typer.echo(line)
