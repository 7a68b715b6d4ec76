"""The way of `sfumato edit interpolate`: its stops, the pictures between them, and the film of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from sfumato.cli.drawing import FILMS, GRID, make_room
from sfumato.cli.edits.easel import Easel, Result
from sfumato.cli.edits.starts import bench_of, starts, whole
from sfumato.cli.edits.was import retold
from sfumato.denoiser import Denoiser
from sfumato.editing.interpolate import Blend, path, sheet
from sfumato.editing.job import Job
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
            raise SettingsError(
                "a way has --frames pictures and one condition: leave -n out, name one class, and the last "
                "picture's by --to-class"
            )
        seeds = [] if self.seeds is None else whole(self.seeds, "--seeds")
        one, stops = starts(easel, seeds or ([] if easel.images else list(easel.recipe.seeds[:1])))
        if len(stops) == 1 and not self.changes:
            raise SettingsError("between what? Give two pictures or --seeds, or a --to-class or --to-prompt")
        x, shares = self._places(torch.cat([stop.x for stop in stops]))
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

    def _places(self, stops: Tensor) -> tuple[Tensor, Tensor]:
        """The noises of all pictures, and how far along the whole way each is."""
        if self.sheet:
            return sheet(stops, self.frames, self.frames), torch.linspace(0, 1, self.frames**2)
        shares = torch.linspace(0, 1, self.frames)
        if len(stops) == 1:
            return stops.expand(self.frames, *stops.shape[1:]), shares
        return path(len(stops), self.frames, self.closed).along(stops), shares

    def _part(self, easel: Easel, recipe: Recipe, x: Tensor, shares: Tensor, rows: Sequence[int]) -> Tensor:
        b = bench_of(easel, recipe.take(rows))
        denoise: Denoiser = b.denoise
        if self.changes:
            other = easel.run.denoiser(self._other(easel, b.recipe))
            denoise = Blend(b.denoise, other, shares[list(rows)])
        return b.finished(Job(denoise, x[list(rows)], descend(b.levels)))

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
