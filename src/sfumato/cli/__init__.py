"""The command line: one file a command. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import sys

import typer

from sfumato.cli.blind import blind, votes
from sfumato.cli.demo import demo
from sfumato.cli.edit import app as edit
from sfumato.cli.evaluate import InContext, compare, evaluate, report
from sfumato.cli.inspect import inspect
from sfumato.cli.look import look
from sfumato.cli.replay import replay
from sfumato.cli.sample import sample
from sfumato.cli.samplers import samplers
from sfumato.cli.sweep import sweep
from sfumato.cli.train import train
from sfumato.cli.train_classifier import train_classifier
from sfumato.cli.train_clip import train_clip
from sfumato.cli.tune_sampler import tune_sampler
from sfumato.errors import SfumatoError

_FULL = "out of memory: use a smaller --batch, or fewer pictures at a time"
_NO_ROOM = ("out of memory", "DefaultCPUAllocator", "can't allocate memory", "not enough memory")
"""What torch says in its RuntimeErrors, of CUDA and MPS, and of the CPU, where there is no more memory."""

app = typer.Typer(
    name="sfumato",
    help="From a folder of your own pictures to a trained diffusion model, and to new pictures.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> bool:
    if asked:
        from sfumato import __version__

        typer.echo(f"sfumato {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """From a folder of your own pictures to a trained diffusion model, and to new pictures."""


app.command()(train)
app.command()(sweep)
app.command()(train_classifier)
app.command()(train_clip)
app.command()(sample)
app.command()(samplers)
app.command()(tune_sampler)
app.add_typer(edit)
app.command()(replay)
app.command()(inspect)
app.command()(look)
app.command(cls=InContext)(evaluate)
app.command()(compare)
app.command()(report)
app.command()(blind)
app.command()(votes)
app.command()(demo)


def run(arguments: list[str] | None = None) -> int:
    """Runs a command line and gives its exit code: 1 for a mistake that a sentence explains, 2 for a wrong
    use of the command, 130 when it was interrupted."""
    try:
        app(args=arguments, prog_name="sfumato")
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1 if end.code else 0
    except SfumatoError as error:
        words = str(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        words = f"{error.filename or 'the system'}: {error.strerror or error}"
    except MemoryError:
        words = _FULL
    except RuntimeError as error:
        if not any(word in str(error) for word in _NO_ROOM):
            raise
        words = _FULL
    print(f"error: {words}", file=sys.stderr)
    return 1


def main() -> None:
    """The console command `sfumato`."""
    from sfumato.cli.heap import keep_heap

    keep_heap()
    sys.exit(run())
