"""Rows A1, A3, A4, A7, A8 of the reliability plan, small; benchmarks/checkpoints.py has the full forms."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from storm import CALLS, state_at

from sfumato.errors import RunError
from sfumato.files import (
    Checkpoints,
    clean_temporaries,
    verify_folder,
    write_folder,
    write_json,
    write_tensors,
)

STORM = Path(__file__).parent / "storm.py"


def storm(*arguments: str) -> dict[str, object]:
    command = [sys.executable, str(STORM), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def saved(folder: Path, *steps: int, keep: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(folder / "checkpoints", keep)
    for step in steps:
        checkpoints.save(step, state_at(step, 1000), {"step": step})
    return checkpoints


def loaded(checkpoints: Checkpoints) -> int:
    """The step of the newest checkpoint, every value of which must be of that step."""
    latest = checkpoints.latest()
    assert latest is not None
    tensors, state = checkpoints.load(latest)
    assert state == {"step": latest.step}
    assert tensors.keys() == {"model", "average", "optimizer"}
    assert all((t == latest.step).all() for group in tensors.values() for t in group.values())
    return latest.step


@pytest.mark.slow
def test_A1_thirty_kills_at_random_instants_lose_nothing() -> None:
    result = storm("random", "ours", "--kills", "30", "--numbers", "400000", "--longest", "0.1")
    assert result["lost"] == []
    assert result["left_over"] == 0
    assert isinstance(result["most_steps_lost"], int)
    assert result["most_steps_lost"] <= 1
    assert isinstance(result["saves"], int)
    assert result["saves"] >= 30


@pytest.mark.slow
def test_A1_a_kill_before_every_call_of_the_system_loses_nothing() -> None:
    result = storm("each", "ours", "--numbers", "1000")
    assert result["lost"] == []
    assert result["left_over"] == 0
    assert isinstance(result["calls"], int)
    assert result["calls"] >= 25


def test_A1_bites_deleting_before_writing_loses_the_checkpoint() -> None:
    assert storm("each", "delete-first", "--numbers", "1000")["lost"]


def test_A1_bites_writing_over_the_only_file_loses_it() -> None:
    result = storm("random", "plain", "--kills", "6", "--numbers", "400000")
    assert isinstance(result["lost"], list)
    assert len(result["lost"]) >= 1


def failing(monkeypatch: pytest.MonkeyPatch, at: int, number: int, *, persistent: bool) -> Callable[[], int]:
    """The at-th call fails with this errno, and all later ones if persistent; gives a count of calls."""
    count = 0

    def wrap(call: Callable[..., object]) -> Callable[..., object]:
        def called(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            if count == at or (persistent and count > at):
                raise OSError(number, os.strerror(number), args[0] if isinstance(args[0], str) else None)
            return call(*args, **kwargs)

        return called

    for name in CALLS:
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))
    return lambda: count


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True], ids=["once", "persistent"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_A3_an_error_at_any_call_keeps_a_whole_checkpoint_and_says_why(
    tmp_path: Path, number: int, persistent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    words, k, told, warned = os.strerror(number), 0, 0, 0
    while True:
        k += 1
        folder = tmp_path / str(k)
        checkpoints = saved(folder, 1, keep=1)
        caplog.clear()
        with pytest.MonkeyPatch.context() as patch:
            seen = failing(patch, k, number, persistent=persistent)
            try:
                checkpoints.save(2, state_at(2, 1000), {"step": 2})
            except RunError as error:
                message, told = str(error), told + 1
            else:
                message = caplog.text
        if seen() < k:
            assert loaded(checkpoints) == 2
            break
        assert loaded(checkpoints) in (1, 2)
        if message:  # an empty one: the call was part of tidying up that is tried again
            assert words in message
            assert str(folder) in message
        warned += bool(caplog.text)
        checkpoints.save(3, state_at(3, 1000), {"step": 3})  # and once the disk is well again
        assert loaded(checkpoints) == 3
        assert checkpoints.clean() == []
        assert [c.step for c in checkpoints.all()] == [3]
        shutil.rmtree(folder)
    assert k > 25
    assert told > 15
    assert warned > 0


def test_A4_a_limit_on_the_file_size_keeps_the_old_one(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(RunError, match=f"step-00000002.*{os.strerror(errno.EFBIG)}"):
            checkpoints.save(2, state_at(2, 100_000), {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert loaded(checkpoints) == 1
    assert len(list(checkpoints.folder.iterdir())) == 1
    checkpoints.save(2, state_at(2, 100_000), {"step": 2})
    assert loaded(checkpoints) == 2


def test_A4_room_is_asked_for_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = saved(tmp_path, 1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    monkeypatch.setattr(os, "mkdir", lambda *args: pytest.fail("wrote before it asked"))
    with pytest.raises(RunError, match=r"needs 1\.2 MB, has 1\.0 MB free at .*checkpoints") as caught:
        checkpoints.save(2, state_at(2, 100_000), {"step": 2})
    assert str(checkpoints.folder) in str(caught.value)
    monkeypatch.undo()
    assert loaded(checkpoints) == 1


def test_A4_a_folder_deleted_under_the_run_is_made_again(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    shutil.rmtree(tmp_path / "checkpoints")
    assert checkpoints.latest() is None
    checkpoints.save(2, state_at(2, 1000), {"step": 2})
    assert loaded(checkpoints) == 2


NAMES = ["model.safetensors", "average.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("harm", ["remove", "flip", "cut", "empty"])
def test_A7_a_checkpoint_with_one_bad_file_is_passed_over_by_name(
    tmp_path: Path, name: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saved(tmp_path, 10, 20)
    bad = checkpoints.all()[-1].path / name
    data = bytearray(bad.read_bytes())
    if harm == "remove":
        bad.unlink()
    elif harm == "flip":
        data[len(data) // 2] ^= 4
        bad.write_bytes(data)
    else:
        bad.write_bytes(data[: len(data) // 2] if harm == "cut" else b"")
    with caplog.at_level(logging.WARNING):
        assert loaded(checkpoints) == 10
    assert [path.name for path, _ in checkpoints.skipped] == ["step-00000020"]
    assert name in checkpoints.skipped[0][1]
    assert str(bad) in caplog.text
    with pytest.raises(RunError, match=name):
        verify_folder(bad.parent)


def test_A7_with_no_valid_checkpoint_left_nothing_is_begun_anew(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10, 20)
    for checkpoint in checkpoints.all():
        (checkpoint.path / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"none of 2 checkpoints is valid.*model\.safetensors: missing"):
        checkpoints.latest()
    assert Checkpoints(tmp_path / "other").latest() is None


def test_A7_an_unknown_format_version_is_refused_by_number(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10)
    place = checkpoints.all()[0].path / "manifest.json"
    place.write_text(place.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(RunError, match="format version 99, this program knows version 1"):
        verify_folder(place.parent)


def test_A8_sixty_flipped_bytes_are_all_found(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10)
    folder = checkpoints.all()[0].path
    chance = random.Random(8)
    files = sorted(folder.iterdir())
    for number in range(60):
        path = files[number % len(files)]
        data = path.read_bytes()
        at = chance.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ chance.randrange(1, 256)]) + data[at + 1 :])
        with pytest.raises(RunError, match=path.name):
            verify_folder(folder)
        with pytest.raises(RunError, match=path.name):
            checkpoints.load(checkpoints.all()[0])
        path.write_bytes(data)
    verify_folder(folder)


def test_the_step_decides_and_never_the_date(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 9, 10, 100_000_000, keep=3)
    for age, checkpoint in enumerate(checkpoints.all()):
        os.utime(checkpoint.path, (2e9 - age, 2e9 - age))
    assert loaded(checkpoints) == 100_000_000
    assert [c.step for c in checkpoints.all()] == [9, 10, 100_000_000]


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    assert checkpoints.best() is None
    checkpoints.mark_best(1)
    for step in (3, 4, 5):
        checkpoints.save(step, state_at(step, 10), {"step": step})
    assert [c.step for c in checkpoints.all()] == [1, 4, 5]
    best = checkpoints.best()
    assert best is not None
    assert best.step == 1
    checkpoints.mark_best(5)
    checkpoints.save(6, state_at(6, 10), {"step": 6})
    assert [c.step for c in checkpoints.all()] == [5, 6]
    with pytest.raises(RunError, match="no checkpoint of step 77"):
        checkpoints.mark_best(77)


def test_a_damaged_mark_deletes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    (checkpoints.folder / "best.json").write_text("{")
    checkpoints.save(3, state_at(3, 10), {"step": 3})
    assert [c.step for c in checkpoints.all()] == [1, 2, 3]
    assert "best.json" in caplog.text
    with pytest.raises(RunError, match=r"best\.json"):
        checkpoints.best()


def test_a_step_saved_again_replaces_the_first_without_a_gap(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10, 20)
    checkpoints.save(20, state_at(20, 500), {"step": 20})
    checkpoints.save(20, state_at(20, 600), {"step": 20})
    assert [(c.step, c.attempt) for c in checkpoints.all()] == [(10, 0), (20, 2)]
    latest = checkpoints.latest()
    assert latest is not None
    assert sum(t.numel() for t in checkpoints.load(latest)[0]["model"].values()) == 600


def test_a_run_that_goes_back_does_not_return_to_the_future_it_left(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10, 20, 30, keep=3)
    checkpoints.save(11, state_at(11, 10), {"step": 11})
    assert [c.step for c in checkpoints.all()] == [10, 11]


def test_what_a_killed_process_left_is_cleaned_and_nothing_else(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    (checkpoints.folder / "step-00000002.tmp-4711").mkdir()
    (checkpoints.folder / "step-00000002.tmp-4711" / "model.safetensors").write_bytes(b"half")
    (checkpoints.folder / "best.json.tmp-4711").write_bytes(b"{")
    (checkpoints.folder / "notes.tmp").write_text("mine")
    assert checkpoints.clean() == ["best.json.tmp-4711", "step-00000002.tmp-4711"]
    assert sorted(p.name for p in checkpoints.folder.iterdir()) == ["notes.tmp", "step-00000001"]
    assert clean_temporaries(tmp_path / "absent") == []


def test_state_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    for state in ({"loss": float("nan")}, {"seed": 10**100}, {"\ud800": 1}):
        with pytest.raises(ValueError, match=r"NaN|64 bits|surrogates"):
            checkpoints.save(2, {}, state)
    checkpoints.save(3, {}, {"best": float("inf")})
    latest = checkpoints.latest()
    assert latest is not None
    assert checkpoints.load(latest) == ({}, {"best": float("inf")})


def test_keeping_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="keep is 0"):
        Checkpoints(tmp_path, 0)


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "unet").mkdir()
        write_tensors(folder / "unet" / "model.safetensors", {"a": torch.ones(3)})
        write_json(folder / "index.json", {"a": 1})

    def broken(folder: Path) -> None:
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "model", broken)
    assert list(tmp_path.iterdir()) == []
    write_folder(tmp_path / "model", write)
    verify_folder(tmp_path / "model")
    held = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert held == {"model/index.json", "model/manifest.json", "model/unet/model.safetensors"}
    (tmp_path / "model" / ".DS_Store").write_bytes(b"a file manager was here")
    verify_folder(tmp_path / "model")
    with pytest.raises(RunError, match="is there already"):
        write_folder(tmp_path / "model", write)
    (tmp_path / "model" / "unet" / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"unet/model\.safetensors: missing"):
        verify_folder(tmp_path / "model")
    with pytest.raises(RunError, match="no such folder"):
        verify_folder(tmp_path / "absent")
