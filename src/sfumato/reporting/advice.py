"""What the figures say of a run, and what to do next: plain rules, each with its reason.

A rule looks at what was measured and gives at most a few sentences; what was not measured it does not guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sfumato.data.bundled import called
from sfumato.reporting.numbers import figure, places
from sfumato.reporting.stored import Stored
from sfumato.reporting.trend import RISEN, held_out, overfit_since

Kind = Literal["good", "note", "warning"]
Figure = Mapping[str, float]
"""A value and its error, as JSON has it."""

OVERFIT = 1.03
"""A held-out loss up to this times the training loss is no reason to stop, however sure it is."""
FALLING = 0.01
"""A held-out loss that fell by this share over the last quarter of the steps falls still."""
BY_HEART = 0.5
"""Of the way from treating all pictures alike to knowing the training pictures by heart."""
FEW = 1000
NAMED = 8
"""Of more groups the first are named."""


@dataclass(frozen=True)
class Advice:
    """One finding. says: what was found; todo: what to do about it, "" for nothing; command: how."""

    kind: Kind
    rule: str
    says: str
    todo: str = ""
    command: str = ""


def advice(run: Stored) -> list[Advice]:
    """Everything that the rules find, warnings first."""
    found = [one for rule in RULES for one in rule(run)]
    return sorted(found, key=lambda one: ("warning", "note", "good").index(one.kind))


def verdict(run: Stored, found: Sequence[Advice]) -> str:
    """The run in one sentence."""
    rules = {one.rule: one.kind for one in found}
    if rules.get("memorised") == "warning":
        return "It repeats pictures that it was trained on."
    distance = run.distance
    if distance is None:
        return "How good its pictures are has not been measured yet."
    overfits = rules.get("overfit") == "warning"
    if distance.as_real:
        kind = "Its pictures cannot be told from real ones by the figures below"
        return f"{kind}, but it overfits." if overfits else f"{kind}."
    if distance.baseline is None:
        return "It makes pictures; without held-out ones there is nothing to hold their distance against."
    return f"Its pictures can still be told from real ones{', and it overfits' if overfits else ''}."


def _quality(run: Stored) -> Iterator[Advice]:
    found = run.distance
    if found is None:
        return
    said = f"{found.terms.title} is {figure(found.value, found.low, found.high)}"
    base = found.baseline
    if base is None:
        yield Advice(
            "note", "quality", f"{said}. No pictures were held out, so there is nothing to hold it against.",
            "Train with a part held out: it is the measure of every figure here.",
            f"sfumato train DATA --out {run.name}-again --hold-out 0.05",
        )  # fmt: skip
        return
    sure = places(found.low, found.high)
    said += f"; real pictures against real ones have {figure(base.value, base.low, base.high, sure)}"
    if found.as_real:
        yield Advice("good", "quality", f"{said}. By this eye the two cannot be told apart.")
        return
    said += ". Its pictures can be told from real ones."
    if run.tuned is None:
        todo = "First a better sampler, or more steps; then longer training; a larger network after that."
        yield Advice(
            "warning",
            "quality",
            said,
            todo,
            f"sfumato tune-sampler {called(run.path)} --metric kid --data DATA",
        )
    else:
        yield Advice("warning", "quality", said, "Longer training, and a larger network after that.")


def _shares(run: Stored) -> Iterator[Advice]:
    """Precision and recall against what real pictures reach."""
    guided, told = run.card.sampler.guidance > 1, bool(run.card.classes) or run.card.text is not None
    cases = {
        "precision": (
            "some of its pictures lie outside of what real ones look like",
            "Longer training, or more guidance." if told else "Longer training, or a larger network.",
        ),
        "recall": (
            "some of what the data has is never made",
            "Lower the guidance: it buys clearness with variety."
            if guided
            else "Longer training, and pictures that show what is missing.",
        ),
    }
    for name, (means, todo) in cases.items():
        found = run.metric(name)
        if found is None or found.baseline is None or found.as_real:
            continue
        base = found.baseline
        said = (
            f"{name.capitalize()} is {figure(found.value, found.low, found.high)}, where real pictures reach "
            f"{figure(base.value, base.low, base.high)}: {means}."
        )
        yield Advice("warning", name, said, todo)


def _overfit(run: Stored) -> Iterator[Advice]:
    ratio: Figure | None = run.parts.get("losses", {}).get("overfit")
    said: list[str] = []
    if ratio is not None:
        gap = f"The held-out loss is {ratio['value']:.3f} ± {ratio['error']:.3f} times the training loss"
        if ratio["value"] - 2 * ratio["error"] > 1 and ratio["value"] > OVERFIT:
            said.append(f"{gap}.")
        elif overfit_since(run) is None:
            yield Advice("good", "overfit", f"{gap}: no overfit that matters.")
    since = overfit_since(run)
    if since is not None:
        best, least, last = since
        said.append(
            f"The held-out loss was least at step {best:,} ({least:.4g}) and has risen to {last:.4g}: it "
            "overfits since then."
        )
    if said:
        yield Advice(
            "warning", "overfit", " ".join(said),
            "More pictures help most; then --flip, --crop or --dropout, a smaller network, and --patience, "
            "which stops by itself.",
        )  # fmt: skip


def _unfinished(run: Stored) -> Iterator[Advice]:
    looks = held_out(run)
    if len(looks) < 4:
        return
    last_step, last = looks[-1]
    before = [loss for step, loss in looks if step <= 0.75 * last_step]
    if not before or last > min(loss for _, loss in looks) * RISEN:
        return
    fell = 1 - last / before[-1]
    if fell < FALLING:
        return
    yield Advice(
        "note", "unfinished",
        f"The held-out loss still fell by {fell:.1%} over the last quarter of the training.",
        f"Train longer: the run goes on from where it is, to {2 * last_step:,} steps for example.",
        f"sfumato train DATA --out {run.path} --steps {2 * last_step}",
    )  # fmt: skip


def _by_heart(run: Stored) -> Iterator[Advice]:
    share: Figure | None = run.parts.get("losses", {}).get("memorised")
    if share is not None and share["value"] - 2 * share["error"] > BY_HEART:
        yield Advice(
            "warning", "by-heart",
            f"Its losses have gone {share['value']:.2f} of the way to those of a model that knows its "
            "training pictures by heart.",
            "Sample an earlier checkpoint (--weights step:N), or train anew with more pictures.",
        )  # fmt: skip


def _memorised(run: Stored) -> Iterator[Advice]:
    found = run.parts.get("novelty")
    if found is not None:
        kind: Kind = "warning" if found["flagged"] else "good"
        todo = (
            "Look at the pairs below; an earlier checkpoint (--weights step:N) may be free of it."
            if found["flagged"]
            else ""
        )
        yield Advice(kind, "memorised", str(found["verdict"]), todo)


def _left_out(run: Stored) -> Iterator[Advice]:
    found = run.parts.get("coverage")
    if found is None:
        return
    for one in found["groups"]:
        names, asked = [str(name) for name in one["under_served"]], "asked" in one["due"]
        if not names:
            continue
        listed = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
        said = f"By {one['name']}, it makes less than half as many as "
        said += f"{'asked for' if asked else 'in the data'} of: {listed}."
        todo = "More pictures of these help most, then "
        if one["name"] != "class":
            yield Advice("warning", "left-out", said, f"{todo}longer training.")
            continue
        todo += "training in which each class is seen equally often"
        todo += "." if asked else "; sfumato sample --balanced evens out what is drawn."
        anew = f"sfumato train DATA --out {called(run.path)}-balanced --balance 0"
        yield Advice("warning", "left-out", said, todo, anew)
    kinds = _kinds(found["modes"] or {})
    if kinds:
        yield Advice("warning", "left-out", kinds, "Longer training and less guidance make it more various.")
    elif found["groups"] and not any(one["under_served"] for one in found["groups"]):
        yield Advice("good", "left-out", "No class and no kind of picture is surely left out.")


def _kinds(modes: Mapping[str, Any]) -> str:
    """Which kinds of pictures are surely made too seldom; "" where none is."""
    missing: list[Figure] = modes.get("under_served", [])
    if missing:
        share = sum(one["due"] for one in missing)
        return (
            f"Of {modes['clusters']} kinds of pictures in the data it makes surely too few of "
            f"{len(missing)}, which are {share:.1%} of the data."
        )
    if modes and modes["reached"] < modes["expected"] - 3 * modes["error"]:
        return (
            f"Of {modes['clusters']} kinds of pictures in the data it makes {modes['reached']}; as many "
            f"training pictures reach {modes['expected']:.1f} ± {modes['error']:.1f}."
        )
    return ""


def _all_trained_on(run: Stored) -> bool:
    return run.card.data.images > 0 and not run.card.data.held_out


def _not_held_out(run: Stored) -> Iterator[Advice]:
    if _all_trained_on(run):
        yield Advice(
            "warning", "held-out", "No picture was held out: whether it overfits or copies cannot be told.",
            "Train with --hold-out 0.05.",
        )  # fmt: skip


def _few_pictures(run: Stored) -> Iterator[Advice]:
    n = run.card.data.images
    if 0 < n < FEW:
        yield Advice(
            "note", "few",
            f"It was trained on {n:,} pictures; with fewer than some thousands a model tends to repeat them.",
            "Look at the nearest training pictures below, and train with --flip where mirrored pictures are "
            "as true.",
        )  # fmt: skip


def _warned(run: Stored) -> Iterator[Advice]:
    """What the records themselves warn of, each sentence once, with the metrics that it is about."""
    about: dict[str, list[str]] = {}
    for record in run.newest:
        for warning in record.warnings if record.group is None else ():
            about.setdefault(warning, []).append(record.terms.title)
    if about:
        said = (f"{', '.join(dict.fromkeys(titles))}: {warning}." for warning, titles in about.items())
        yield Advice("note", "record", " ".join(said))


def _stale(run: Stored) -> Iterator[Advice]:
    """What was measured of other weights than the newest part, and whether the run went on since."""
    said = run.parts.get("about", {})
    newest, seen = said.get("weights_sha256"), said.get("images_seen")
    old = [
        name
        for name in ("losses", "novelty", "coverage", "likelihood", "rate-distortion")
        if newest and run.parts.get(name, {}).get("weights_sha256", newest) != newest
    ]
    again = f"sfumato evaluate {called(run.path)} DATA"
    if old:
        yield Advice(
            "warning",
            "stale",
            f"Of other weights than the newest figures: {', '.join(old)}.",
            "Measure again.",
            again,
        )
    if seen is not None and run.card.training.images_seen > seen:
        yield Advice(
            "warning", "stale", "It was trained further since it was measured.", "Measure again.", again
        )


def _unmeasured(run: Stored) -> Iterator[Advice]:
    names = {
        "novelty": "whether it copies its training pictures",
        "coverage": "which classes it leaves out",
        "losses": "whether it overfits",
    }
    if _all_trained_on(run):
        del names["novelty"]  # it cannot be
    missing = [words for name, words in names.items() if name not in run.parts]
    missing += [] if run.records else ["how far its pictures are from real ones"]
    if missing:
        yield Advice(
            "note", "unmeasured", f"Not measured yet: {', '.join(missing)}.", "Measure it.",
            f"sfumato evaluate {called(run.path)} DATA",
        )  # fmt: skip


RULES: tuple[Callable[[Stored], Iterator[Advice]], ...] = (
    _memorised,
    _quality,
    _overfit,
    _by_heart,
    _shares,
    _left_out,
    _not_held_out,
    _unfinished,
    _few_pictures,
    _warned,
    _stale,
    _unmeasured,
)
