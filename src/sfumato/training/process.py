"""The diffusion process of a run, by the names that settings and the command line know: its schedule, what
its network predicts, and how that is told its level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sfumato.errors import SettingsError
from sfumato.files import read_json
from sfumato.learned import Learned
from sfumato.model import Label, LogSigma, Steps
from sfumato.predictions import Clean, Epsilon, Flow, Mean, Prediction, Score, V
from sfumato.records.schedules import schedule_hash
from sfumato.schedules import VE, Cosine, LinearAlphaBar, LogLinear, RectifiedFlow, Schedule, Shifted, Sigmoid
from sfumato.tables import Table

_TABLES: dict[str, Callable[[], Table]] = {
    "cosine": Table.cosine,
    "linear": Table.linear,
    "scaled-linear": Table.scaled_linear,
    "constant": Table.constant,
}
_WHOLE: dict[str, Callable[[], Schedule]] = {
    "flow": RectifiedFlow,
    "cosine-continuous": Cosine,
    "plain-cosine": lambda: Cosine(s=0.0),
    "sigmoid": Sigmoid,
    "linear-alpha-bar": LinearAlphaBar,
}
_RANGED: dict[str, Callable[[], Schedule]] = {"ve": VE, "log-linear": LogLinear, "learned": Learned.straight}
TABLES = tuple(_TABLES)
"""Processes of 1000 steps, so that diffusers can open the run."""
WHOLE = tuple(_WHOLE)
"""Curves from clean data to pure noise: their log-SNR is infinite at both ends."""
RANGED = tuple(_RANGED)
"""Curves with two finite ends. Networks are told log sigma, which they have everywhere."""
SCHEDULES = (*TABLES, *WHOLE, *RANGED)
PREDICTIONS = ("v", "epsilon", "x0", "flow", "score", "mean", "edm")
_FILE = ".json"


@dataclass(frozen=True)
class Process:
    """A schedule and a prediction by name. Raises SettingsError for those that do not go together.

    schedule: one of `SCHEDULES`, or a .json file with the table's own numbers (`read_table`). shift: the
    log-SNR is lowered by 2 log(shift), the shift of Esser et al. (2024). zero_snr: the table is stretched
    until nothing of the signal is left at its end (Lin et al. 2024). data_std: the deviation of the data that
    EDM's preconditioning is for.
    """

    schedule: str = "cosine"
    prediction: str = "v"
    shift: float | int = 1.0
    zero_snr: bool = False
    data_std: float | int = 0.5

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES and not self.schedule.endswith(_FILE):
            raise SettingsError(
                f"--schedule is one of {', '.join(SCHEDULES)}, or a {_FILE} file of betas or alpha-bars, not "
                f"{self.schedule!r}"
            )
        if self.prediction not in PREDICTIONS:
            raise SettingsError(f"--prediction is one of {', '.join(PREDICTIONS)}, not {self.prediction!r}")
        if not 1e-3 <= self.shift <= 1e3:
            raise SettingsError(f"--shift is a factor between 0.001 and 1000, not {self.shift}")
        self._check_schedule()
        self._check_prediction()

    def _check_schedule(self) -> None:
        if self.shift != 1 and self.schedule == "learned":
            raise SettingsError("--schedule learned finds its own place: leave out --shift")
        if self.zero_snr and not self.is_table:
            raise SettingsError(
                f"--zero-snr mends a table, and {self.schedule} is none: "
                + ("its end is 0 already" if self.schedule in WHOLE else f"choose {', '.join(TABLES)}")
            )
        if self.zero_snr and self.prediction in ("epsilon", "score"):
            raise SettingsError(
                f"--prediction {self.prediction} says nothing of the picture where --zero-snr leaves no "
                "signal: --prediction v, flow or x0"
            )

    def _check_prediction(self) -> None:
        name = self.prediction
        if name == "mean" and not self.is_table:
            raise SettingsError(
                f"--prediction mean is that of a table's next step, and {self.schedule} has no steps: "
                f"--schedule {', '.join(TABLES)} or a file"
            )
        if name == "score" and self.schedule in WHOLE:
            raise SettingsError(
                f"--prediction score is infinite in clean data, where --schedule {self.schedule} begins: "
                f"choose a table ({', '.join(TABLES)}) or {', '.join(RANGED)}"
            )
        if name == "edm" and self.schedule not in RANGED:
            raise SettingsError(
                "--prediction edm tells the network log sigma, which must be finite everywhere: --schedule "
                f"{', '.join(RANGED)}, not {self.schedule} (v is the same network for data of deviation 1)"
            )

    @property
    def is_table(self) -> bool:
        """Whether it has discrete steps."""
        return self.schedule in TABLES or self.schedule not in SCHEDULES

    @property
    def said(self) -> str:
        """The schedule as a run's settings keep it: a file by its name and its numbers, wherever it lies."""
        if self.schedule in SCHEDULES:
            return self.schedule
        return f"{Path(self.schedule).name} ({schedule_hash(read_table(Path(self.schedule)))[:10]})"

    def curve(self) -> Schedule:
        """The schedule itself; a shifted table is a table. Raises SettingsError for a file without one."""
        if self.is_table:
            make = _TABLES.get(self.schedule)
            table = read_table(Path(self.schedule)) if make is None else make()
            table = table.zero_terminal_snr() if self.zero_snr else table
            return table if self.shift == 1 else table.shifted(1 / self.shift)
        curve = (_WHOLE | _RANGED)[self.schedule]()
        return curve if self.shift == 1 else Shifted(curve, 1 / self.shift)

    def kind(self) -> Prediction:
        """What the network predicts."""
        match self.prediction:
            case "mean":
                return Mean(cast(Table, self.curve()))
            case "edm":
                return V(float(self.data_std), -1.0)
            case name:
                plain = {"v": V(), "epsilon": Epsilon(), "x0": Clean(), "flow": Flow(), "score": Score()}
                return plain[name]

    def label(self) -> Label:
        """How the network is told its level: by a table's own steps, by log sigma, or by time."""
        if self.schedule in RANGED:
            return LogSigma()
        curve = self.curve()
        return Steps(curve.steps if isinstance(curve, Table) else 1000)

    def input_std(self) -> float | None:
        """The deviation of the data for which the network's input is brought to unit variance; None leaves x
        as it is, which a variance-preserving curve has brought there."""
        return float(self.data_std) if self.schedule == "ve" or self.prediction == "edm" else None


def read_table(path: Path) -> Table:
    """The table in a JSON file: {"betas": [...]} or {"alpha_bars": [...]}, a number for each step from the
    least noise to the most. Raises SettingsError, ModelFileError."""
    found = read_json(path)
    makers = {"betas": Table.from_betas, "alpha_bars": Table.from_alpha_bars}
    said = cast(dict[str, object], found) if isinstance(found, dict) else {}
    (name, numbers), *more = said.items() or [("", None)]
    if more or name not in makers or not isinstance(numbers, list):
        raise SettingsError(
            f'{path}: no schedule: it must hold {{"betas": [...]}} or {{"alpha_bars": [...]}}, and no more'
        )
    listed = cast(list[object], numbers)
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in listed):
        raise SettingsError(f"{path}: {name} must be a list of numbers")
    try:
        return makers[name]([float(cast(float, n)) for n in listed])
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
