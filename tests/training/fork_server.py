"""Imports everything once; then every line is a run in a child, so that a test can stop many of them.

A line: FOLDER SAVE_EVERY WORKERS STEPS. The answers: "pid N", "code N"; steps go to FOLDER/finished.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from conftest import make_batches, make_data, make_model
from corpora.told import ABC
from sfumato.files import Checkpoints, lock
from sfumato.training.interrupt import listening
from sfumato.training.settings import Habits, TrainSettings
from sfumato.training.trainer import Training
from sfumato.training.validation import HeldOut
from sfumato.training.vault import Disk

SETTINGS = TrainSettings(steps=200, batch=6, accumulate=2, lr=3e-3, warmup=5, validate=25, averages=2)


def child(folder: Path, save_every: int, workers: int, steps: int) -> int:
    with listening() as asked, lock(folder):
        settings = replace(SETTINGS, steps=steps)
        batch = make_data().held_out()
        training = Training(
            make_model(),
            make_batches(),
            settings,
            telling=ABC,
            held=HeldOut(batch.images, ABC.told(batch, 0)),
            vault=Disk(Checkpoints(folder / "checkpoints"), settings, "toy"),
            habits=Habits(workers=workers, save_every=save_every),
            stop=asked,
        )
        with (folder / "finished").open("a") as finished:
            for step in training.steps():
                print(step.step, step.images, repr(step.loss), file=finished, flush=True)
        return asked.exit_code


def serve() -> None:
    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        folder, save_every, workers, steps = line.split()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                Path(folder).mkdir(parents=True, exist_ok=True)
                code = child(Path(folder), int(save_every), int(workers), int(steps))
            finally:
                sys.stderr.flush()
                os._exit(code)
        print("pid", pid, flush=True)
        print("code", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
