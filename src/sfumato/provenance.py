"""How a picture was made: the recipe that goes into its file.

`files.png` writes it beside the words of Stable Diffusion's web interface (A1111), which many programs show,
and the mark of the International Press Telecommunications Council that a trained model made the picture.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field, ValidationError

from sfumato import __version__, noise
from sfumato.conditions.also import Also
from sfumato.conditions.attributes import Value
from sfumato.conditions.schema import LONGEST
from sfumato.data.bundled import bundled_name
from sfumato.errors import ImageFileError, SettingsError
from sfumato.files.pictures import read_recipe
from sfumato.files.png import LONGEST_TEXT
from sfumato.guides.account import (
    JudgedSettings,
    PulledSettings,
    WeakerSettings,
    describe_judged,
    describe_pulled,
    describe_weaker,
    each_once,
    one_for_each,
)
from sfumato.records.part import MOST, Hash, Part, Scale
from sfumato.records.sentence import sentence
from sfumato.runs import Recipe, Run

T = TypeVar("T")

Text = Annotated[str, Field(max_length=4096)]
Number = Annotated[int, Field(ge=0, le=2**31)]
Prompt = Annotated[str, Field(max_length=LONGEST)]
Level = Annotated[float, Field(ge=0)]
Values = Annotated[dict[Text, Text | float | tuple[Text, ...]], Field(max_length=1000)]
Seeds = Annotated[
    tuple[Annotated[int, Field(ge=-(2**63), lt=2**63)], ...], Field(min_length=1, max_length=MOST)
]


class AlsoSettings(Part):
    """AND, or NOT with a weight below 0: `conditions.also`."""

    name: Text
    value: Prompt | float | tuple[Text, ...]
    weight: Scale

    def words(self) -> str:
        """As A1111 writes it behind a prompt."""
        said = self.value if self.name == "text" else _set({self.name: self.value})
        return f" AND {said} :{self.weight:g}"


class Origin(Part):
    """Where a picture comes from. `seeds` are those of its whole batch; `index` is its place there.

    `columns` is for a grid: so many pictures side by side, all of the batch.
    """

    format: Literal[1] = 1
    made_by_a_model: Literal[True] = True
    library: Text
    torch: Text
    machine: Text
    threads: Number
    noise_stream: Number
    run: Text
    name: Text
    model: Hash
    weights: Text
    weights_sha256: Hash
    sampler: Text
    steps: Annotated[int, Field(ge=1, le=100_000)] | None
    eta: Annotated[float, Field(ge=0, le=1)] | None
    guidance: Annotated[float, Field(ge=-1e6, le=1e6)]
    clip: bool
    grid: Hash
    seeds: Seeds
    classes: Annotated[tuple[Number | None, ...], Field(max_length=MOST)] | None
    class_names: Annotated[dict[Text, Text], Field(max_length=MOST)]
    batch: Annotated[int, Field(ge=1, le=1_000_000)]
    one_by_one: bool
    index: Number | None = None
    columns: Annotated[int, Field(ge=1, le=MOST)] | None = None
    tolerance: Annotated[float, Field(gt=0, le=1e6)] | None = None
    prompts: Annotated[tuple[Prompt | None, ...], Field(min_length=1, max_length=MOST)] | None = None
    """One for each picture, or one for all; and so are the next two."""
    prompt_of: Annotated[tuple[Number, ...], Field(max_length=MOST)] | None = None
    """The place of each picture's prompt, where each different one is said once."""
    negatives: Annotated[tuple[Prompt | None, ...], Field(min_length=1, max_length=MOST)] | None = None
    values: Annotated[tuple[Values | None, ...], Field(min_length=1, max_length=MOST)] | None = None
    also: Annotated[tuple[AlsoSettings, ...], Field(max_length=1000)] = ()
    scales: Annotated[dict[Text, Scale], Field(max_length=1000)] = Field(default_factory=dict)
    interval: tuple[Level, Level | None] | None = None
    """Where it guides; None for no upper end."""
    rescale: Annotated[float, Field(ge=0, le=1)] = 0.0
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    judged: JudgedSettings | None = None
    weaker: WeakerSettings | None = None
    pulled: PulledSettings | None = None

    def told(self) -> tuple[tuple[str | None, ...] | None, ...]:
        """The prompt and the negative prompt of each picture."""
        n = len(self.seeds)
        return one_for_each(self.prompts, n, self.prompt_of), one_for_each(self.negatives, n)

    def asked(self, home: Path) -> dict[str, Any]:
        """What was asked for, as arguments of `Run.recipe`; `home` is the picture's folder."""
        prompts, negatives = self.told()
        told = {"prompt": prompts, "negative": negatives, "set": one_for_each(self.values, len(self.seeds))}
        plain = ("seeds", "classes", "sampler", "steps", "eta", "tolerance", "clip", "batch", "one_by_one")
        same = {name: getattr(self, name) for name in (*plain, "rescale", "threshold")}
        open_end = self.interval is not None and self.interval[1] is None
        interval = (self.interval[0], math.inf) if self.interval is not None and open_end else self.interval
        same["also"] = [Also(one.name, one.value, one.weight) for one in self.also]
        guides = {} if self.weaker is None else self.weaker.asked(home)
        if self.judged is not None:
            guides |= {"classes": self.judged.classes, "classifier_guidance": self.judged.scale}
        if self.pulled is not None:
            guides |= self.pulled.asked(home)
            told["prompt"] = told["prompt"] or self.pulled.captions(len(self.seeds))
        return same | told | guides | {"guidance": self.scales or self.guidance, "interval": interval}


def machine(device: torch.device) -> str:
    """The kind of hardware, without names of hosts or people: rounding depends on it."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{device.type} {platform.machine()}"


def grid_hash(run: Run, recipe: Recipe) -> str:
    """A hash of the levels that the recipe visits, to ten digits."""
    plan = run.plan(recipe)
    said = [
        f"{float(v):.9e}" for move in plan for end in (move.here, move.there) for v in (end.alpha, end.sigma)
    ]
    return hashlib.sha256(" ".join(said).encode()).hexdigest()


def seen_from(folder: Path, run: Path) -> str:
    """The way from a folder to the run: it tells nothing of the machine and survives moving both."""
    try:
        return Path(os.path.relpath(run.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive on Windows
        return run.name


def origin(
    run: Run, recipe: Recipe, path: Path, *, index: int | None = None, columns: int | None = None
) -> Origin:
    """Where the recipe's pictures come from, for the file at `path`; the run is named as seen from there.
    Raises SettingsError for a sampler that is not known by name, and for numbers beyond all reason."""
    if not isinstance(recipe.sampler, str):
        raise SettingsError(
            "only pictures of a sampler with a name can say how they were made: give its name"
        )
    names = {str(number): run.classes[number] for number in recipe.classes or () if number is not None}
    prompts, prompt_of = each_once(recipe.prompts)
    try:
        return Origin(
            library=__version__,
            torch=torch.__version__,
            machine=machine(run.device),
            threads=torch.get_num_threads(),
            noise_stream=noise.STREAM,
            run=bundled_name(run.path) or seen_from(path.parent, run.path),
            name=run.path.resolve().name,
            model=run.card.core(),
            weights=run.weights,
            weights_sha256=run.sha256,
            sampler=recipe.sampler,
            steps=recipe.steps,
            eta=recipe.eta,
            guidance=recipe.guidance,
            clip=recipe.clip,
            grid=grid_hash(run, recipe),
            seeds=recipe.seeds,
            classes=recipe.classes,
            class_names=names,
            batch=recipe.batch,
            one_by_one=recipe.one_by_one,
            index=index,
            columns=columns,
            tolerance=recipe.tolerance,
            prompts=prompts,
            prompt_of=prompt_of,
            negatives=_folded(recipe.negatives),
            values=_folded(recipe.values if recipe.values is None else tuple(map(_plain, recipe.values))),
            also=tuple(AlsoSettings(**vars(one)) for one in recipe.also),
            scales=dict(recipe.scales),
            interval=_ends(recipe.interval),
            rescale=recipe.rescale,
            threshold=recipe.threshold,
            judged=describe_judged(recipe.judged),
            weaker=describe_weaker(recipe.weaker, lambda other: seen_from(path.parent, other)),
            pulled=describe_pulled(recipe.pulled, lambda other: seen_from(path.parent, other)),
        )
    except ValidationError as error:
        raise SettingsError(f"no picture's file can say this: {sentence(error)}") from None


def _ends(interval: tuple[float, float] | None) -> tuple[float, float | None] | None:
    if interval is None:
        return None
    return interval[0], None if math.isinf(interval[1]) else interval[1]


def _plain(values: Mapping[str, Value] | None) -> dict[str, Value] | None:
    return None if values is None else dict(values)


def _folded(said: tuple[T, ...] | None) -> tuple[T, ...] | None:
    """One entry where all are the same."""
    return said[:1] if said and all(one == said[0] for one in said) else said


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ",:\n") else text


def parameters(made: Origin, width: int, height: int) -> str:
    """The A1111 text: a line for the prompt (and classes and attributes), one for a negative prompt, then
    "Steps: 20, Sampler: ..., Seed: ..."."""
    at = made.index or 0
    n = len(made.seeds)
    classes = [made.class_names.get(str(number)) for number in made.classes or ()]
    classes = made.judged.named() if made.judged is not None and not classes else classes
    prompts, negatives = made.told()
    prompts = made.pulled.captions(n) if made.pulled is not None and prompts is None else prompts
    settings = [_set(one) for one in one_for_each(made.values, n) or ()]
    rows = slice(None) if made.columns is not None else slice(at, at + 1)
    words = [_once((said or ())[rows]) for said in (classes, prompts, settings)]
    prompt, other = ", ".join(part for part in words if part), _once((negatives or ())[rows])
    prompt = "".join([prompt, *(one.words() for one in made.also)]).strip()
    against = f"\nNegative prompt: {other}" if other else ""
    facts = {
        "Steps": made.steps,
        "Sampler": made.sampler,
        "CFG scale": ", ".join(f"{k} {v:g}" for k, v in made.scales.items()) or f"{made.guidance:g}",
        "Classifier guidance": None if made.judged is None else f"{made.judged.scale:g}",
        "Auto-guidance": None if made.weaker is None else f"{made.weaker.scale:g}",
        "CLIP guidance": None if made.pulled is None else f"{made.pulled.scale:g}",
        "Seed": made.seeds[at],
        "Size": f"{width}x{height}",
        "Model hash": made.weights_sha256[:10],
        "Model": made.name,
        "Eta": made.eta,
        "Tolerance": made.tolerance,
        "Version": f"sfumato {made.library}",
    }
    line = ", ".join(f"{key}: {_quoted(value)}" for key, value in facts.items() if value is not None)
    return f"{prompt}{against}\n{line}"


def check_account(run: Run, recipe: Recipe) -> None:
    """Raises SettingsError, before anything is drawn, where a file cannot say all that pictures of one batch
    or grid follow from."""
    made = origin(run, recipe, run.path / "x.png", columns=1)
    said = json.dumps(made.model_dump(mode="json")), parameters(made, 1, 1)
    if max(len(text.encode()) for text in said) > LONGEST_TEXT - (4 << 10):
        raise SettingsError(
            f"{len(recipe.seeds):,} pictures follow from more words than fit into a file with them: give "
            "fewer or shorter prompts, or --out folder/ and a smaller --batch"
        )


def _once(said: Sequence[str | None]) -> str:
    """All that is said, each once."""
    return ", ".join(dict.fromkeys(one for one in said if one))


def _set(values: Mapping[str, Value] | None) -> str:
    """Attributes in words: age=0.7."""
    text = lambda value: "|".join(value) if isinstance(value, tuple) else str(value)
    return ", ".join(f"{name}={text(value)}" for name, value in (values or {}).items())


def read_origin(path: Path) -> Origin:
    """Where a PNG file says it comes from. Raises ImageFileError: no PNG, none of ours, or not readable as
    such."""
    return parse_origin(read_recipe(path), path)


def parse_origin(account: Mapping[str, object], where: Path | str) -> Origin:
    """What an account says, judged: the file is anybody's. Raises ImageFileError."""
    try:
        made = Origin.model_validate_json(json.dumps(account), strict=True)
    except (ValidationError, RecursionError) as error:
        words = sentence(error) if isinstance(error, ValidationError) else "nested too deeply"
        raise ImageFileError(f"{where}: its account of how it was made is damaged ({words})") from None
    check_places(made, where)
    return made


def check_places(made: Origin, where: Path | str) -> None:
    """Raises ImageFileError where seeds, classes and the place among them contradict each other."""
    n = len(made.seeds)
    wrong = made.classes is not None and len(made.classes) != n
    of, texts = made.prompt_of, made.prompts or ()
    each = (None if of is not None else made.prompts, made.negatives, made.values)
    wrong = wrong or any(said is not None and len(said) not in (1, n) for said in each)
    wrong = wrong or (of is not None and (len(of) != n or max(of) >= len(texts)))
    wrong = wrong or (made.judged is not None and len(made.judged.classes) != n)
    wrong = wrong or (made.pulled is not None and not made.pulled.fits(n))
    if wrong or (made.index or 0) >= n or (made.index is None) == (made.columns is None):
        raise ImageFileError(f"{where}: its account of how it was made contradicts itself: use another copy")
