"""Where a run's past is kept: checkpoint folders, or memory when the run has no folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from torch import Tensor

from sfumato.errors import ModelFileError, RunError
from sfumato.files import Checkpoints, read_tensors, write_tensors
from sfumato.training.average import Snapshot
from sfumato.training.settings import TrainSettings
from sfumato.training.state import Counters, State

AVERAGES = "averages"


@runtime_checkable
class Vault(Protocol):
    """Keeps a state, marks the best one, brings the last one back."""

    def save(self, state: State) -> None: ...

    def mark_best(self, step: int) -> None: ...

    def keep_averages(self, state: State) -> None:
        """Keeps the two power averages of now, from which others are rebuilt."""
        ...

    def restore(self, state: State) -> bool:
        """Brings back the last state; False if there is none yet."""
        ...


class Memory:
    """The last state, copied; enough to roll back."""

    def __init__(self) -> None:
        self._kept: tuple[dict[str, dict[str, Tensor]], dict[str, object]] | None = None
        self.snapshots: list[Snapshot] = []

    def save(self, state: State) -> None:
        copies = {
            group: {name: t.detach().clone() for name, t in tensors.items()}
            for group, tensors in state.tensors().items()
        }
        self._kept = copies, state.counters.to_json()

    def mark_best(self, step: int) -> None:
        return None

    def keep_averages(self, state: State) -> None:
        for width, vector in state.powers.items():
            named = {name: t.detach().cpu().clone() for name, t in state.weights.named(vector).items()}
            self.snapshots.append(Snapshot(state.counters.step, width, named))

    def restore(self, state: State) -> bool:
        if self._kept is None:
            return False
        state.restore(self._kept[0], Counters.from_json(self._kept[1]))
        return True


class Disk:
    """Checkpoint folders. `settings` and `data` (its fingerprint) go with each and must be the same on
    return."""

    def __init__(
        self, checkpoints: Checkpoints, settings: TrainSettings, data: str, writes: bool = True
    ) -> None:
        self.checkpoints = checkpoints
        self.settings = settings
        self.data = data
        self.writes = writes

    def save(self, state: State) -> None:
        if not self.writes:
            return
        said = {
            "counters": state.counters.to_json(),
            "settings": self.settings.to_json(),
            "data": self.data,
            "format": 1,
        }
        self.checkpoints.save(state.counters.step, state.tensors(), said)

    def mark_best(self, step: int) -> None:
        if self.writes:
            self.checkpoints.mark_best(step)

    def keep_averages(self, state: State) -> None:
        """In 16 bits (about 1 part in 2000 of a weight, as in Karras et al. 2024): half the room."""
        if not self.writes:
            return
        folder = self.checkpoints.folder.parent / AVERAGES
        folder.mkdir(parents=True, exist_ok=True)
        for width, vector in state.powers.items():
            named = {name: t.detach().half() for name, t in state.weights.named(vector).items()}
            step = state.counters.step
            write_tensors(
                folder / f"step-{step:08d}-{width:g}.safetensors",
                named,
                {"step": str(step), "sigma_rel": f"{width:g}"},
            )

    def restore(self, state: State) -> bool:
        """Raises RunError naming what differs when the run was started with other settings or data."""
        latest = self.checkpoints.latest()
        if latest is None:
            return False
        tensors, said = self.checkpoints.load(latest)
        if not isinstance(said, Mapping) or said.get("format") != 1:
            raise RunError(
                f"{latest.path}: made by another version of sfumato, which this one cannot continue"
            )
        known = cast(Mapping[str, object], said)
        before = TrainSettings.from_json(cast(Mapping[str, object], known["settings"]))
        differs = before.differences(self.settings)
        if known["data"] != self.data:
            differs.append("the data")
        if differs:
            raise RunError(
                f"{self.checkpoints.folder.parent}: this run was begun with other settings: "
                f"{', '.join(differs)}; give the same ones to continue, or another --out to begin anew"
            )
        state.restore(tensors, Counters.from_json(known["counters"]))
        return True


def read_averages(run: Path) -> list[Snapshot]:
    """The snapshots of the power averages that a run kept, oldest first. Raises ModelFileError for damaged
    ones."""
    found: list[Snapshot] = []
    for path in sorted((run / AVERAGES).glob("step-*.safetensors")):
        tensors, said = read_tensors(path)
        try:
            found.append(Snapshot(int(said["step"]), float(said["sigma_rel"]), tensors))
        except (KeyError, ValueError):
            raise ModelFileError(
                f"{path}: says no step and width, it is no snapshot of this program"
            ) from None
    return found
