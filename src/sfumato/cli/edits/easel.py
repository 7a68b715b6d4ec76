"""The easel: what a task has at hand, a run, a recipe and pictures, and what it makes there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfumato.cli.drawing import arrange, pixels
from sfumato.cli.edits.options import Asked
from sfumato.cli.wishes import also_of, interval_of, scale_of, settings_of
from sfumato.data.dataset import to_unit
from sfumato.data.decode import decode
from sfumato.data.fit import Resize, fit, plain
from sfumato.editing.job import Bench, Job, bench
from sfumato.editing.noise_file import ENDING, read_noise
from sfumato.editing.record import Account, account_of
from sfumato.errors import SettingsError
from sfumato.files.pictures import Pixels
from sfumato.guides.classifier import names_of
from sfumato.runs import Recipe, Run

DIRECTIONS = "directions"
"""The part that a file of directions has in an edit: what was read of it is kept as its hash alone."""

COLOURS = {1: "grey", 2: "grey with transparency", 3: "colour", 4: "colour with transparency"}


def from_file(path: Path, role: str = "picture") -> np.ndarray:
    """The pixels of a picture's file, (H, W, C), uint8 or uint16; or a picture's noise, (C, H, W),
    float32; or, of directions, the bytes of their file, (n,) uint8."""
    if role == DIRECTIONS:
        return np.frombuffer(path.read_bytes(), np.uint8)
    return read_noise(path).numpy() if path.suffix == ENDING else decode(path).array


@dataclass(frozen=True, eq=False)
class Shelf:
    """The pictures that an edit reads. What was read is remembered with its part in the edit. told: what a
    file says of how it was made."""

    look: Callable[[Path, str], np.ndarray] = from_file
    told: Callable[[Path], Account | None] = account_of
    seen: dict[tuple[str, Path], np.ndarray] = field(default_factory=dict[tuple[str, Path], np.ndarray])

    def read(self, path: Path, role: str = "picture") -> np.ndarray:
        """The pixels, (H, W, C), uint8 or uint16. role: "picture", "mask", "style", ..."""
        if (role, path) not in self.seen:
            self.seen[role, path] = self.look(path, role)
        return self.seen[role, path]


@dataclass(frozen=True, eq=False)
class Result:
    """What a task has made.

    pictures: in the model's range: (n, C, H, W), one for each of the recipe's, or any number if `columns`
    says how many are side by side on one sheet. express: how one becomes what its file holds; the run's way
    if None. told: sentences for the user. beside: writes what belongs beside the file of this path (a film, a
    noise) and says where; a replay leaves it out.
    """

    pictures: Tensor
    express: Callable[[Tensor], Pixels] | None = None
    columns: int | None = None
    told: tuple[str, ...] = ()
    beside: Callable[[Path], Sequence[Path]] | None = None

    def expressed(self, run: Run) -> list[Pixels]:
        """The pictures as their files hold them."""
        if self.express is None:
            return pixels(run, self.pictures)
        return [self.express(picture) for picture in self.pictures]


@dataclass(frozen=True, eq=False)
class Easel:
    """What a task has at hand."""

    run: Run
    recipe: Recipe
    """Of all the results: seeds, conditions, sampler."""
    images: tuple[Path, ...]
    """One, or all of them for a task that takes them together."""
    resize: Resize | None = None
    shelf: Shelf = field(default_factory=Shelf)

    def pixels(self, path: Path | None = None, role: str = "picture") -> np.ndarray:
        """A file's own pixels, (H, W, C); the first picture's without a path."""
        return self.shelf.read(self.images[0] if path is None else path, role)

    def fitted(self, path: Path | None = None, role: str = "picture") -> np.ndarray:
        """The same in the model's size and channels, uint8 or uint16 as the file. Another size, or a kind of
        pixels that the model does not draw, is fitted if --resize says how, otherwise refused
        (SettingsError)."""
        where = self.images[0] if path is None else path
        return fitted(self.run, self.pixels(path, role), where, self.resize)

    def picture(self, path: Path | None = None, role: str = "picture") -> Tensor:
        """`fitted` in the model's range, (C, H, W), float32."""
        return in_range(self.run, self.fitted(path, role))

    @property
    def conditioned(self) -> bool:
        """Whether something is asked for: a class, an attribute, a prompt."""
        wishes = self.recipe.wishes()
        told = any(wish.label is not None or wish.values or wish.prompt for wish in wishes)
        return (
            told or bool(self.recipe.also) or self.recipe.judged is not None or self.recipe.pulled is not None
        )

    def benches(
        self, condition: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> Iterator[Bench]:
        """One for each batch of the recipe. condition: a picture (C, H, W) for networks that take one. size:
        of a canvas (height, width), if that is not the model's."""
        image = self.run.card.image
        own = size is None or size == (image.height, image.width)
        for part in self.recipe.parts():
            whole = None
            if condition is not None:
                whole = condition.expand(len(part.seeds), *condition.shape).to(self.run.device)
            b = bench(self.run, part, whole if own else None)
            yield b if own or size is None else b.over(size, whole)

    def drawn(
        self,
        make: Callable[[Bench], Job],
        condition: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """The finished pictures of the jobs that are made for each batch, (n, C, H, W), on the CPU; see
        `benches`."""
        return torch.cat([b.finished(make(b)) for b in self.benches(condition, size)])


def fitted(
    run: Run,
    shown: np.ndarray,
    where: Path | str,
    resize: Resize | None,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """(H, W, C) in the run's channels, and in its size or the one that is said; see `Easel.fitted`."""
    if shown.dtype.kind == "f":
        raise SettingsError(f"{where} is a picture's noise, and this edit needs the picture itself")
    image = run.card.image
    size = (image.height, image.width) if size is None else size
    said = plain(shown)
    check_size(run, shown, where, resize, size)
    told, drawn = said.shape[2], image.channels
    if drawn not in (1, 3, 4):
        raise SettingsError(f"{run.name}: its pictures have {drawn} channels, which no picture file holds")
    if resize is None and not drawable(shown, drawn):
        raise SettingsError(
            f"{where} is {COLOURS[told]} and the model draws {COLOURS[drawn]}: say --resize crop to have it "
            "changed to that"
        )
    deep = shown.dtype == np.uint16
    return fit(said, size, resize or "crop", image.channels, deep)


def check_size(
    run: Run, shown: np.ndarray, where: Path | str, resize: Resize | None, size: tuple[int, int]
) -> None:
    """Raises SettingsError for (H, W, C) of another size, unless --resize says how it is fitted."""
    height, width = shown.shape[:2]
    if resize is None and (height, width) != size:
        image = run.card.image
        raise SettingsError(
            f"{where} is {width} x {height} pixels and the model's pictures are {image.width} x "
            f"{image.height}: say --resize crop, stretch or pad to fit it"
        )


def drawable(shown: np.ndarray, channels: int) -> bool:
    """Whether a model of so many channels can draw all that (H, W, C) shows: needless channels aside."""
    told = plain(shown).shape[2]
    return told <= channels and (told, channels) != (2, 3)


def in_range(run: Run, shown: np.ndarray) -> Tensor:
    """Whole numbers (H, W, C) -> float32 (C, H, W) in the run's range."""
    low, high = run.card.image.low, run.card.image.high
    unit = to_unit(shown[None])[0]
    return unit if (low, high) == (-1.0, 1.0) else (unit + 1) / 2 * (high - low) + low


def wanted(run: Run, asked: Asked) -> tuple[Recipe, int]:
    """The recipe that the options ask for, and how many results are side by side in a grid. Without a class
    asked for, no class is drawn."""
    if asked.ensemble is not None and (asked.ensemble < 2 or asked.number != 1):
        raise SettingsError(f"--ensemble {asked.ensemble}: give at least 2, and no -n beside it")
    number = asked.ensemble or asked.number
    names = run.classes or (names_of(run.path) if asked.classifier_guidance else ())
    classes, columns = arrange(names, number, asked.class_ or [])
    if not asked.class_:
        classes = [None] * number
    recipe = run.recipe(
        len(classes),
        classes=classes,
        prompt=asked.prompt,
        negative=asked.negative,
        set=settings_of(asked.set_ or []),
        also=also_of(asked.and_ or [], asked.not_ or []),
        steps=asked.steps,
        sampler=asked.sampler,
        eta=asked.eta,
        seed=asked.seed,
        guidance=scale_of(asked.guidance),
        interval=interval_of(asked.interval),
        rescale=asked.rescale,
        threshold=asked.threshold,
        classifier_guidance=asked.classifier_guidance,
        autoguide=asked.autoguide,
        autoguide_scale=asked.autoguide_scale,
        autoguide_weights=asked.autoguide_weights,
        clip_model=asked.clip_model,
        clip_guidance=asked.clip_guidance,
        cutouts=asked.cutouts,
        clip=asked.clip,
        batch=asked.batch,
    )
    return recipe, columns
