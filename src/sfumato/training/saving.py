"""When a run is saved: often enough to lose little, seldom enough to cost little."""

from __future__ import annotations

import math
import time

from sfumato.errors import RunError
from sfumato.training.settings import Habits, TrainSettings
from sfumato.training.state import State
from sfumato.training.vault import Memory, Vault

_MEMORY_EVERY, _SAVE_SHARE = 100, 0.015
_RETRY = 60
"""Seconds after a failure in which nothing is tried that can wait."""


class Saving:
    """Keeps states in a vault, by the habits of the run."""

    def __init__(self, state: State, vault: Vault, settings: TrainSettings, habits: Habits) -> None:
        self.state, self.vault, self.settings, self.habits = state, vault, settings, habits
        self._at, self._cost, self._again = time.monotonic(), 0.0, -math.inf
        self._position = state.counters.position

    @property
    def current(self) -> bool:
        """Whether the last whole step is saved."""
        return self.state.counters.position == self._position

    def save(self) -> None:
        """Keeps the state of the last whole step."""
        began = time.monotonic()
        self.vault.save(self.state)
        self._position, self._at = self.state.counters.position, time.monotonic()
        self._cost = self._at - began

    def after(self, skipped: bool, share: float, last: bool, best: bool) -> tuple[bool, tuple[str, ...]]:
        """Keeps averages and the state after a step, where it is time for it: whether it was saved, and
        sentences for people. Raises RunError if the `last` state of a run cannot be."""
        c = self.state.counters
        kept, saved = self.settings.snapshots(share), last or best or (not skipped and self._due())
        failed: list[RunError] = []  # a full disk may have room again: training need not end for it
        if kept > c.snapshots and not skipped and (last or time.monotonic() > self._again):
            try:  # before the state, which says how many were kept
                self.vault.keep_averages(self.state)
                c.snapshots = kept
            except RunError as error:
                failed.append(error)
        if saved:
            try:
                self.save()
                if best:
                    self.vault.mark_best(c.step)
            except RunError as error:
                failed.append(error)
                saved = False
        if failed and last:
            raise failed[-1]
        if failed:
            self._again = time.monotonic() + _RETRY
        return saved, tuple(f"not saved: {error}" for error in failed)

    def _due(self) -> bool:
        step = self.state.counters.step
        if isinstance(self.vault, Memory):
            return step % _MEMORY_EVERY == 0
        if self.habits.save_every is not None:
            return step % self.habits.save_every == 0
        wait = max(60 * self.habits.save_minutes, self._cost / _SAVE_SHARE)
        return time.monotonic() > max(self._at + wait, self._again)
