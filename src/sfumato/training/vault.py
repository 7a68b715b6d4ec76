"""Where a run's past is kept: checkpoint folders, or memory when the run has no folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast, runtime_checkable

from torch import Tensor

from sfumato.errors import RunError
from sfumato.files import Checkpoint, Checkpoints
from sfumato.training.average import Snapshot
from sfumato.training.settings import TrainSettings
from sfumato.training.snapshots import write_snapshot
from sfumato.training.state import Counters, State


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
        if not self.writes:
            return
        for width, vector in state.powers.items():
            kept = Snapshot(state.counters.step, width, state.weights.named(vector))
            write_snapshot(self.checkpoints.folder.parent, kept)

    def restore(self, state: State) -> bool:
        """Raises RunError naming what differs when the run was started with other settings or data."""
        latest = self.checkpoints.latest()
        if latest is None:
            return False
        tensors, known = self._opened(latest)
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

    def load(self, checkpoint: Checkpoint) -> tuple[dict[str, dict[str, Tensor]], Counters]:
        """A checkpoint's tensors by group, and how far it had come. Raises RunError."""
        tensors, known = self._opened(checkpoint)
        return tensors, Counters.from_json(known["counters"])

    def _opened(self, checkpoint: Checkpoint) -> tuple[dict[str, dict[str, Tensor]], Mapping[str, object]]:
        tensors, said = self.checkpoints.load(checkpoint)
        if not isinstance(said, Mapping) or said.get("format") != 1:
            raise RunError(
                f"{checkpoint.path}: made by another version of sfumato, which this one cannot continue"
            )
        return tensors, cast(Mapping[str, object], said)
