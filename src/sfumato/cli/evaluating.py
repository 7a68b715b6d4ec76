"""What `sfumato evaluate` does, part by part: each is told as it is found, and the report comes last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from sfumato.card import CARD
from sfumato.cli import likelihood
from sfumato.cli.drawing import make_room
from sfumato.cli.telling import on_one_line, telling
from sfumato.cli.wishes import resize_of
from sfumato.conditions.clip import open_clip
from sfumato.data.bundled import home_of, model_path, open_source
from sfumato.data.fit import Resize
from sfumato.errors import SettingsError
from sfumato.evaluation.features.extractor import FOLDERS, open_extractor
from sfumato.evaluation.features.store import default_cache
from sfumato.evaluation.metrics import METRICS
from sfumato.evaluation.record import Record, difference
from sfumato.evaluation.sets import of_folder
from sfumato.reporting import measuring
from sfumato.reporting.advice import advice, verdict
from sfumato.reporting.measuring import Looking, Said
from sfumato.reporting.model_card import write_model_card
from sfumato.reporting.report import write_report
from sfumato.reporting.stored import RECORDS, Stored, read_records, stored
from sfumato.reporting.subject import subject
from sfumato.runs import load
from sfumato.training.device import choose_device


@dataclass(frozen=True)
class Parts:
    """What is measured. names: of metrics, None for all that the pictures are enough for."""

    metrics: bool
    loss: bool
    novelty: bool
    coverage: bool
    nll: bool
    rate_distortion: bool
    usual: bool
    """Nobody asked for single parts."""
    names: tuple[str, ...] | None

    @property
    def pictures(self) -> bool:
        """Whether samples are needed."""
        return self.metrics or self.novelty or self.coverage


def parts(
    metrics: str | None,
    loss: bool,
    novelty: bool,
    coverage: bool,
    nll: bool,
    rate_distortion: bool,
    every: bool,
) -> Parts:
    """What was asked for; without any, all but the likelihood. Raises SettingsError for an unknown metric."""
    asked = metrics is not None or loss or novelty or coverage or nll or rate_distortion
    usual = every or not asked
    said = [name.strip() for name in (metrics or "all").split(",")]
    names = None if said == ["all"] else tuple(dict.fromkeys(name for name in said if name))
    for name in names or ():
        if name not in METRICS:
            raise SettingsError(f"--metrics are some of {', '.join(METRICS)}, not {name!r}")
    if names == ():
        raise SettingsError(f"--metrics names none: give some of {', '.join(METRICS)}, or all")
    return Parts(
        metrics=usual or metrics is not None,
        loss=usual or loss,
        novelty=usual or novelty,
        coverage=usual or coverage,
        nll=every or nll,
        rate_distortion=every or rate_distortion,
        usual=usual,
        names=names,
    )


@dataclass(frozen=True)
class Opening:
    """How the run and its data are opened, as the options say it."""

    device: str
    weights: str
    resize: str
    crop: float
    out: Path | None

    @property
    def fit(self) -> Resize:
        return resize_of(self.resize)


def looking(features: str, weights: Path | None, device: str, batch: int, seed: int) -> Looking:
    """The eyes that were asked for. Raises SettingsError for unknown ones, and for weights that are not
    there."""
    if batch < 1:
        raise SettingsError(f"--batch {batch}: at least 1 picture at a time")
    if features in FOLDERS and weights is None:
        raise SettingsError(
            f"--features {features} needs a folder, {FOLDERS[features][0]}: give it with --features-weights"
        )
    where = choose_device(device)
    pair = open_clip(weights, where) if features == "clip" and weights is not None else None
    extractor = open_extractor(features, weights, where)
    return Looking(extractor, batch, seed, default_cache(), on_one_line, pair)


def run(
    path: Path,
    data: str,
    wanted: Parts,
    look: Callable[[str], Looking],
    asked: likelihood.Asked,
    said: Said,
    how: Opening,
) -> None:
    """Measures a run, and writes its report and its card."""
    fit = how.fit
    opened = load(path, how.device, how.weights)
    process = likelihood.process(opened, asked) if wanted.nll or wanted.rate_distortion else None
    eyes = look(how.device) if wanted.pictures else None
    home = home_of(opened.path) / "evaluation" if how.out is None else how.out
    make_room(home)
    if wanted.pictures or wanted.loss:
        with telling("reading pictures") as told:
            of = subject(opened, data, fit, how.crop, progress=told)
        if not of.same:
            typer.echo(f"{data} is not known as what {path} was trained on: what follows is against it")
        if eyes is not None:
            n = measuring.usual_number(of) if asked.number is None else asked.number
            measuring.check_metrics(wanted.names or (), of, n, eyes)
            samples = of.samples(n, eyes.seed, eyes.batch, eyes.cache, on_one_line("drawing"))
            measuring.sampled(of, samples, home)
            if wanted.metrics:
                found = measuring.metrics(of, samples, wanted.names, eyes, home)
                _tell("metrics, with 95 % intervals", found, wanted.usual)
            if wanted.novelty:
                _tell("novelty", measuring.copies(of, samples, eyes, home), wanted.usual)
            if wanted.coverage:
                _tell("coverage", measuring.left_out(of, samples, eyes, home), wanted.usual)
        if wanted.loss:
            with telling("loss") as told:
                levels = list(measuring.loss_levels(of, home, asked.seed, asked.batch, told))
            _tell("loss at each noise level", levels)
    if process is not None:
        likelihood.measure(opened, data, asked, process, home)
    said.kept(home, **measuring.about(opened))
    written(stored(opened.path, home, opened.card))


def _tell(head: str, lines: Iterable[str], usual: bool = False) -> None:
    """Prints what is found. What nobody asked for by name may lack pictures: it is said, and the rest goes
    on."""
    typer.echo(f"\n{head}")
    try:
        for line in lines:
            typer.echo(f"  {line}")
    except SettingsError as error:
        if not usual:
            raise
        typer.echo(f"  not measured: {error}")


def written(found: Stored) -> None:
    """Writes the report, and the card of a run whose evaluation lies in it; says what to do next."""
    rules = advice(found)
    typer.echo(f"\n{verdict(found, rules)}")
    for one in rules:
        if one.kind == "warning":
            typer.echo(f"  - {one.says} {one.todo}".rstrip())
    typer.echo(f"\n{write_report(found)}")
    own = found.home.resolve().parent == found.path.resolve()
    if own and (found.path / CARD).is_file():  # a folder of diffusers has a card of its own
        typer.echo(str(write_model_card(found)))


def folder(
    path: Path,
    data: str,
    wanted: Parts,
    look: Callable[[str], Looking],
    device: str,
    size: int | None,
    out: Path | None,
) -> None:
    """The metrics of a folder of pictures against all of the data: nothing is held out for a baseline."""
    more = wanted.nll or wanted.rate_distortion
    more |= not wanted.usual and (wanted.loss or wanted.novelty or wanted.coverage)
    if more or not wanted.metrics:
        raise SettingsError(
            f"{path} is a folder of pictures and no run: of pictures alone there are --metrics, nothing else"
        )
    eyes = look(device)
    with telling("reading pictures") as told:
        made = of_folder(path, size, progress=told)
    with telling("reading pictures") as told:
        real = of_folder(open_source(data), size, made.shape[0] if size is not None else None, progress=told)
    if out is not None:
        make_room(out)
    typer.echo(f"{made.count:,} pictures of {path} against {real.count:,} of {data}")
    _tell("metrics, with 95 % intervals", measuring.compared(made, real, wanted.names, eyes, out))
    if out is not None:
        typer.echo(str(out / RECORDS))


def comparison(a: Path, b: Path) -> Iterator[str]:
    """The differences of two evaluations, line by line. Raises SettingsError where none can be told."""
    first, second = (_newest(path) for path in (a, b))
    shared = [key for key in first if key in second]
    if not shared:
        raise SettingsError(f"{a} and {b}: no metric was measured of both: sfumato evaluate them both first")
    refused: list[str] = []
    told = 0
    yield f"A - B, 95 % interval; A is {a}, B is {b}"
    for key in shared:
        try:
            found = difference(first[key], second[key])
        except SettingsError as error:
            refused.append(f"{first[key].terms.title}: {error}")
            continue
        told += 1
        ends = "" if found.low is None else f"   {found.low:.4g} .. {found.high:.4g}"
        better = {"a": "A is better", "b": "B is better", None: "not told apart"}[found.better]
        group = f"   {key[2]}" if key[2] else ""
        yield f"{found.title:<24}{found.difference:>11.4g}{ends:<28}   {better}{group}"
    if not told:
        raise SettingsError(refused[0])
    yield from refused


def _newest(path: Path) -> dict[tuple[str, str, str | None], Record]:
    """The newest record of each metric, extractor and group."""
    place = path if path.is_file() else home_of(model_path(path)) / "evaluation" / RECORDS
    if not place.is_file() and (path / RECORDS).is_file():
        place = path / RECORDS
    if not place.is_file():
        raise SettingsError(f"{path}: nothing was measured there: sfumato evaluate {path} DATA")
    return {(r.terms.metric, r.terms.extractor, r.group): r for r in read_records(place)}
