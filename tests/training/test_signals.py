"""A9, and A1 with the whole state: runs stopped or killed at random instants end as if they never were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfumato.files import Checkpoints
from sfumato.noise import uniform
from sfumato.training.interrupt import Interrupt, listening

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked from a warm process")
STEPS = 120


class Server:
    """One warm process that forks runs."""

    def __init__(self) -> None:
        here = Path(__file__).parent / "fork_server.py"
        self.process = subprocess.Popen(
            [sys.executable, str(here)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self.read() == ["ready"]

    def read(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def begin(self, folder: Path, save_every: int = 10, workers: int = 0) -> int:
        assert self.process.stdin is not None
        print(folder, save_every, workers, STEPS, file=self.process.stdin, flush=True)
        answer = self.read()
        assert answer[0] == "pid"
        return int(answer[1])

    def code(self) -> int:
        answer = self.read()
        assert answer[0] == "code"
        return int(answer[1])

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """A run that nobody stopped: its last checkpoint's files and how long it took."""
    folder = tmp_path_factory.mktemp("whole")
    began = time.monotonic()
    server.begin(folder)
    assert server.code() == 0
    return final(folder), time.monotonic() - began


def final(folder: Path) -> dict[str, str]:
    """The hashes of the tensors of the last checkpoint."""
    last = Checkpoints(folder / "checkpoints").latest()
    assert last is not None
    assert last.step == STEPS
    tensors, _ = Checkpoints(folder / "checkpoints").load(last)
    return {
        f"{group}/{name}": str(hash(t.numpy().tobytes()))
        for group in tensors
        for name, t in tensors[group].items()
    }


def finished(folder: Path) -> list[list[str]]:
    path = folder / "finished"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow
def test_sigterm_at_ten_random_instants(
    server: Server, whole: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    """Out within 10 s with its code, saved at the last finished step; in the end every bit is alike."""
    expected, took = whole
    stopped = 0
    for wait in (uniform(10, "instants") * took / 4).tolist():
        pid = server.begin(tmp_path, save_every=10 + stopped, workers=stopped % 3)
        time.sleep(wait)
        os.kill(pid, signal.SIGTERM if stopped % 2 else signal.SIGINT)
        if stopped % 3 == 0:
            os.kill(pid, signal.SIGTERM if stopped % 2 else signal.SIGINT)  # twice in a row
        asked = time.monotonic()
        code = server.code()
        assert time.monotonic() - asked < 10
        if code == 0:
            break  # it was complete already
        if code in (-signal.SIGTERM, -signal.SIGINT):
            continue  # before the handlers were there: nothing had begun
        assert code == (143 if stopped % 2 else 130)
        latest = Checkpoints(tmp_path / "checkpoints").latest()
        assert latest is not None
        done = finished(tmp_path)
        assert latest.step == (int(done[-1][0]) if done else 0)
        stopped += 1
    assert stopped >= 5
    server.begin(tmp_path)
    assert server.code() == 0
    steps = [int(line[0]) for line in finished(tmp_path)]
    assert steps == list(range(1, STEPS + 1))  # nothing was done twice, nothing left out
    assert final(tmp_path) == expected


@pytest.mark.slow
def test_kill_9_loses_at_most_one_interval(
    server: Server, whole: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    expected, took = whole
    for wait in (uniform(5, "kills") * took / 2).tolist():
        before = len(finished(tmp_path))
        pid = server.begin(tmp_path, save_every=5)
        time.sleep(wait)
        os.kill(pid, signal.SIGKILL)
        code = server.code()
        if code == 0:
            break
        assert code == -signal.SIGKILL
        latest = Checkpoints(tmp_path / "checkpoints").latest()
        done = finished(tmp_path)
        if len(done) > before and latest is not None:
            assert 0 <= int(done[-1][0]) - latest.step <= 5 or latest.step == int(done[-1][0]) + 1
    server.begin(tmp_path)
    assert server.code() == 0
    losses: dict[str, set[str]] = {}
    for step, _, loss in finished(tmp_path):
        losses.setdefault(step, set()).add(loss)
    assert all(len(said) == 1 for said in losses.values())  # what was done again was done alike
    assert final(tmp_path) == expected
    assert not list((tmp_path / "checkpoints").glob("*.tmp-*"))


@pytest.mark.slow
def test_a_second_trainer_is_refused(server: Server, tmp_path: Path) -> None:
    other = Server()
    try:
        server.begin(tmp_path)
        while not (tmp_path / "lock.json").exists():
            time.sleep(0.01)
        other.begin(tmp_path)
        assert other.code() == 1
        assert server.code() == 0
    finally:
        other.close()


def test_exit_codes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with listening() as asked:
        assert not asked()
        assert asked.exit_code == 0
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert asked()
        assert asked.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert Interrupt().exit_code == 0
