"""The report of a run: one offline page made of what lies in its folder. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato import __version__
from sfumato.reporting import curves, licence, tables, words
from sfumato.reporting.advice import Advice, advice, verdict
from sfumato.reporting.energy import duration, estimate
from sfumato.reporting.inline import of_file
from sfumato.reporting.novel import novel
from sfumato.reporting.page import fill, write_page
from sfumato.reporting.picked import Strip, strips
from sfumato.reporting.served import served
from sfumato.reporting.stored import Stored

NAME = "report.html"
_CLASSES = 60
"""The most classes that are listed one by one."""
_FLAWS = 40


@dataclass(frozen=True)
class Count:
    """A class and how many pictures it has; width: in percent of the largest."""

    name: str
    count: str
    width: str


def write_report(run: Stored) -> Path:
    """Writes RUN/evaluation/report.html and gives its path. The same folder gives the same page."""
    return write_page(run.home / NAME, report(run))


def report(run: Stored) -> str:
    """The page as text."""
    found = advice(run)
    said = run.parts.get("about", {})
    pictures = strips(run)
    sections: dict[str, Any] = {
        "samples": pictures,
        "samples_words": _samples_words(run, pictures),
        "figures_rows": tables.whole(run),
        "novelty": novel(run),
        "novelty_sheet": of_file(run.home / "nearest.png"),
        "coverage": served(run),
        "groups": tables.groups(run),
        "losses": curves.loss_levels(run),
        "losses_words": run.parts.get("losses", {}).get("reading", []),
        "training": curves.training(run),
        "judged": curves.judged(run),
        "likelihood": list(_likelihood(run)),
        "likelihood_words": ", ".join(run.parts.get("likelihood", {}).get("about", [])),
        "distortion": curves.rate_distortion(run),
        "progressive": of_file(run.home / "progressive.png"),
        "data": [*words.data_words(run), *run.parts.get("data", {}).get("notes", [])],
        "flaws": [],
        "flaws_head": "",
        **_classes(run),
        **_flaws(run),
        "settings": [
            *words.model_words(run.card),
            *words.training_words(run),
            *words.sampler_words(run),
            *([run.card.note] if run.card.note else []),
        ],
        "cost": estimate(seconds(run), said.get("watts")).lines() if seconds(run) else ["Not known."],
        "licence": licence.lines(run),
        "provenance": list(_provenance(run)),
    }
    return fill(
        "report.html",
        name=run.name,
        date=str(said.get("date", "")),
        verdict=verdict(run, found),
        facts=list(_facts(run)),
        advice=found,
        contents=list(_contents(sections, found)),
        library=__version__,
        **sections,
    )


def seconds(run: Stored) -> float:
    """How long it was trained."""
    logged = sum(float(one.get("seconds", 0.0)) for one in run.log)
    return run.card.training.seconds or float(logged)


def _facts(run: Stored) -> Iterator[str]:
    card = run.card
    yield f"{card.image.width} x {card.image.height} pixels"
    if card.data.images:
        yield f"{card.data.images:,} training pictures"
    if card.classes:
        yield f"{len(card.classes):,} classes"
    if seconds(run):
        yield f"trained for {duration(seconds(run))}"
    yield f"{card.sampler.steps} sampling steps"


def _contents(sections: Mapping[str, Any], found: list[Advice]) -> Iterator[tuple[str, str]]:
    """The page's sections that are there: their anchors and titles."""
    for key, anchor, title in (
        ("", "next", "What to do next"),
        ("samples", "samples", "What it makes"),
        ("figures_rows", "figures", "Figures"),
        ("novelty", "novelty", "Copies"),
        ("coverage", "coverage", "Left out"),
        ("losses", "losses", "Overfit"),
        ("training", "training", "Training"),
        ("likelihood", "likelihood", "Likelihood"),
        ("", "data", "Data"),
        ("", "settings", "Settings"),
        ("", "cost", "Energy"),
        ("", "licence", "Licence"),
        ("", "provenance", "Provenance"),
    ):
        there = not key or sections[key] or (key == "coverage" and sections["groups"])
        if there or (key == "likelihood" and sections["distortion"]):
            yield anchor, title


def _samples_words(run: Stored, pictures: list[Strip]) -> str:
    about = run.parts.get("samples", {}).get("about", "")
    return f"Not chosen: the first ones, in the order of their seeds. {about}".strip() if pictures else ""


@dataclass(frozen=True)
class Bits:
    """A row of the likelihood's table; part: it is a part of the row above."""

    name: str
    value: str
    error: str
    part: bool = False


def _likelihood(run: Stored) -> Iterator[Bits]:
    found = run.parts.get("likelihood")
    if found is None:
        return
    bound = found["bound"]
    process = bound["process"]
    if process["kind"] == "steps":
        how = f"bound, {process['steps']:,} steps, {process['variance']} variance"
    else:
        how = "bound, continuous time"
    yield _bits(how, bound["bits_per_dimension"])
    for key, name in (("prior", "prior, L_T"), ("steps", "steps"), ("decoder", "decoder, L_0")):
        yield _bits(name, bound[key], part=True)
    for flow in found["flow"]:
        kind = "noise of the process" if flow["dequantise"] == "noise" else "uniform dequantisation"
        yield _bits(f"flow, {kind}", flow["bits_per_dimension"])
        yield _bits("the bound less this", flow["gap"], part=True)


def _bits(name: str, pair: Mapping[str, float], part: bool = False) -> Bits:
    return Bits(name, f"{pair['value']:.4f}", f"{pair['error']:.4f}", part)


def _classes(run: Stored) -> dict[str, Any]:
    counts: Mapping[str, int] = run.parts.get("data", {}).get("classes", {})
    most = max(counts.values(), default=0)
    rows = [
        Count(name, f"{n:,}", f"{100 * n / most:.1f}") for name, n in list(counts.items())[:_CLASSES] if most
    ]
    left = len(counts) - len(rows)
    return {"classes": rows, "classes_more": f"and {left:,} more classes" if left > 0 else ""}


def _flaws(run: Stored) -> dict[str, Any]:
    """What is wrong with the data: what could not be read, what is there twice."""
    data = run.parts.get("data", {})
    bad, twice = data.get("bad", []), data.get("duplicates", 0)
    heads = [f"{len(bad):,} files could not be used"] if bad else []
    heads += [f"{twice:,} pictures are there more than once"] if twice else []
    more = [f"and {len(bad) - _FLAWS:,} more"] if len(bad) > _FLAWS else []
    return {"flaws": [*bad[:_FLAWS], *more] or heads, "flaws_head": "; ".join(heads)} if heads else {}


def _provenance(run: Stored) -> Iterator[tuple[str, str]]:
    card, said = run.card, run.parts.get("about", {})
    yield "sfumato, training", card.library
    for key in ("sfumato", "torch", "python", "device"):
        if key in said:
            yield f"{key}, evaluation" if key == "sfumato" else key, str(said[key])
    yield "model", card.core()
    if "weights_sha256" in said:
        yield f"weights ({said.get('weights', '')})", str(said["weights_sha256"])
    if card.data.fingerprint:
        yield "training data", card.data.fingerprint
    yield "schedule", card.schedule_hash
    yield "stream of noise", str(card.noise_stream)
    yield from tables.terms_used(run)
