"""The way of `sfumato edit interpolate`: its stops, the pictures between them, and the film of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sfumato.cli.drawing import FILMS, GRID, make_room
from sfumato.cli.edits.easel import Easel, Result
from sfumato.cli.edits.starts import bench_of, of_file, of_seed, whole
from sfumato.cli.edits.was import retold
from sfumato.denoiser import Denoiser
from sfumato.editing.interpolate import Blend, path, sheet
from sfumato.editing.invert import Unseen
from sfumato.editing.job import Bench, Job
from sfumato.errors import SettingsError
from sfumato.files.pictures import write_film
from sfumato.plans import descend
from sfumato.runs import Recipe

MS = 80
"""How long a film shows each picture."""


@dataclass(frozen=True)
class Way:
    """What was asked for; see `cli.edits.noises.interpolate`."""

    seeds: str | None
    frames: int
    sheet: bool
    closed: bool
    to_class: str | None
    to_prompt: str | None
    film: Path | None

    def __post_init__(self) -> None:
        if self.film is not None and self.film.suffix.lower() not in FILMS:
            raise SettingsError(f"--film {self.film}: films are written as .webp, .gif or .png")
        most = round(GRID**0.5) if self.sheet else GRID
        if not 2 <= self.frames <= most:
            raise SettingsError(f"--frames {self.frames}: give a number from 2 to {most:,}")
        if self.sheet and (self.closed or self.film is not None):
            raise SettingsError("a sheet is no way from picture to picture: leave --closed and --film out")

    def drawn(self, easel: Easel) -> Result:
        """The pictures, in rows where they are a sheet."""
        if len(easel.recipe.seeds) > 1:
            raise SettingsError("a way begins in one condition: name one class, and the last by --to-class")
        seeds = [] if self.seeds is None else whole(self.seeds, "--seeds")
        seeds = seeds or ([] if easel.images else list(easel.recipe.seeds[:1]))
        many = len(easel.images) + len(seeds)
        if many == 1 and not self.changes:
            raise SettingsError("between what? Give two pictures or --seeds, or a --to-class or --to-prompt")
        if self.sheet and many != 4:
            raise SettingsError(f"a sheet is between four corners, not {many}: give four pictures or --seeds")
        if not self.sheet and self.frames < many:
            raise SettingsError(f"--frames {self.frames}: give {many} or more, the way goes through so many")
        at, one = self._shares(many), bench_of(easel, easel.recipe.take([0]))
        stops = [of_file(easel, one, self._told(easel, one, at[[i]]), p) for i, p in enumerate(easel.images)]
        stops += [of_seed(one, seed) for seed in seeds]
        x, shares = self._places(torch.cat([stop.x for stop in stops]), at)
        recipe = easel.recipe.take([0] * len(x))
        made = torch.cat([self._part(easel, recipe, x, shares, rows) for rows in _batches(recipe)])

        def beside(_: Path) -> list[Path]:
            if self.film is None:
                return []
            make_room(self.film.parent)
            there = Result(made).expressed(one.run)
            write_film(self.film, there if self.closed else [*there, *there[-2:0:-1]], MS)
            return [self.film]

        told = tuple(line for stop in stops for line in stop.told)
        columns = self.frames if self.sheet or self.frames <= 16 else 16
        return Result(made, columns=columns, told=told, beside=beside)

    @property
    def changes(self) -> bool:
        """Whether the condition changes on the way."""
        return self.to_class is not None or self.to_prompt is not None

    def _shares(self, stops: int) -> Tensor:
        """How far along the whole way each stop is: what holds there of the last picture's condition."""
        if not self.sheet:
            return torch.linspace(0, 1, stops) if stops > 1 else torch.zeros(1)
        return torch.linspace(0, 1, self.frames**2)[[0, self.frames - 1, -self.frames, -1]]

    def _places(self, stops: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """The noises of all pictures, and how far along the whole way each is: back at 0 as a closed way
        comes round."""
        if self.sheet:
            return sheet(stops, self.frames, self.frames), torch.linspace(0, 1, self.frames**2)
        if len(stops) == 1:  # the condition alone changes
            stops, at = stops.expand(2, *stops.shape[1:]), torch.tensor([0.0, 1.0])
        on = path(len(stops), self.frames, self.closed)
        share = torch.tensor(on.share)
        return on.along(stops), at[list(on.start)] * (1 - share) + at[list(on.end)] * share

    def _part(self, easel: Easel, recipe: Recipe, x: Tensor, shares: Tensor, rows: Sequence[int]) -> Tensor:
        b = bench_of(easel, recipe.take(rows))
        return b.finished(Job(self._told(easel, b, shares[list(rows)]), x[list(rows)], descend(b.levels)))

    def _told(self, easel: Easel, b: Bench, shares: Tensor) -> Denoiser:
        """The bench's denoiser, each row told so much of the last picture's condition."""
        if not self.changes:
            return b.denoise
        blend = Blend(b.denoise, easel.run.denoiser(self._other(easel, b.recipe)), shares)
        return Unseen(blend) if easel.images else blend

    def _other(self, easel: Easel, recipe: Recipe) -> Recipe:
        """The recipe of the last picture's conditions."""
        said = retold(easel.run, recipe, self.to_class, self.to_prompt)
        of_class = recipe if self.to_class is None else said
        of_prompt = recipe if self.to_prompt is None else said
        return replace(
            recipe,
            classes=of_class.classes,
            judged=of_class.judged,
            prompts=of_prompt.prompts,
            pulled=of_prompt.pulled,
        )


def _batches(recipe: Recipe) -> list[range]:
    size = 1 if recipe.one_by_one else recipe.batch
    return [range(i, min(i + size, len(recipe.seeds))) for i in range(0, len(recipe.seeds), size)]
