"""Kills a process that saves checkpoints, at random instants or at every call of the system in turn.

A fork server: torch is imported once and each victim is a fork. Run as `python storm.py random|each WRITER
...`; prints JSON. The writers "plain" and "delete-first" are the field's habits and exist to show that the
test bites.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sfumato.errors import RunError
from sfumato.files import Checkpoints

CALLS = ("listdir", "scandir", "open", "write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir")
GROUPS = ("model", "average", "optimizer")


class Writer(Protocol):
    def start(self) -> int | None: ...
    def save(self, step: int, tensors: dict[str, dict[str, Tensor]]) -> None: ...


class Ours:
    def __init__(self, folder: Path) -> None:
        self.checkpoints = Checkpoints(folder / "checkpoints", keep=1)

    def start(self) -> int | None:
        self.checkpoints.clean()
        latest = self.checkpoints.latest()
        if latest is None:
            return None
        tensors, state = self.checkpoints.load(latest)
        assert state == {"step": latest.step}
        return _whole(tensors)

    def save(self, step: int, tensors: dict[str, dict[str, Tensor]]) -> None:
        self.checkpoints.save(step, tensors, {"step": step})


class Plain:
    """torch.save over the only file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "last.pt"

    def start(self) -> int | None:
        return _whole(torch.load(self.path, weights_only=True)) if self.path.exists() else None

    def save(self, step: int, tensors: dict[str, dict[str, Tensor]]) -> None:
        torch.save(tensors, self.path)


class DeleteFirst:
    """The old folder goes before the new one is written: accelerate's save_state, diffusers' examples."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self) -> int | None:
        found = sorted(self.folder.glob("checkpoint-*"), key=lambda p: int(p.name[11:]))
        if not found:
            return None
        return _whole({name: load_file(found[-1] / f"{name}.safetensors") for name in GROUPS})

    def save(self, step: int, tensors: dict[str, dict[str, Tensor]]) -> None:
        for old in self.folder.glob("checkpoint-*"):
            shutil.rmtree(old)
        new = self.folder / f"checkpoint-{step}"
        os.mkdir(new)
        for name, group in tensors.items():
            save_file(group, new / f"{name}.safetensors")


WRITERS: dict[str, Callable[[Path], Writer]] = {"ours": Ours, "plain": Plain, "delete-first": DeleteFirst}


def _whole(tensors: dict[str, dict[str, Tensor]]) -> int:
    """The step that was saved, if every value of every tensor is of this one step."""
    if tensors.keys() != set(GROUPS):
        raise RunError(f"groups missing: {sorted(tensors)}")
    values = {float(v) for group in tensors.values() for t in group.values() for v in (t.min(), t.max())}
    if len(values) != 1:
        raise RunError(f"a mixture of steps: {values}")
    return int(values.pop())


def state_at(step: int, numbers: int) -> dict[str, dict[str, Tensor]]:
    return {name: {f"w{i}": torch.full((numbers // 4,), float(step)) for i in range(4)} for name in GROUPS}


def _train(make: Callable[[Path], Writer], folder: Path, numbers: int, say: int) -> None:
    writer = make(folder)
    step = writer.start() or 0
    left = [p.name for p in folder.rglob("*.tmp-*")]
    os.write(say, f"start {step} {len(left)}\n".encode())
    while True:
        step += 1
        writer.save(step, state_at(step, numbers))
        os.write(say, f"saved {step}\n".encode())


def storm(
    make: Callable[[Path], Writer], kills: int, seed: int, numbers: int, longest: float
) -> dict[str, object]:
    """SIGKILL at uniform random instants; each next victim goes on from what it finds."""
    chance = random.Random(seed)
    lost: list[str] = []
    saves, most_lost, left = 0, 0, 0
    folder = Path(tempfile.mkdtemp(prefix="storm-"))
    try:
        saved = 0
        for kill in range(kills):
            hear, say = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    _train(make, folder, numbers, say)
                finally:
                    os._exit(3)
            os.close(say)
            text = b""
            until = time.monotonic() + 60
            while b"saved" not in text and time.monotonic() < until:  # the clock starts at the first save
                ready = select.select([hear], [], [], 0.5)[0]
                part = os.read(hear, 65536) if ready else b" "
                if not part:
                    break
                text += part.strip(b" ")
            time.sleep(chance.uniform(0, longest))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            while part := os.read(hear, 65536):
                text += part
            os.close(hear)
            lines = [line.split() for line in text.decode().splitlines()]
            left += sum(int(line[2]) for line in lines if line[0] == "start")
            done = [int(line[1]) for line in lines if line[0] == "saved"]
            saves += len(done)
            saved = max([saved, *done])
            try:
                found = make(folder).start()
            except Exception as error:  # whatever a writer's reader raises is a lost checkpoint
                found = None
                reason = f"kill {kill}: {type(error).__name__}: {error}"[:200]
            else:
                reason = f"kill {kill}: nothing there"
            if found is None or found < saved:
                lost.append(reason if found is None else f"kill {kill}: step {found} after {saved} was saved")
                shutil.rmtree(folder)
                folder.mkdir()
                saved = 0
            else:
                most_lost = max(most_lost, saved + 1 - found)  # the step in progress may be lost
                saved = found
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"kills": kills, "saves": saves, "lost": lost, "most_steps_lost": most_lost, "left_over": left}


def _armed(at: int) -> None:
    """From now on the at-th call of the operating system kills this process before it happens."""
    count = 0

    def wrap(call: Callable[..., object]) -> Callable[..., object]:
        def called(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return called

    for name in CALLS:
        setattr(os, name, wrap(getattr(os, name)))


def each(make: Callable[[Path], Writer], numbers: int) -> dict[str, object]:
    """SIGKILL before the k-th call of the second save, for every k until a save survives."""
    lost: list[int] = []
    left = 0
    for k in range(1, 1000):
        folder = Path(tempfile.mkdtemp(prefix="each-"))
        try:
            make(folder).save(1, state_at(1, numbers))
            pid = os.fork()
            if pid == 0:
                try:
                    _armed(k)
                    make(folder).save(2, state_at(2, numbers))
                    os._exit(0)
                finally:
                    os._exit(3)
            status = os.waitpid(pid, 0)[1]
            if os.WIFEXITED(status):
                if os.WEXITSTATUS(status) != 0:
                    raise RuntimeError("the victim failed by itself")
                return {"calls": k - 1, "lost": lost, "left_over": left}
            try:
                found = make(folder).start()
            except Exception:  # whatever a writer's reader raises is a lost checkpoint
                found = None
            if found not in (1, 2):
                lost.append(k)
            left += len(list(folder.rglob("*.tmp-*")))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    raise RuntimeError("no end of calls")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("form", choices=["random", "each"])
    parser.add_argument("writer", choices=list(WRITERS))
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--numbers", type=int, default=1_000_000, help="floats in each of the three groups")
    parser.add_argument("--longest", type=float, default=0.15, help="seconds after the first save")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    make = WRITERS[asked.writer]
    if asked.form == "random":
        result = storm(make, asked.kills, asked.seed, asked.numbers, asked.longest)
    else:
        result = each(make, asked.numbers)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
