"""What a run is at one moment: weights, averages, optimiser and a few counters. All is saved."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sfumato.errors import RunError
from sfumato.training.average import Ema, FlatWeights, PowerAverage
from sfumato.training.companion import Companion
from sfumato.training.optimisers import restore_state, state_tensors
from sfumato.training.validation import Trend

WIDTHS = (0.05, 0.10)
"""The relative widths of the two power averages (Karras et al. 2024, section 3.1)."""


@dataclass
class Counters:
    """step: updates done. position: samples of the stream used; they go on over skipped steps and roll-backs.

    seconds: time spent training, over all sittings. skipped: steps left out because they were not finite,
    in_a_row of them just now. rolled_to: the step of the last roll-back, -1 without. snapshots: how many are
    kept. trend: of the held-out loss. looked: the position at the last look of the judge, terms: what its
    figures depend on, judged: how that went by which the best is chosen. unseen: the figures of a step whose
    look was cut short; it is not complete.
    """

    step: int = 0
    position: int = 0
    seconds: float = 0.0
    skipped: int = 0
    in_a_row: int = 0
    rolled_to: int = -1
    snapshots: int = 0
    trend: Trend = field(default_factory=Trend)
    looked: int = 0
    terms: str = ""
    judged: Trend = field(default_factory=Trend)
    unseen: dict[str, float | int] | None = None

    def to_json(self) -> dict[str, object]:
        return {**vars(self), "trend": dict(vars(self.trend)), "judged": dict(vars(self.judged))}

    @staticmethod
    def from_json(value: object) -> Counters:
        """Raises RunError if this is not what `to_json` wrote."""
        try:
            given = dict(cast(Mapping[str, object], value))
            trend, judged = (Trend(**cast(dict, given.pop(name, {}))) for name in ("trend", "judged"))
            return Counters(**cast(dict, given), trend=trend, judged=judged)
        except (TypeError, ValueError, KeyError) as error:
            raise RunError(f"the checkpoint's counters are not readable ({error})") from None


class State:
    """The moving parts of a run, on one device."""

    def __init__(
        self,
        module: nn.Module,
        optimiser: Optimizer,
        weights: FlatWeights,
        ema: Ema,
        companions: Sequence[Companion] = (),
    ) -> None:
        self.companions = {companion.name: companion for companion in companions}
        self.module = module
        self.weights = weights
        self.optimiser = optimiser
        self.ema = ema
        self.average = weights.vector.clone()
        self.powers = {width: weights.vector.clone() for width in WIDTHS}
        self._power = {width: PowerAverage(width) for width in WIDTHS}
        self.counters = Counters()

    def follow(self) -> None:
        """Takes the new weights into every average; after the step is counted."""
        step = self.counters.step
        with torch.no_grad():
            self.ema.follow(self.average, self.weights.vector, step - 1)
            for width, power in self._power.items():
                power.follow(self.powers[width], self.weights.vector, step)

    @contextmanager
    def averaged(self) -> Generator[None, None, None]:
        """Inside the block the model has its averaged weights and is in evaluation mode: for looks and
        samples."""
        was = self.module.training
        self.module.eval()
        try:
            with self.weights.swapped(self.average):
                yield
        finally:
            self.module.train(was)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything by name, as views: weights, ema, power-0.05, power-0.1, optimiser, buffers, and each
        companion's."""
        out = {"weights": self.weights.named(self.weights.vector), "ema": self.weights.named(self.average)}
        for width, vector in self.powers.items():
            out[f"power-{width:g}"] = self.weights.named(vector)
        names = {p: name for name, p in self.weights.parameters.items()}
        out["optimiser"] = state_tensors(self.optimiser, names)
        out["buffers"] = self._buffers()
        out |= {name: companion.tensors() for name, companion in self.companions.items()}
        return {group: tensors for group, tensors in out.items() if tensors}

    def _buffers(self) -> dict[str, Tensor]:
        kept = self.module.state_dict()
        return {name: kept[name] for name, _ in self.module.named_buffers() if name in kept}

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]], counters: Counters) -> None:
        """Goes back to what `tensors` and `counters` say. Raises RunError when a group is missing."""
        groups = {"weights": self.weights.vector, "ema": self.average}
        groups |= {f"power-{width:g}": vector for width, vector in self.powers.items()}
        for group, vector in groups.items():
            if group not in tensors:
                raise RunError(f"the checkpoint lacks its {group}: it was made by another version")
            with torch.no_grad():
                self.weights.put(vector, tensors[group])
        names = {p: name for name, p in self.weights.parameters.items()}
        restore_state(self.optimiser, names, dict(tensors.get("optimiser", {})))
        for name, value in self._buffers().items():
            value.copy_(tensors.get("buffers", {})[name])
        for name, companion in self.companions.items():
            if name not in tensors:
                raise RunError(f"the checkpoint lacks its {name}: it was made by another version")
            companion.restore(tensors[name])
        self.counters = counters
