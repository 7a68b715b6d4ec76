"""Directions found without labels: what of a picture varies most, as sliders.

Two spaces. The *features* in the middle of the network, whose principal components over many pictures are
attributes that no one has named (Kwon et al. 2023, Asyrp's h-space; Haas et al. 2024): a direction has a part
for each level of the way down. And the *noise* that a picture is made from: the directions in which the
picture moves most, the right singular vectors of noise -> picture, by the power method on its Jacobian (as
Park et al. 2023 do with the features' Jacobian), for one picture or on average over several.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.editing.job import Job
from sfumato.errors import ModelFileError, SettingsError
from sfumato.files import read_tensors, write_tensors
from sfumato.level import Level, Levels, spread_on
from sfumato.networks.probe import probing
from sfumato.noise import Noise
from sfumato.plans import descend
from sfumato.predictions import Estimate
from sfumato.solvers.moves import carry

SPACES = ("features", "noise")
_TENSORS = ("vectors", "angles", "scale", "strength")


@dataclass(frozen=True, eq=False)
class Directions:
    """K directions of one space, the strongest first.

    vectors: (K, S, *shape), orthonormal as rows of numbers: their parts at S levels, which have these
    `angles` (S,); in the noise S is 1. scale: (K,): how far one standard deviation of the pictures
    is along each. strength: (K,), the share of the features' variance; of the noise, how far the picture
    moves for each unit.
    """

    space: str
    vectors: Tensor
    angles: Tensor
    scale: Tensor
    strength: Tensor

    def __len__(self) -> int:
        return len(self.vectors)

    def chosen(self, number: int) -> int:
        """The place of direction `number`, counted from 1. Raises SettingsError if there is no such one."""
        if not 1 <= number <= len(self):
            raise SettingsError(f"there is no direction {number}: {len(self)} were found, 1 to {len(self)}")
        return number - 1


@dataclass(frozen=True, eq=False)
class _Heard:
    """The probe that keeps what the network has in its middle."""

    kept: list[Tensor]
    places: tuple[str, ...] = ("bottleneck",)

    def __call__(self, place: str, value: Tensor) -> Tensor:
        self.kept.append(value.detach().to("cpu", torch.float32))
        return value


@dataclass(frozen=True, eq=False)
class Listening:
    """A denoiser that keeps the features of every look, and the angle of its level."""

    denoise: Denoiser
    features: list[Tensor] = field(default_factory=list[Tensor])
    angles: list[float] = field(default_factory=list[float])

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        heard = _Heard([])
        with probing(heard):
            estimate = self.denoise(x, level, seen)
        if len(heard.kept) != 1 or len(heard.kept[0]) != len(x):
            raise SettingsError(
                "features are listened to without guidance, in a network that has a middle: give --guidance 1"
            )
        self.features.append(heard.kept[0])
        self.angles.append(float(level.angle))
        return estimate

    def take(self, rows: Sequence[int]) -> Listening:
        return Listening(self.denoise.take(rows), self.features, self.angles)

    def check(self, level: Level) -> None:
        self.denoise.check(level)


def principal_features(features: Sequence[Tensor], angles: Sequence[float], count: int) -> Directions:
    """The first principal components of the features that were heard, S times (n, *shape), all levels
    together.

    Raises SettingsError for more components than n pictures have.
    """
    n, shape = len(features[0]), features[0].shape[1:]
    if not 1 <= count < n:
        raise SettingsError(
            f"{count} directions from {n} pictures: ask for 1 to {n - 1}, or use more pictures"
        )
    away = [(h - h.mean(0)).flatten(1).double() for h in features]
    gram = sum((part @ part.T for part in away), start=torch.zeros(n, n, dtype=torch.float64))
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    length = values[:count].sqrt().clamp(min=1e-300)
    parts = [(vectors[:, :count].T @ part / length[:, None]).reshape(count, *shape) for part in away]
    return Directions(
        "features",
        _signed(torch.stack(parts, 1)).float(),
        torch.tensor(list(angles), dtype=torch.float64),
        (values[:count] / (n - 1)).sqrt(),
        values[:count] / values.sum(),
    )


def picture_of(denoise: Denoiser, levels: Levels) -> Callable[[Tensor], Tensor]:
    """Noise -> picture by DDIM down the levels, as a function that can be differentiated."""

    def made(x: Tensor) -> Tensor:
        for move in descend(levels):
            x = carry(denoise(x, move.here), move.there)
        return x

    return made


def principal_noise(
    made: Callable[[Tensor], Tensor], x: Tensor, level: Level, count: int, rounds: int = 8
) -> Directions:
    """The directions that move pictures most: the first eigenvectors of the mean of J^T J over the rows of x,
    J being the Jacobian of `made` there. Subspace iteration of so many rounds, then Rayleigh and Ritz.

    made: (B, ...) -> (B, ...), row by row; x: (B, ...) at `level`. Raises SettingsError for more directions
    than x has numbers.
    """
    size = x[0].numel()
    if not 1 <= count <= size:
        raise SettingsError(f"{count} directions in noise of {size} numbers: ask for 1 to {size}")
    basis = found = Noise((0,)).normal((size, count), "directions")[0].to(x)
    values = torch.zeros(count)
    for _ in range(rounds):
        basis = torch.linalg.qr(basis)[0]
        after = _squared(made, x, basis)
        values, turn = torch.linalg.eigh((basis.T @ after + after.T @ basis) / 2)
        basis, found = after, basis @ turn.flip(1)
    return Directions(
        "noise",
        _signed(found.T.reshape(count, 1, *x.shape[1:])).float().cpu(),
        level.angle.reshape(1),
        torch.full((count,), float(level.norm), dtype=torch.float64),
        values.flip(0).clamp(min=0).sqrt().double().cpu(),
    )


def _squared(made: Callable[[Tensor], Tensor], x: Tensor, basis: Tensor, step: float = 1e-2) -> Tensor:
    """The mean over rows of J^T J times each column of the basis: J by central differences, J^T by
    differentiation."""
    columns: list[Tensor] = []
    with torch.enable_grad():
        start = x.detach().requires_grad_()
        picture = made(start)
    for v in basis.T:
        v = v.reshape(x.shape[1:])
        with torch.no_grad():
            moved = (made(x + step * v) - made(x - step * v)) / (2 * step)
        (back,) = torch.autograd.grad(picture, start, moved, retain_graph=True)
        columns.append(back.mean(0).flatten())
    return torch.stack(columns, 1)


def _signed(vectors: Tensor) -> Tensor:
    """Each turned so that its largest number is positive: a direction has no sign of its own."""
    flat = vectors.flatten(1)
    largest = flat.gather(1, flat.abs().argmax(1, keepdim=True)).sign()
    return vectors * largest.reshape(-1, *(1,) * (vectors.ndim - 1))


@dataclass(frozen=True, eq=False)
class _Push:
    """The probe that moves the features; a batch that guidance has stacked is moved in each of its parts."""

    by: Tensor
    places: tuple[str, ...] = ("bottleneck",)

    def __call__(self, place: str, value: Tensor) -> Tensor:
        if value.shape[1:] != self.by.shape[1:] or len(value) % len(self.by):
            raise SettingsError(
                f"features of shape {tuple(value.shape)} are moved by directions of another model, "
                f"{tuple(self.by.shape)}: find them anew with sfumato edit directions"
            )
        return value + self.by.to(value).repeat(len(value) // len(self.by), *(1,) * (value.ndim - 1))


@dataclass(frozen=True, eq=False)
class Slid:
    """A denoiser whose features are moved along a direction, row i by `amounts[i]` standard deviations, at
    each level by the part of the direction whose level is nearest."""

    denoise: Denoiser
    directions: Directions
    which: int
    amounts: Tensor

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        at = int((self.directions.angles - level.angle.max()).abs().argmin())
        vector = self.directions.vectors[self.which, at] * float(self.directions.scale[self.which])
        with probing(_Push(spread_on(self.amounts, vector[None]) * vector)):
            return self.denoise(x, level, seen)

    def take(self, rows: Sequence[int]) -> Slid:
        return replace(self, denoise=self.denoise.take(rows), amounts=self.amounts[list(rows)])

    def check(self, level: Level) -> None:
        self.denoise.check(level)


def slide(
    denoise: Denoiser, x: Tensor, levels: Levels, directions: Directions, which: int, amounts: Tensor
) -> Job:
    """The picture of noise x (B, C, H, W), or (1, C, H, W) for all, moved along direction `which` (from 0),
    row i by `amounts[i]` standard deviations."""
    x = x.expand(len(amounts), *x.shape[1:])
    if directions.space == "features":
        return Job(Slid(denoise, directions, which, amounts), x, descend(levels))
    vector = directions.vectors[which, 0] * float(directions.scale[which])
    if vector.shape != x.shape[1:]:
        raise SettingsError(
            f"these directions are for pictures of shape {tuple(vector.shape)}, not {tuple(x.shape[1:])}"
        )
    return Job(denoise, x + (spread_on(amounts, x) * vector.to(x)), descend(levels))


def save_directions(path: Path, directions: Directions, about: Mapping[str, str]) -> None:
    """Writes them as safetensors, with what they were found by."""
    tensors = {name: getattr(directions, name).contiguous() for name in _TENSORS}
    write_tensors(path, tensors, {"space": directions.space, "about": json.dumps(dict(about))})


def load_directions(path: Path) -> tuple[Directions, dict[str, str]]:
    """Directions from a file, and what they were found by. Raises ModelFileError for another kind of file."""
    tensors, metadata = read_tensors(path)
    space = metadata.get("space")
    try:
        about = json.loads(metadata.get("about", "null"))
    except ValueError:
        about = None
    found = [tensors.get(name) for name in _TENSORS]
    if space not in SPACES or not isinstance(about, dict) or any(part is None for part in found):
        raise ModelFileError(f"{path}: holds no directions: find them with sfumato edit directions")
    vectors, angles, scale, strength = (tensors[name] for name in _TENSORS)
    fits = (
        vectors.ndim >= 3 and vectors.shape[:2] == (len(scale), len(angles)) and len(strength) == len(scale)
    )
    if not fits or not all(bool(part.isfinite().all()) for part in tensors.values()):
        raise ModelFileError(f"{path}: its directions do not fit together: find them anew")
    return Directions(space, vectors, angles, scale, strength), {str(k): str(v) for k, v in about.items()}
