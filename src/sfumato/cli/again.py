"""Making a picture again, comparing it with the one that was there, and what has changed since."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sfumato import __version__, noise
from sfumato.card import CARD
from sfumato.cli.drawing import check_target, make_room, pixels, write_picture
from sfumato.data.bundled import model_path
from sfumato.data.decode import decode
from sfumato.errors import RunError, SettingsError
from sfumato.files.pictures import Pixels, grid
from sfumato.files.png import encode_png
from sfumato.guides.account import pairs_of
from sfumato.provenance import Origin, grid_hash, machine, read_origin
from sfumato.runs import Recipe, Run, load


@dataclass(frozen=True)
class Verdict:
    """How two pictures compare: the largest difference as a share of the whole range, and PSNR in
    decibels."""

    identical: bool
    largest: float
    psnr: float
    changed: float
    """The share of numbers that differ."""

    @property
    def same(self) -> bool:
        """Identical, or apart by rounding alone: one step of 255."""
        return self.largest <= 1 / 255 + 1e-9

    def __str__(self) -> str:
        if self.identical:
            return "identical"
        how = "the same but for rounding" if self.same else "different"
        return (
            f"{how}: largest difference {self.largest * 255:.3g} of 255, {self.changed:.3%} of the values, "
            f"PSNR {self.psnr:.1f} dB"
        )


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was."""

    what: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"{self.what}: {self.then} then, {self.now} now"


def differences(made: Origin, run: Run, recipe: Recipe) -> list[Difference]:
    """What is not as it was when the picture was made, the most telling first."""
    pairs = [
        ("model", made.model[:12], run.card.core()[:12]),
        ("weights", made.weights_sha256[:12], run.sha256[:12]),
        *pairs_of(made.judged, made.weaker, made.pulled, recipe),
        ("noise stream", str(made.noise_stream), str(noise.STREAM)),
        ("grid of levels", made.grid[:12], grid_hash(run, recipe)[:12]),
        ("sfumato", made.library, __version__),
        ("torch", made.torch, torch.__version__),
        ("machine", made.machine, machine(run.device)),
        ("threads", str(made.threads), str(torch.get_num_threads())),
    ]
    return [Difference(what, then, now) for what, then, now in pairs if then != now]


@dataclass(frozen=True)
class Again:
    """A picture made anew."""

    run: Run
    made: Origin
    shown: Pixels
    verdict: Verdict
    changes: tuple[Difference, ...]

    def write(self, path: Path) -> None:
        """Writes the new picture, with what it was made from."""
        check_target(path)
        make_room(path.parent)
        recipe = recipe_of(self.made, self.run, path)
        write_picture(self.run, path, self.shown, recipe, index=self.made.index, columns=self.made.columns)


def compare(old: np.ndarray, new: np.ndarray) -> Verdict:
    """Compares two decoded pictures. Different sizes are as different as can be."""
    if old.shape != new.shape or old.dtype != new.dtype:
        return Verdict(False, 1.0, 0.0, 1.0)
    apart = np.abs(old.astype(np.float64) - new.astype(np.float64)) / np.iinfo(old.dtype).max
    mean = float((apart**2).mean())
    psnr = math.inf if mean == 0 else -10 * math.log10(mean)
    return Verdict(mean == 0, float(apart.max()), psnr, float((apart > 0).mean()))


def find_run(image: Path, made: Origin, asked: Path | None) -> Path:
    """The run that made a picture: as asked, as recorded, or around the picture. Raises RunError."""
    if asked is not None:
        return asked
    for place in (image.parent / made.run, image.parent.parent, image.parent, model_path(made.run)):
        if (place / CARD).is_file():
            return place
    raise RunError(f"{image}: its run is no longer at {made.run}: say where it is with --run RUN")


def again(image: Path, asked: Path | None = None, device: str = "auto") -> Again:
    """Makes the picture of a PNG file again.

    A picture alone is tried first; if that differs by rounding, its whole batch is made as it was. Raises
    ImageFileError for a picture that does not say how it was made, RunError where its run is not found.
    """
    made = read_origin(image)
    run = load(find_run(image, made, asked), device, made.weights)
    old = decode(image).array
    recipe = recipe_of(made, run, image)
    if made.columns is not None:
        shown = grid(pixels(run, run.make(recipe)), made.columns)
        return _judged(run, made, recipe, old, shown)
    index = made.index or 0
    result = _judged(run, made, recipe, old, pixels(run, run.make(recipe.take([index])))[0])
    if not result.verdict.identical and len(made.seeds) > 1 and not made.one_by_one:
        result = _judged(run, made, recipe, old, pixels(run, run.make(recipe))[index])
    return result


def recipe_of(made: Origin, run: Run, image: Path) -> Recipe:
    """The recorded recipe, judged by the run like any other wish: the file is anybody's."""
    try:
        return run.recipe(**made.asked(image.parent))
    except SettingsError as error:
        raise RunError(f"{image}: the run {run.name} cannot make it, so it is another's ({error})") from None


def _judged(run: Run, made: Origin, recipe: Recipe, old: np.ndarray, shown: Pixels) -> Again:
    new = decode(encode_png(shown, {})).array  # through the same door, which keeps 8 bits of deep colour
    return Again(run, made, shown, compare(old, new), tuple(differences(made, run, recipe)))
