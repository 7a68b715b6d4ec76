"""The full forms of rows A1-A4 and A8 of the reliability plan, and what a checkpoint costs. Linux only.

    python benchmarks/checkpoints.py            about 10 minutes on 2 cores; --only cost,kills,... for parts

cost    time of saving, verifying and loading 36 MB, as the median of 20
kills   500 SIGKILLs at random instants, a checkpoint at every step; 60 each for the two habits that lose them
calls   SIGKILL before the k-th system call for every k, by strace (if it is installed)
errors  ENOSPC, EIO, EDQUOT at the k-th system call for every k, once and from then on, by strace
room    file systems of 0.3, 0.9, 1.1 and 1.9 times a checkpoint (needs the right to mount)
flips   300 flipped bytes, all of which the manifest must find
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sfumato.errors import RunError
from sfumato.files import Checkpoints, verify_folder

STORM = Path(__file__).parents[1] / "tests" / "files" / "storm.py"
GROUPS = ("model", "average", "optimizer")
CALLS = "openat,write,fsync,rename,mkdir,unlink,unlinkat,rmdir"


def groups(step: int, numbers: int) -> dict[str, dict[str, torch.Tensor]]:
    return {name: {"w": torch.full((numbers,), float(step))} for name in GROUPS}


def step_in(folder: Path) -> int | None:
    """The step of the newest whole checkpoint, every value of which must belong to it."""
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.clean()
    latest = checkpoints.latest()
    if latest is None:
        return None
    tensors, state = checkpoints.load(latest)
    whole = all((t == latest.step).all() for group in tensors.values() for t in group.values())
    return latest.step if whole and state == {"step": latest.step} and tensors.keys() == set(GROUPS) else None


def cost(home: Path) -> dict[str, object]:
    tensors = {"model": {f"w{i}": torch.full((300, 1000), float(i)) for i in range(30)}}
    checkpoints = Checkpoints(home / "cost")
    times: dict[str, list[float]] = {"save": [], "verify": [], "load": []}
    for step in range(20):
        begun = time.perf_counter()
        new = checkpoints.save(step, tensors, {"step": step})
        saved = time.perf_counter()
        verify_folder(new.path)
        verified = time.perf_counter()
        checkpoints.load(new)
        times["save"].append(saved - begun)
        times["verify"].append(verified - saved)
        times["load"].append(time.perf_counter() - verified)
    return {f"{name}_36MB_ms": round(1000 * statistics.median(seen), 1) for name, seen in times.items()}


def kills(home: Path) -> dict[str, object]:
    result: dict[str, object] = {}
    for writer, count in (("ours", 500), ("plain", 60), ("delete-first", 60)):
        command = [sys.executable, str(STORM), "random", writer, "--kills", str(count)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        found["lost"] = len(found["lost"])
        result[writer] = found
    return result


def _victim(folder: Path, gate: socket.socket) -> None:
    """Waits for the tracer, saves step 2 and says how it went, by a socket: its calls are let through."""
    gate.recv(1)
    try:
        Checkpoints(folder, keep=1).save(2, groups(2, 1000), {"step": 2})
    except RunError as error:
        gate.send(str(error).encode())
        os._exit(7)
    os._exit(0)


def _injected(home: Path, what: str) -> tuple[int, str, int | None, bool]:
    """One save under strace: wait status, words, the step found afterwards, whether the injection came."""
    folder, log = home / "traced", home / "strace.log"
    shutil.rmtree(folder, ignore_errors=True)
    Checkpoints(folder, keep=1).save(1, groups(1, 1000), {"step": 1})
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            _victim(folder, theirs)
        finally:
            os._exit(3)
    theirs.close()
    command = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={CALLS}", "-e", what, "-p", str(pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    status = Path(f"/proc/{pid}/status")
    while "TracerPid:\t0" in status.read_text() and tracer.poll() is None:
        time.sleep(0.002)
    if tracer.poll() is not None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise RuntimeError(f"strace: {tracer.communicate()[1].decode()}")
    ours.send(b"x")
    ended = os.waitpid(pid, 0)[1]
    tracer.communicate(timeout=60)
    said = ours.recv(65536).decode()
    ours.close()
    hit = os.WIFSIGNALED(ended) or "INJECTED" in log.read_text(errors="replace")
    return ended, said, step_in(folder), hit


def calls(home: Path) -> dict[str, object]:
    if shutil.which("strace") is None:
        return {"skipped": "strace is not installed"}
    bad: list[str] = []
    total = 0
    for call in CALLS.split(","):
        for k in range(1, 400):
            _, _, step, hit = _injected(home, f"inject={call}:signal=SIGKILL:when={k}")
            if not hit:
                break
            total += 1
            if step not in (1, 2):
                bad.append(f"{call} {k}: {step}")
    return {"kills": total, "bad": bad}


def errors(home: Path) -> dict[str, object]:
    if shutil.which("strace") is None:
        return {"skipped": "strace is not installed"}
    bad: list[str] = []
    runs = told = 0
    kinds = (("ENOSPC", "No space left"), ("EIO", "Input/output error"), ("EDQUOT", "quota exceeded"))
    for (name, words), call, plus in itertools.product(kinds, CALLS.split(","), ("", "+")):
        for k in range(1, 400):
            what = f"inject={call}:error={name}:when={k}{plus}"
            ended, said, step, hit = _injected(home, what)
            if not hit:
                break
            runs += 1
            told += words in said and str(home) in said
            status = os.waitstatus_to_exitcode(ended)
            if step not in (1, 2) or status not in (0, 7) or (status == 7 and words not in said):
                bad.append(f"{what}: status {status}, step {step}, said {said[-200:]!r}")
    return {"runs": runs, "named_path_and_reason": told, "bad": bad}


def room(home: Path) -> dict[str, object]:
    size = 3 * 4 * 1_000_000
    result: dict[str, object] = {}
    for share in (0.3, 0.9, 1.1, 1.9):
        place = home / f"disk-{share}"
        place.mkdir()
        small = size // 4 if share < 1 else size
        mount = ["mount", "-t", "tmpfs", "-o", f"size={int(small * 1.1 + size * share)}", "tmpfs", str(place)]
        if subprocess.run(mount, capture_output=True).returncode:
            return {"skipped": "no right to mount"}
        try:
            checkpoints = Checkpoints(place / "c", keep=1)
            checkpoints.save(1, groups(1, small // 12), {"step": 1})
            try:
                checkpoints.save(2, groups(2, 1_000_000), {"step": 2})
                said = "saved"
            except RunError as error:
                said = str(error).replace(str(home), "")
            result[str(share)] = {"said": said, "step_kept": step_in(place / "c")}
        finally:
            subprocess.run(["umount", str(place)], check=True)
    return result


def flips(home: Path) -> dict[str, object]:
    checkpoints = Checkpoints(home / "flips")
    folder = checkpoints.save(1, groups(1, 100_000), {"step": 1}).path
    chance, found, named = random.Random(0), 0, 0
    files = sorted(folder.iterdir())
    for number in range(300):
        path = files[number % len(files)]
        data = path.read_bytes()
        at = chance.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ chance.randrange(1, 256)]) + data[at + 1 :])
        try:
            verify_folder(folder)
        except RunError as error:
            found += 1
            named += path.name in str(error)
        path.write_bytes(data)
    return {"flipped": 300, "found": found, "named": named}


PARTS: dict[str, Callable[[Path], dict[str, object]]] = {
    "cost": cost,
    "kills": kills,
    "calls": calls,
    "errors": errors,
    "room": room,
    "flips": flips,
}


def main() -> None:
    torch.set_num_threads(1)
    logging.disable()  # a failed deletion of an older checkpoint is only a warning
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(PARTS))
    for name in parser.parse_args().only.split(","):
        home = Path(tempfile.mkdtemp(prefix="checkpoints-"))
        begun = time.monotonic()
        try:
            result = PARTS[name](home)
        finally:
            shutil.rmtree(home, ignore_errors=True)
        print(json.dumps({"part": name, "seconds": round(time.monotonic() - begun, 1), **result}), flush=True)


if __name__ == "__main__":
    main()
