"""Everything that decides the numbers of a run, in one frozen object; what only decides its comfort in
another."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from sfumato.bound import BYTES, Bins
from sfumato.errors import SettingsError
from sfumato.schedules import Schedule
from sfumato.training.levels import Where
from sfumato.training.named import EVEN, LEVELS, WEIGHTS, weight_named, where_named
from sfumato.training.objectives import Denoising, Objective
from sfumato.training.pace import Budget, Pace
from sfumato.training.variational import VariationalBound

OPTIMISERS = ("adamw", "sgld")
PRECISIONS = ("fp32", "bf16")
LENGTH = ("steps", "images", "minutes")
"""How long a run is: what may change from one start of it to the next."""


@dataclass(frozen=True)
class TrainSettings:
    """How a model is trained. Two runs with equal settings, data and model have equal losses, bit for bit on
    one CPU with budgets in steps or images. Raises SettingsError with one sentence for values that cannot be.

    batch: pictures in one step, over all processes and accumulated parts; accumulate: parts that are computed
    one after the other. drop: how often a class is hidden, for guidance. clip: largest norm of the gradient,
    0 for none. bound: the share of the
    variational bound beside the weighted loss, for a learned variance. huber: the c of a pseudo-Huber loss, 0
    for squares. averages: how many snapshots of two power averages are kept over the run, 0 for none.
    validate: steps between two looks at the held-out pictures, 0 for never. metrics_every: images between two
    looks at what the model draws (`judge.Judge`), 0 for never. best_by: the figure that says which look is
    the best, "loss" (held-out) or one of the judge's. patience: such looks without a new best before the run
    stops early, 0 for never. tolerance: bad (not finite) steps in a row before the run rolls back.
    """

    seed: int = 0
    steps: int | None = None
    images: int | None = None
    minutes: float | int | None = None
    batch: int = 64
    accumulate: int = 1
    optimiser: str = "adamw"
    lr: float = 4e-4
    warmup: int | None = None
    floor: float | int = 0.01
    weight_decay: float | int = 0.01
    temperature: float | int = 1e-7
    clip: float | int = 1.0
    ema: float | int = 0.9999
    averages: int = 8
    drop: float | int = 0.1
    weight: str = "simple"
    gamma: float | int = 5.0
    bias: float | int = 0.0
    data_std: float | int = 0.5
    huber: float | int = 0.0
    bound: float | int = 0.0
    levels: str = "stratified"
    precision: str = "fp32"
    validate: int = 0
    metrics_every: int = 0
    best_by: str = "loss"
    patience: int = 0
    tolerance: int = 5

    def __post_init__(self) -> None:
        _one_of("--weight", self.weight, WEIGHTS)
        _one_of("--levels", self.levels, LEVELS)
        _one_of("--optimiser", self.optimiser, OPTIMISERS)
        _one_of("--precision", self.precision, PRECISIONS)
        for name, value in asdict(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise SettingsError(f"--{name.replace('_', '-')} must be a finite number, not {value}")
        if not -(2**63) <= self.seed < 2**63:
            raise SettingsError(f"--seed must be a number of at most 63 bits, not {self.seed}")
        for name in ("batch", "accumulate", "tolerance"):
            if getattr(self, name) < 1:
                raise SettingsError(f"--{name} must be at least 1, not {getattr(self, name)}")
        least0 = ("weight_decay", "temperature", "clip", "averages", "validate", "metrics_every")
        for name in (*least0, "patience", "huber", "bound"):
            if getattr(self, name) < 0:
                raise SettingsError(
                    f"--{name.replace('_', '-')} must not be negative, not {getattr(self, name)}"
                )
        if not 0 <= self.drop < 1:
            raise SettingsError(f"--drop must be in [0, 1), not {self.drop}")
        if not 0 <= self.ema < 1:
            raise SettingsError(f"--ema must be in [0, 1), not {self.ema}")
        if self.accumulate > self.batch:
            raise SettingsError(f"a batch of {self.batch} cannot be computed in {self.accumulate} parts")
        self._check_looks()
        self._check_loss()
        _ = self.budget, self.pace

    def _check_looks(self) -> None:
        """Raises SettingsError for a best that nobody looks for."""
        if self.best_by == "loss" and self.patience and not self.validate:
            raise SettingsError(
                "--patience needs --validate, the steps between two looks at held-out pictures"
            )
        if self.best_by != "loss" and not self.metrics_every:
            raise SettingsError(
                f"--best-by {self.best_by} needs --metrics-every, the images between two looks at samples"
            )

    def _check_loss(self) -> None:
        """Raises SettingsError for parts of the loss that do not go together."""
        whole = self.weight == "bound"
        if (whole or self.bound) and self.levels not in EVEN:
            raise SettingsError(
                f"the variational bound needs levels drawn evenly (--levels {' or '.join(EVEN)}), not "
                f"{self.levels}"
            )
        if whole and (self.bound or self.huber):
            raise SettingsError("--weight bound is the whole loss: leave out --bound and --huber")

    @property
    def budget(self) -> Budget:
        minutes = None if self.minutes is None else float(self.minutes)
        return Budget(self.steps, self.images, minutes)

    @property
    def pace(self) -> Pace:
        return Pace(self.lr, self.warmup, float(self.floor))

    def objective(self, schedule: Schedule, bins: Bins = BYTES) -> Objective:
        """The loss on this schedule; `bins` are the values that a picture's numbers can take."""
        if self.weight == "bound":
            return VariationalBound(bins=bins)
        weight = weight_named(
            self.weight,
            schedule,
            gamma=float(self.gamma),
            bias=float(self.bias),
            data=float(self.data_std),
        )
        plain = Denoising(weight, float(self.huber))
        return plain + float(self.bound) * VariationalBound(mean=False, bins=bins) if self.bound else plain

    @property
    def where(self) -> Where:
        """The distribution of training levels that `levels` names."""
        return where_named(self.levels)

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, object]) -> TrainSettings:
        """The inverse of `to_json`. Raises SettingsError for names that are not settings, and for wrong
        kinds."""
        known = {f.name: f.type for f in fields(TrainSettings)}
        for name, value in values.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise SettingsError(f"training has no setting {name!r}{hint}")
            if not _fits(value, str(known[name])):
                raise SettingsError(f"the setting {name!r} takes {known[name]}, not {value!r}")
        return TrainSettings(**values)  # pyright: ignore[reportArgumentType]

    def snapshots(self, share: float) -> int:
        """How many snapshots of the averages there are by this share of the run."""
        return int(share * self.averages + 1e-9)

    def differences(self, other: TrainSettings) -> list[str]:
        """What differs, for people: "batch (64, now 32)". Not the length, since a run may be prolonged."""
        mine, theirs = self.to_json(), other.to_json()
        changed = [name for name in mine if mine[name] != theirs[name]]
        return [f"{name} ({mine[name]}, now {theirs[name]})" for name in changed if name not in LENGTH]


def _fits(value: object, kind: str) -> bool:
    kinds: dict[str, type] = {"int": int, "float": float, "str": str, "None": type(None)}
    allowed = tuple(kinds[k.strip()] for k in kind.split("|"))
    return isinstance(value, allowed) and not isinstance(value, bool)


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingsError(f"{option} is one of {', '.join(allowed)}, not {value!r}")


@dataclass(frozen=True)
class Habits:
    """What does not change a number: where it runs, how often it saves, how many threads read ahead.

    save_every: steps between checkpoints; None saves every `save_minutes`, and seldom enough to stay below 3
    % of the time.
    """

    device: str = "auto"
    workers: int = 1
    save_every: int | None = None
    save_minutes: float = 3.0
    keep: int = 2

    def __post_init__(self) -> None:
        if self.workers < 0 or self.keep < 1 or (self.save_every is not None and self.save_every < 1):
            raise SettingsError("--workers must not be negative, --keep and --save-every at least 1")
        if not self.save_minutes > 0:
            raise SettingsError(f"--save-minutes must be above 0, not {self.save_minutes}")
