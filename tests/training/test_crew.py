"""Several processes take the steps that one would take."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from crew_member import judge

from corpora.told import ABC
from sfumato.data.batches import Batches
from sfumato.errors import SettingsError
from sfumato.files import Checkpoints, read_tensors
from sfumato.model import Model
from sfumato.training.crew import Crew, joined
from sfumato.training.objectives import Denoising
from sfumato.training.settings import TrainSettings
from sfumato.training.trainer import Training

SETTINGS = TrainSettings(batch=9, lr=2e-3, warmup=2, steps=12, averages=0)


def run_two(
    folder: Path,
    steps: int = 12,
    accumulate: int = 1,
    seed: int = 0,
    beside: bool = False,
    judged: bool = False,
) -> list[tuple[int, str]]:
    """Two processes on the loopback; exit code and standard error of each."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    member = Path(__file__).parent / "crew_member.py"
    processes: list[subprocess.Popen[str]] = []
    for rank in range(2):
        env = os.environ | {
            "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "USE_LIBUV": "0",
        }  # fmt: skip
        said = [str(steps), str(accumulate), str(seed), str(int(beside)), str(int(judged))]
        arguments = [sys.executable, str(member), str(folder), *said]
        processes.append(subprocess.Popen(arguments, env=env, stderr=subprocess.PIPE, text=True))
    ended = [(p.communicate(timeout=120)[1], p.returncode) for p in processes]
    return [(code, errors) for errors, code in ended]


@pytest.mark.slow
def test_two_processes_agree_with_one(model: Callable[..., Model], batches: Batches, tmp_path: Path) -> None:
    """An odd batch, cut 4 + 5, and its parts again: losses to 1e-6, weights to the order of summation."""
    alone = Training(model(), batches, SETTINGS, telling=ABC)
    steps = list(alone.steps())
    for accumulate in (1, 2):
        folder = tmp_path / str(accumulate)
        folder.mkdir()
        for code, errors in run_two(folder, accumulate=accumulate):
            assert code == 0, errors
        said = json.loads((folder / "said.json").read_text())
        assert said["losses"] == pytest.approx([s.loss for s in steps], rel=1e-6)
        assert said["norms"] == pytest.approx([s.grad_norm for s in steps], rel=1e-5)
        weights = read_tensors(folder / "weights.safetensors")[0]
        for name, p in alone.state.weights.parameters.items():
            assert float((weights[name] - p.detach()).norm() / p.detach().norm().clamp(min=1e-3)) < 1e-5, name
        last = Checkpoints(folder / "checkpoints").latest()
        assert last is not None
        assert last.step == 12


@pytest.mark.slow
def test_what_learns_beside_is_the_same_on_two_processes(
    model: Callable[..., Model], batches: Batches, tmp_path: Path
) -> None:
    """150 steps: the history of losses decides the levels from about the 120th on."""
    settings = replace(SETTINGS, steps=150, levels="importance")
    alone = Training(model(), batches, settings, telling=ABC, objective=Denoising() + 0.3 * judge())
    losses = [s.loss for s in alone.steps()]
    for code, errors in run_two(tmp_path, steps=150, beside=True):
        assert code == 0, errors
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["losses"] == pytest.approx(losses, rel=1e-3)
    last = Checkpoints(tmp_path / "checkpoints").latest()
    assert last is not None
    kept = Checkpoints(tmp_path / "checkpoints").load(last)[0]
    mine = alone.state.tensors()
    assert torch.equal(kept["levels"]["count"], mine["levels"]["count"])
    torch.testing.assert_close(kept["levels"]["kept"], mine["levels"]["kept"], rtol=1e-2, atol=1e-4)
    for name, value in mine["discriminator"].items():
        if name.startswith("weights/"):
            torch.testing.assert_close(kept["discriminator"][name], value, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_processes_that_begin_differently_are_refused(tmp_path: Path) -> None:
    for code, errors in run_two(tmp_path, steps=2, seed=1):
        assert code == 1, errors
        assert "TrainingError: the processes begin with different weights" in errors


def test_shares_cover_a_batch() -> None:
    positions = range(100, 117)
    shares = [p for rank in range(5) for p in Crew(rank, 5).share(positions)]
    assert shares == list(positions)


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as crew:
        assert (crew.rank, crew.size, crew.leads) == (0, 1, True)
        vector = torch.ones(3)
        crew.sum([vector])
        assert vector.tolist() == [1, 1, 1]


def test_more_processes_than_pictures_are_refused(model: Callable[..., Model], batches: Batches) -> None:
    with pytest.raises(SettingsError, match="batch of 2 is too small for 3 processes"):
        Training(model(), batches, replace(SETTINGS, batch=2), crew=Crew(0, 3))
