"""Pairs of pictures for a blind page: of two runs with one seed and one wish, or of folders of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation.sets import of_folder
from sfumato.noise import permutation
from sfumato.reporting.blind import Pair
from sfumato.reporting.subject import is_run
from sfumato.runs import Run, load


@dataclass(frozen=True)
class Wanted:
    """What both are asked for. classes and prompts take turns; () for those that both know, and for none."""

    number: int
    classes: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    steps: int | None = None
    guidance: float | int | None = None
    seed: int = 0
    batch: int = 64
    device: str = "auto"


@dataclass(frozen=True)
class Drawn:
    """The pictures of one side, (n, C, H, W) in [-1, 1], and where each is from."""

    pictures: Tensor
    origins: tuple[dict[str, Any], ...]


def pairs(a: Path, b: Path, wanted: Wanted) -> list[Pair]:
    """As many pairs as wanted. Raises SettingsError for wishes that neither can be asked for."""
    if wanted.number < 1:
        raise SettingsError(f"-n {wanted.number}: at least one pair")
    runs = [load(path, wanted.device) if is_run(path) else None for path in (a, b)]
    opened = [run for run in runs if run is not None]
    classes = wanted.classes or _known_to_all(opened)
    groups = [classes[i % len(classes)] if classes else None for i in range(wanted.number)]
    prompts = [
        wanted.prompts[i % len(wanted.prompts)] if wanted.prompts else None for i in range(wanted.number)
    ]
    told = [run for run in opened if run.classes]
    if wanted.classes and not told:
        raise SettingsError(f"{a} and {b} know no classes: leave out --class")
    if wanted.prompts and not any(run.card.text is not None for run in opened):
        raise SettingsError(f"{a} and {b} read no captions: leave out --prompt")
    if not opened and (wanted.steps is not None or wanted.guidance is not None):
        raise SettingsError(f"{a} and {b} are pictures already: leave out --steps and --guidance")
    sides = [
        _of_run(run, groups, prompts, wanted) if run is not None else _of_folder(path, wanted, turn)
        for turn, (run, path) in enumerate(zip(runs, (a, b), strict=True))
    ]
    asked = [", ".join(part for part in both if part) for both in zip(groups, prompts, strict=True)]
    return [
        Pair(
            sides[0].pictures[i],
            sides[1].pictures[i],
            asked[i],
            {"asked": asked[i], "a": sides[0].origins[i], "b": sides[1].origins[i]},
        )
        for i in range(wanted.number)
    ]


def _known_to_all(runs: Sequence[Run]) -> tuple[str, ...]:
    """The classes that all of them know, in the order of the first."""
    if not runs or not all(run.classes for run in runs):
        return ()
    return tuple(name for name in runs[0].classes if all(name in run.classes for run in runs))


def _of_run(run: Run, groups: Sequence[str | None], prompts: Sequence[str | None], wanted: Wanted) -> Drawn:
    recipe = run.recipe(
        wanted.number,
        classes=[name if name is not None else i % len(run.classes) for i, name in enumerate(groups)]
        if run.classes
        else None,
        prompt=prompts if run.card.text is not None and any(prompts) else None,
        steps=wanted.steps,
        guidance=wanted.guidance,
        seed=wanted.seed,
        batch=wanted.batch,
    )
    image = run.card.image
    made = (run.make(recipe) - image.low) / (image.high - image.low) * 2 - 1
    said = {"run": str(run.path), "weights_sha256": run.sha256, "steps": recipe.steps}
    return Drawn(made, tuple({**said, "seed": seed} for seed in recipe.seeds))


def _of_folder(path: Path, wanted: Wanted, turn: int) -> Drawn:
    """Pictures of a folder, drawn by the seed; each once."""
    found = of_folder(path)
    if found.count < wanted.number:
        raise SettingsError(f"{path}: {found.count} pictures for {wanted.number} pairs: give a smaller -n")
    rows = permutation(found.count, wanted.seed, "blind folder", turn)[: wanted.number].tolist()
    said = {"folder": str(path), "sha256": found.sha256}
    return Drawn(found.images(rows), tuple({**said, "row": row} for row in rows))
