"""The checkpoints of a run: folders that survive kill -9, a full disk and flipped bits.

Each is a folder `step-00001200` with one safetensors file per group of tensors, `state.json` and a manifest.
A new one is complete and durable before an older one is deleted. (The usual order, delete and then write,
lost every checkpoint in 21 of 60 kills of accelerate; plain torch.save over one file in 37 of 60.)
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from sfumato.errors import ModelFileError, RunError, SfumatoError
from sfumato.files.atomic import (
    clean_temporaries,
    free_space,
    size_text,
    sync_folder,
    temporary_name,
    told,
    write_atomic,
    write_synced,
)
from sfumato.files.json_file import json_bytes, parse_json, read_json
from sfumato.files.manifest import Listed, build, check_listed, read_manifest, verify_folder
from sfumato.files.sniff import open_regular, read_all
from sfumato.files.tensors import read_hashed, tensor_chunks

_NAME = re.compile(r"step-(\d{8,})(?:-(\d+))?")
_STATE = "state.json"
_BEST = "best.json"
_log = logging.getLogger(__name__)


def _read_state(path: Path, sha256: str) -> object:
    with open_regular(path) as (handle, size):
        data = read_all(handle, path, size)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise RunError(f"{path}: its sha256 is not that in manifest.json: use another copy")
    try:
        return parse_json(data, allow_infinity=True)
    except ValueError as error:
        raise RunError(f"{path}: not usable as JSON, it holds {error}: use another copy") from None


@dataclass(frozen=True)
class Checkpoint:
    """One finished checkpoint, made after `step` steps; `attempt` counts rewritings of the same step."""

    step: int
    path: Path
    attempt: int = 0


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in `folder`; the newest `keep` are kept, and the one that is marked best.

    Only the process that holds the run's lock may save, mark or clean; anyone may read.
    `skipped` lists (folder, reason) of those that `latest` passed over.
    """

    folder: Path
    keep: int = 2
    skipped: list[tuple[Path, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise RunError(f"{self.folder}: keep is {self.keep}, at least 1 checkpoint has to be kept")

    def all(self) -> list[Checkpoint]:
        """Every checkpoint that has a name, oldest first by step and never by date; none is opened."""
        found: list[Checkpoint] = []
        with told("listing", self.folder):
            if not self.folder.is_dir():
                return []
            for path in self.folder.iterdir():
                match = _NAME.fullmatch(path.name)
                if match:
                    found.append(Checkpoint(int(match[1]), path, int(match[2] or 0)))
        return sorted(found, key=lambda c: (c.step, c.attempt))

    def clean(self) -> list[str]:
        """Removes what a killed process left unfinished, at the start of a run; gives the names."""
        return clean_temporaries(self.folder)

    def save(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: object) -> Checkpoint:
        """Writes `tensors` (file stem -> name -> tensor) and `state` (JSON); then deletes what is not kept.

        Later steps are then deleted too: the run went back, and goes on from an earlier one.
        Raises RunError if there is no room ("needs X, has Y free") or the disk refuses; the older checkpoints
        are then still there and a later save may succeed. Raises ValueError for a state that JSON cannot hold
        (NaN; infinities are allowed).
        """
        text = json_bytes(state, allow_infinity=True)
        parse_json(text, allow_infinity=True)  # what the reader would refuse is not written
        with told("writing", self.folder):
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True)
                sync_folder(self.folder.parent)
        self.clean()
        need = len(text) + sum(
            t.numel() * t.element_size() + 512 for group in tensors.values() for t in group.values()
        )
        free = free_space(self.folder)
        if free < need + (1 << 16) * (len(tensors) + 2):
            raise RunError(
                f"the checkpoint of step {step} needs {size_text(need)}, "
                f"has {size_text(free)} free at {self.folder}: make room; older checkpoints are kept"
            )

        def fill(folder: Path) -> Listed:
            listed: Listed = {_STATE: write_synced(folder / _STATE, [text])}
            for stem, group in tensors.items():
                name = f"{stem}.safetensors"
                listed[name] = write_synced(folder / name, tensor_chunks(folder / name, group, {}))
            return listed

        new = self._named(step)
        build(new.path, fill)
        self._retain(new)
        return new

    def _named(self, step: int) -> Checkpoint:
        attempts = [c.attempt for c in self.all() if c.step == step]
        attempt = max(attempts) + 1 if attempts else 0
        name = f"step-{step:08d}" + (f"-{attempt}" if attempt else "")
        return Checkpoint(step, self.folder / name, attempt)

    def _retain(self, new: Checkpoint) -> None:
        try:
            kept = {new.path.name, *self._best_name()}
            steps: set[int] = {new.step}
            for checkpoint in reversed(self.all()):
                past = checkpoint.step < new.step and checkpoint.step not in steps
                if past and len(steps) < self.keep:
                    steps.add(checkpoint.step)
                    kept.add(checkpoint.path.name)
            for checkpoint in self.all():
                if checkpoint.path.name not in kept:
                    self._remove(checkpoint.path)
        except SfumatoError as error:
            _log.warning("older checkpoints were left in place (%s); step %d is saved", error, new.step)

    def _remove(self, path: Path) -> None:
        with told("deleting", path):
            gone = temporary_name(path)
            os.rename(path, gone)  # a half-deleted folder must not have a checkpoint's name
            shutil.rmtree(gone)

    def latest(self) -> Checkpoint | None:
        """The newest valid checkpoint by step, None if there has never been one.

        Broken ones are passed over, logged and listed in `skipped`. Raises RunError if there are checkpoints
        and none is valid: a run is never silently begun anew.
        """
        self.skipped.clear()
        for checkpoint in reversed(self.all()):
            try:
                verify_folder(checkpoint.path)
                return checkpoint
            except RunError as error:
                self.skipped.append((checkpoint.path, str(error)))
                _log.warning("checkpoint of step %d is passed over: %s", checkpoint.step, error)
        if self.skipped:
            raise RunError(
                f"{self.folder}: none of {len(self.skipped)} checkpoints is valid "
                f"(the newest: {self.skipped[0][1]}); "
                "restore one, or remove the folder to begin anew"
            )
        return None

    def load(self, checkpoint: Checkpoint) -> tuple[dict[str, dict[str, Tensor]], object]:
        """The tensors (file stem -> name -> tensor) and the state; the bytes loaded are the bytes checked.

        Raises RunError naming the file and what is wrong with it.
        """
        with told("reading", checkpoint.path):
            listed = read_manifest(checkpoint.path)
            check_listed(checkpoint.path, listed)
            try:
                state = _read_state(checkpoint.path / _STATE, listed.get(_STATE, ("", 0))[0])
                tensors = {
                    name.removesuffix(".safetensors"): read_hashed(checkpoint.path / name, digest)[0]
                    for name, (digest, _) in sorted(listed.items())
                    if name.endswith(".safetensors")
                }
            except ModelFileError as error:
                raise RunError(str(error)) from None
        return tensors, state

    def mark_best(self, step: int) -> None:
        """Keeps the checkpoint of this step, whatever comes, until another is marked."""
        found = [c for c in self.all() if c.step == step]
        if not found:
            raise RunError(f"{self.folder}: no checkpoint of step {step} that could be marked best")
        write_atomic(self.folder / _BEST, [json_bytes({"folder": found[-1].path.name, "step": step})])

    def best(self) -> Checkpoint | None:
        """The checkpoint that is marked best, None if none is. Raises RunError for a damaged mark."""
        try:
            names = self._best_name()
        except ModelFileError as error:
            raise RunError(str(error)) from None
        return next((c for c in self.all() if c.path.name in names), None)

    def _best_name(self) -> list[str]:
        place = self.folder / _BEST
        with told("reading", place):
            if not place.is_file():
                return []
        value = read_json(place)
        name = value.get("folder") if isinstance(value, dict) else None
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ModelFileError(f"{place}: names no checkpoint: remove this file and mark the best again")
        return [name]
