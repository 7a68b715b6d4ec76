"""The loss of a run at each noise level, on what it was trained on and on what it was not, beside the least
possible.

All losses are |dv|^2 per number, the error of v on unit data, which stays finite at both ends: |dx0|^2 is
sigma^2 and |deps|^2 alpha^2 of it (on the unit circle). The same pictures and the same noise are used at
every level and for the network as for the ideal denoiser, so that curves differ by what made them and not by
chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sfumato.data.dataset import DataSet
from sfumato.data.split import place
from sfumato.errors import SettingsError
from sfumato.files import Checkpoints, read_json
from sfumato.forward import noised
from sfumato.inside.ideal import Ideal, clean_error
from sfumato.level import Level
from sfumato.noise import Noise, permutation
from sfumato.runs import Run
from sfumato.schedules import Schedule
from sfumato.tables import Table
from sfumato.training.companion import Companion
from sfumato.training.levels import Uniform, Weighed, Where
from sfumato.training.objectives import Denoising, Trial
from sfumato.training.settings import TrainSettings
from sfumato.training.weights import V_LOSS

_DRAWS = 1 << 14
_EDGE = 0.002
"""The share of training levels that is left out at either end: endless curves have no first log-SNR."""
_NUMBERS = 1 << 23
"""How many numbers the ideal denoiser is asked about at a time: 64 MB in float64."""


@dataclass(frozen=True, eq=False)
class Side:
    """The losses of some pictures, (pictures, levels), float64: the network's, and the ideal denoiser's of
    the training pictures on the same x."""

    network: Tensor
    ideal: Tensor

    @property
    def mean(self) -> Tensor:
        """The network's loss at each level, (levels,)."""
        return self.network.mean(0)

    @property
    def error(self) -> Tensor:
        """The standard error of `mean`, over the pictures; infinite for one picture."""
        n = len(self.network)
        return self.network.std(0) / n**0.5 if n > 1 else torch.full_like(self.network[0], torch.inf)


@dataclass(frozen=True, eq=False)
class Losses:
    """What `losses` measures. level: (levels,), log-SNR falling. points: how many pictures the ideal denoiser
    knows. same: whether these are the very pictures that the run says it was trained on."""

    level: Level
    train: Side
    held: Side | None
    points: int
    same: bool

    def to_json(self) -> dict[str, Any]:
        """Everything but the single pictures, as v-losses; x0- and eps-losses are those times a factor."""
        sides = {"train": self.train} | ({} if self.held is None else {"held_out": self.held})
        norm = self.level.norm
        told: dict[str, Any] = {
            "log_snr": self.level.log_snr.tolist(),
            "x0_factor": ((self.level.sigma / norm) ** 2).tolist(),
            "eps_factor": ((self.level.alpha / norm) ** 2).tolist(),
            "points": self.points,
            "trained_on_these": self.same,
        }
        for name, side in sides.items():
            told[name] = {
                "pictures": len(side.network),
                "v_loss": side.mean.tolist(),
                "standard_error": side.error.tolist() if len(side.network) > 1 else None,
                "ideal_v_loss": side.ideal.mean(0).tolist(),
            }
        return told


def trained_settings(run: Run) -> Mapping[str, Any]:
    """What RUN/settings.json says of the training, {} where there is none (a folder of diffusers)."""
    path = run.path / "settings.json"
    found = read_json(path) if path.is_file() else {}
    return cast(Mapping[str, Any], found) if isinstance(found, Mapping) else {}


def trained_where(run: Run) -> tuple[Where, int]:
    """Where the run's training looked, and its seed; uniform in time where that is not known. Levels that
    learned where to look are as they were in the newest checkpoint."""
    said = trained_settings(run).get("train")
    if not isinstance(said, Mapping):
        return Uniform(), 0
    settings = TrainSettings.from_json(cast(Mapping[str, object], said))
    where = settings.where
    if isinstance(where, Companion):
        where.begin(run.model, settings.batch, torch.device("cpu"))
        checkpoints = Checkpoints(run.path / "checkpoints")
        latest = checkpoints.latest()
        learned = {} if latest is None else checkpoints.load(latest)[0].get(where.name, {})
        if learned:
            where.restore(learned)
    return where, settings.seed


def as_trained(run: Run, data: DataSet) -> tuple[DataSet, bool]:
    """The data divided as in training, and whether the run was trained on it.

    A picture is held out where its place is below the share that was said (`data.split`), so the number of
    held-out pictures, which the card keeps, tells which they were.
    """
    known = run.card.data
    if known.fingerprint != data.fingerprint:
        return data, False
    places = np.array([place(digest) for digest in data.digests])
    held = np.zeros(len(places), dtype=bool)
    held[np.argsort(places, kind="stable")[: known.held_out]] = True
    return replace(data, train=np.flatnonzero(~held), held=np.flatnonzero(held)), True


def levels_across(schedule: Schedule, where: Where, count: int, seed: int = 0) -> Level:
    """(count,) levels even in log-SNR over all but the outermost training levels, from clean to noisy; nodes
    of a table, each once."""
    drawn = where(schedule, range(_DRAWS), seed)
    order = torch.argsort(drawn.angle)
    first, last = int(_EDGE * _DRAWS), int((1 - _EDGE) * _DRAWS) - 1
    ends = drawn.log_snr[order[[first, last]]]
    ratio = torch.exp(-torch.linspace(float(ends[0]), float(ends[1]), count, dtype=torch.float64) / 2)
    t = schedule.time(Level(torch.ones_like(ratio), ratio)).clamp(0, 1)
    if isinstance(schedule, Table):
        t = torch.unique((t * schedule.steps).round().clamp(min=1)) / schedule.steps
    return schedule.level(t)


def losses(
    run: Run,
    data: DataSet,
    *,
    levels: int = 24,
    pictures: int = 256,
    seed: int = 0,
    batch: int = 64,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Losses:
    """The run's losses on at most `pictures` of its training pictures, and on as many held-out ones.

    A model with classes is told each picture's class, and so is the ideal denoiser. Where training mirrored
    its pictures, so does the ideal's set; other augmentation is not in it. `told(done, total)` hears how far
    it is. Raises SettingsError for pictures of another shape or other classes than the run's.
    """
    image = run.card.image
    if data.shape != image.shape:
        raise SettingsError(f"pictures of shape {data.shape} for a run of {image.shape}: prepare them alike")
    if (image.low, image.high) != (-1.0, 1.0):
        raise SettingsError(f"{run.name}: made for pictures in [{image.low:g}, {image.high:g}], not [-1, 1]")
    if run.card.classes is not None and data.label_names != run.card.classes:
        raise SettingsError(f"{data.name}: its classes are not those that {run.name} was trained on")
    if levels < 2 or pictures < 1:
        raise SettingsError(f"{levels} levels and {pictures} pictures: at least 2 and 1 are needed")
    data, same = as_trained(run, data)
    where, trained_seed = trained_where(run)
    across = where.even if isinstance(where, Weighed) else where
    level = levels_across(run.model.schedule, across, levels, trained_seed)
    mirrored = bool(trained_settings(run).get("flip", False))
    ideal = Ideal.of_training(data, run.card.classes is not None, mirrored)
    sides = [data.train, data.held] if len(data.held) else [data.train]
    chosen = [rows[permutation(len(rows), seed, "look")[:pictures].numpy()] for rows in sides]
    total, done, found = sum(len(rows) for rows in chosen), 0, list[Side]()
    for i, rows in enumerate(chosen):
        parts: list[Side] = []
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            noise = Noise.of(seed, "look", i, places=range(start, start + len(some)))
            parts.append(_side(run, data, some, noise, level, ideal))
            done += len(some)
            told(done, total)
        found.append(Side(*(torch.cat([getattr(p, name) for p in parts]) for name in ("network", "ideal"))))
    return Losses(level, found[0], found[1] if len(found) > 1 else None, ideal.count, same)


@torch.no_grad()
def _side(run: Run, data: DataSet, rows: np.ndarray, noise: Noise, levels: Level, ideal: Ideal) -> Side:
    x0 = data.images(rows)
    eps = noise.normal(x0.shape[1:], "eps")
    classes = data.classes_of(rows) if run.card.classes is not None else None
    objective, count, n = Denoising(V_LOSS), len(levels.alpha), len(x0)
    batch = data.take(rows)
    told = run.conditions.rows(run.conditions.wishes(batch), batch.picture)
    asked = run.model.read({name: value.to(run.device) for name, value in told.items()})
    network = torch.empty(n, count, dtype=torch.float64)
    clean, noisy = x0.to(run.device), eps.to(run.device)
    for j in range(count):
        level = Level(levels.alpha[j].expand(n), levels.sigma[j].expand(n))
        estimate = run.model(noised(clean, noisy, level), level, **asked)
        network[:, j] = objective(Trial(clean, noisy, level, estimate)).cpu().double()
    flat = torch.arange(n * count)
    best = torch.empty(n * count, dtype=torch.float64)
    for part in flat.split(max(1, _NUMBERS // x0[0].numel())):
        i, j = part // count, part % count
        level = Level(levels.alpha[j], levels.sigma[j])
        error = clean_error(ideal, x0[i], eps[i], level, None if classes is None else classes[i])
        best[part] = error * (level.norm / level.sigma) ** 2
    return Side(network, best.reshape(n, count))
