"""What every command of `sfumato edit` is asked, and how a function of a few options becomes a command.

A command is a function of its own options alone; it returns what it does at the easel (`easel.Easel`), where
the run, the recipe and the pictures are at hand:

    @task
    def img2img(strength: Annotated[float, typer.Option(help="...")] = 0.6) -> Draw:
        '''Draw a picture anew from its rough forms.'''
        from sfumato.cli.edits.easel import Easel, Result

        def draw(easel: Easel) -> Result: ...

        return draw

Run, pictures, conditions, sampler, output, batches, ensembles and recipes are the frame's. Options must be of
JSON's kinds, or paths of files; `sfumato replay` calls the function again with them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

Draw = Callable[[Any], Any]
"""Easel -> Result (`cli.edits.easel`), which may not be named here: they are heavy."""


@dataclass(frozen=True)
class Asked:
    """What every edit is asked: each field is an argument or an option of every command."""

    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="The pictures, each for itself.")]
    number: Annotated[
        int, typer.Option("-n", "--number", help="How many results of each picture; of each class.")
    ] = 1
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", help="A class by name or number; several by commas; all; none."),
    ] = None
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="An attribute, as in age=0.7; several labels as in tags=a|b."),
    ] = None
    prompt: Annotated[str | None, typer.Option(help="What to draw, for models with text.")] = None
    negative: Annotated[str | None, typer.Option(help="What not to draw, for models with text.")] = None
    and_: Annotated[
        list[str] | None,
        typer.Option("--and", help="A further prompt, or NAME=VALUE as in class=cat; :0.5 behind it weighs."),
    ] = None
    not_: Annotated[
        list[str] | None, typer.Option("--not", help="A prompt, or NAME=VALUE, to move away from.")
    ] = None
    guidance: Annotated[
        str | None,
        typer.Option(help="Classifier-free guidance; 1 is none; text=5,class=2 for each. [the run's own]"),
    ] = None
    interval: Annotated[
        str | None, typer.Option(help="Guide only where LOW < sigma/alpha <= HIGH: 0.2,5.")
    ] = None
    rescale: Annotated[float, typer.Option(help="Share by which guidance keeps the contrast, as 0.7.")] = 0.0
    threshold: Annotated[
        float | None, typer.Option(help="Dynamic thresholding at this quantile, as 0.995.")
    ] = None
    classifier_guidance: Annotated[
        float, typer.Option(help="Scale of the run's own classifier, towards --class.")
    ] = 0.0
    autoguide: Annotated[
        Path | None, typer.Option(help="A weaker run of the same kind, to move away from.")
    ] = None
    autoguide_scale: Annotated[float, typer.Option(help="How far; 1 is not at all.")] = 2.0
    autoguide_weights: Annotated[
        str, typer.Option(help="Which of its weights, as for --weights: step:4000.")
    ] = "ema"
    clip_model: Annotated[Path | None, typer.Option(help="A CLIP that pulls towards --prompt.")] = None
    clip_guidance: Annotated[float, typer.Option(help="How strongly; 1 is Bayes' rule.")] = 1.0
    cutouts: Annotated[int, typer.Option(help="Crops that the CLIP looks at beside the whole.")] = 0
    clip: Annotated[
        bool | None, typer.Option("--clip/--no-clip", help="Keep estimates in range. [the run's own]")
    ] = None
    steps: Annotated[int | None, typer.Option(help="Levels of the whole grid. [the run's own]")] = None
    sampler: Annotated[str | None, typer.Option(help="See sfumato samplers. [the run's own]")] = None
    eta: Annotated[float | None, typer.Option(help="Share of new noise at each step, 0 to 1.")] = None
    seed: Annotated[int, typer.Option(help="Result i of a picture has the seed SEED + i.")] = 0
    ensemble: Annotated[
        int | None,
        typer.Option(help="Draw so many, and write their mean and each pixel's deviation instead."),
    ] = None
    resize: Annotated[
        str | None, typer.Option(help="crop, stretch or pad a picture that is not as the model's. [refuse]")
    ] = None
    out: Annotated[
        Path | None, typer.Option(help="x.png, or a folder for one file a result. [RUN/edits/...]")
    ] = None
    batch: Annotated[int, typer.Option(help="How many results at a time.")] = 64
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto"
    weights: Annotated[str, typer.Option(help="ema, raw, step:12000, or ema:0.05 for a width.")] = "ema"


@dataclass(frozen=True)
class Task:
    """A command: a function of its own options that returns a `Draw`.

    together: it takes all pictures at once, as an interpolation does, and not each for itself. least: how
    many pictures it needs; what needs none may be given noise by --seed. sampler: its own, where none is
    asked for. beside: its option that names a file to be written beside the results. without: what of `Asked`
    would mean nothing to it, which it does not take.
    """

    function: Callable[..., Draw]
    together: bool = False
    least: int = 1
    sampler: str | None = None
    beside: str | None = None
    without: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The command's: the function's name."""
        return self.function.__name__.strip("_").replace("_", "-")

    @property
    def defaults(self) -> dict[str, Any]:
        """Its own options by name, with what they are where nothing is said."""
        return {name: p.default for name, p in inspect.signature(self.function).parameters.items()}

    @property
    def files(self) -> frozenset[str]:
        """The options that are paths of files, or lists of them."""
        hints = get_type_hints(self.function)
        return frozenset(name for name in self.defaults if Path in _kinds(hints[name]))

    def command(self, do: Callable[[Task, Asked, dict[str, Any]], None]) -> Callable[..., None]:
        """The function that typer calls, with its own options and those of `Asked`; `do` is given both."""
        hints = get_type_hints(self.function, include_extras=True)
        own = [_parameter(name, hints[name], default) for name, default in self.defaults.items()]
        every = get_type_hints(Asked, include_extras=True)
        lacking = {"images": None} if self.least == 0 else {}
        asked = [
            _parameter(
                f.name,
                every[f.name],
                lacking.get(f.name, inspect.Parameter.empty if f.default is MISSING else f.default),
            )
            for f in fields(Asked)
            if f.name not in self.without
        ]
        arguments = [p for p in asked if p.default is inspect.Parameter.empty]
        options = [p for p in asked if p.default is not inspect.Parameter.empty]

        def run(**given: Any) -> None:
            mine = {name: given.pop(name) for name in self.defaults}
            given["images"] = given["images"] or []
            do(self, Asked(**given), mine)

        run.__signature__ = inspect.Signature([*arguments, *own, *options])  # type: ignore[attr-defined]
        run.__doc__ = self.function.__doc__
        run.__annotations__ = {}
        return run


ONE = ("number", "ensemble")
"""What a task does not take that makes one sheet, or always the same picture."""


def task(function: Callable[..., Draw]) -> Task:
    """A command that does each picture for itself."""
    return Task(function)


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _kinds(hint: Any) -> set[Any]:
    """The plain types in an annotation: those of `list[Path] | None` are list, Path and None's."""
    if get_origin(hint) in (Annotated, Union, UnionType, list, tuple):
        return set[Any]().union(*(_kinds(part) for part in get_args(hint)))
    return {hint}
