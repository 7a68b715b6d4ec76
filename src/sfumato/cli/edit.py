"""`sfumato edit`: the tasks on pictures. Each command is a `Task`; its file says what it does."""

from __future__ import annotations

from typing import Any

import typer

from sfumato.cli.edits import attributes, cascade, follow, inverse, mending, noises, painting, styles
from sfumato.cli.edits.options import Asked, Task

TASKS: tuple[Task, ...] = (
    painting.img2img,
    painting.inpaint,
    painting.replace,
    painting.remove,
    mending.outpaint,
    mending.restore,
    follow.follow,
    *inverse.TASKS,
    *noises.TASKS,
    *attributes.TASKS,
    *styles.TASKS,
)
"""Every task there is; `sfumato replay` finds them here too."""

app = typer.Typer(
    name="edit",
    help="Change pictures with a trained model. Every result says how it was made: see sfumato replay.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _do(task: Task, asked: Asked, own: dict[str, Any]) -> None:
    from sfumato.cli.edits.results import edit

    for told in edit(task, asked, own):
        typer.echo(str(told))


for one in TASKS:
    app.command(one.name)(one.command(_do))
app.command("cascade")(cascade.cascade)
