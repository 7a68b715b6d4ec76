"""One process at a time in a run folder; the lock names its holder, and a dead holder's is taken over."""

from __future__ import annotations

import os
import platform
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from sfumato.errors import ModelFileError, RunError
from sfumato.files.atomic import told, write_atomic
from sfumato.files.json_file import json_bytes, read_json

LOCK = "lock.json"


def _born(pid: int) -> str:
    """When a process started, in ticks since the boot, "" if unknown: a reused number has another birth."""
    try:
        after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if after[0] in "ZX" else after[19]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _alive(pid: int, born: str) -> bool:
    if pid <= 0:
        return False
    if os.name == "nt":  # os.kill(pid, 0) would interrupt the other process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return not Path("/proc/self/stat").exists() or born == "" or _born(pid) == born


def _me() -> dict[str, object]:
    pid = os.getpid()
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return {"pid": pid, "host": platform.node(), "started": _born(pid), "boot": _boot(), "since": since}


@contextmanager
def _alone(folder: Path) -> Generator[None, None, None]:
    """For the moment of looking and writing, so that two that find a stale lock do not both take it."""
    if os.name == "nt":  # no fcntl there: the moment is left open
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no flock: the moment is left open
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _holder(path: Path) -> dict[str, object] | None:
    """Who holds the lock, None if nobody does any more."""
    if not path.exists():
        return None
    try:
        told_by = read_json(path, limit=1 << 16)
    except ModelFileError as error:
        raise RunError(
            f"{path}: an unreadable lock: if no other process uses this folder, delete it"
        ) from error
    if not isinstance(told_by, dict):
        raise RunError(f"{path}: an unreadable lock: if no other process uses this folder, delete it")
    pid, host = told_by.get("pid"), told_by.get("host")
    if host == platform.node() and isinstance(pid, int):
        same_boot = told_by.get("boot") == _boot()
        if not same_boot or not _alive(pid, str(told_by.get("started", ""))):
            return None
    return told_by


@contextmanager
def lock(folder: Path) -> Generator[None, None, None]:
    """Holds `folder` for this process inside the block, by a file `lock.json` with its pid, host and birth.

    A second process is refused with a RunError that names the first. A lock whose process is dead on this
    host (or whose number now belongs to another process, or from before the last boot) is taken over.
    """
    path = folder / LOCK
    mine = _me()
    with told("locking", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            holder = _holder(path)
            if holder is not None:
                raise RunError(
                    f"{folder}: in use by process {holder.get('pid')} on {holder.get('host')} since "
                    f"{holder.get('since')}: wait for it or stop it (if it is surely gone, delete {path})"
                )
            write_atomic(path, [json_bytes(mine)])
    try:
        yield
    finally:
        if os.getpid() == mine["pid"]:  # a forked child that leaves the block does not hold the lock
            with suppress(OSError, ModelFileError):
                if read_json(path, limit=1 << 16) == mine:
                    path.unlink()
