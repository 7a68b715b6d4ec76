"""Row A11 of the reliability plan: one process in a run folder; the lock of a dead one is taken over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sfumato.errors import RunError
from sfumato.files import lock

HOLD = """
import sys, time
from pathlib import Path
from sfumato.files.lock import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_A11_a_second_process_is_refused_by_name_and_a_dead_one_gives_way(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(RunError, match=f"in use by process {holder.pid} on ") as caught, lock(tmp_path):
        pass
    assert str(tmp_path) in str(caught.value)
    holder.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead and not yet buried
    with lock(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "lock.json").exists()


def test_A11_a_number_that_belongs_to_another_process_now_holds_nothing(tmp_path: Path) -> None:
    with lock(tmp_path):
        mine = json.loads((tmp_path / "lock.json").read_text())
    for stale in (
        {**mine, "started": "1"},
        {**mine, "boot": "before"},
        {**mine, "pid": 2**22 + 1},
        {**mine, "pid": -1},
    ):
        (tmp_path / "lock.json").write_text(json.dumps(stale))
        with lock(tmp_path):
            pass


def test_A11_another_host_is_believed(tmp_path: Path) -> None:
    with lock(tmp_path):
        mine = json.loads((tmp_path / "lock.json").read_text())
    (tmp_path / "lock.json").write_text(json.dumps({**mine, "host": "elsewhere", "pid": 1}))
    with pytest.raises(RunError, match=r"process 1 on elsewhere.*delete .*lock\.json"), lock(tmp_path):
        pass


def test_A11_the_same_process_cannot_hold_it_twice_and_an_error_releases_it(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(RunError, match=f"process {os.getpid()}"), lock(tmp_path):
        pass
    with pytest.raises(KeyError), lock(tmp_path):
        raise KeyError
    with lock(tmp_path):
        pass


def test_A11_an_unreadable_lock_is_not_ignored(tmp_path: Path) -> None:
    for text in ("", "{", "[]"):
        (tmp_path / "lock.json").write_text(text)
        with pytest.raises(RunError, match="unreadable lock"), lock(tmp_path):
            pass


@pytest.mark.slow
def test_A11_of_many_that_find_a_stale_lock_one_gets_it(tmp_path: Path) -> None:
    with lock(tmp_path):
        mine = json.loads((tmp_path / "lock.json").read_text())
    (tmp_path / "lock.json").write_text(json.dumps({**mine, "started": "1"}))
    rush = HOLD.replace("time.sleep(120)", "time.sleep(2)").replace("import sys", "import sys, os")
    rush = rush.replace("with lock", "print(1, flush=True)\nsys.stdin.readline()\nwith lock")
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", rush, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in crowd:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=60) for process in crowd]
    assert sum("held" in out for out, _ in results) == 1
    assert sum("in use by process" in err for _, err in results) == 1
