"""Row B1: a folder of 500 good pictures and every bad kind, all the way to batches."""

from __future__ import annotations

import logging
import os
import resource
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from corpora.images import pattern, saved, write_good, write_hostile_folder
from sfumato.data.batches import Batches
from sfumato.data.decode import shown
from sfumato.data.inspection import inspect
from sfumato.data.prepare import prepare
from sfumato.errors import DataError


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class _Peak:
    """The most memory held while the block ran, beyond what was held before."""

    def __enter__(self) -> _Peak:
        self._before = _resident()
        self.growth = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.is_set():
            self.growth = max(self.growth, _resident() - self._before)
            time.sleep(0.005)

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures memory in /proc")
@pytest.mark.timeout(120)
def test_each_bad_file_is_reported_once_and_the_good_ones_do_not_mind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clean = tmp_path / "clean"
    write_good(clean, 500)
    mixed = tmp_path / "mixed"
    write_good(mixed, 500)
    bad = write_hostile_folder(mixed)
    assert len(bad) >= 60
    before = prepare(clean)
    with caplog.at_level(logging.WARNING), _Peak() as peak:
        after = prepare(mixed, limit_bad=0.2)
    assert peak.growth < 300e6
    reported = [flaw.name for flaw in after.bad]
    assert sorted(reported) == sorted(shown(name) for name in bad)
    assert len(set(reported)) == len(reported)
    assert all(flaw.reason for flaw in after.bad)
    assert sorted(record.message for record in caplog.records) == sorted(str(flaw) for flaw in after.bad)

    assert after.names == before.names
    assert after.fingerprint == before.fingerprint
    assert np.array_equal(after.pixels, before.pixels)
    assert np.array_equal(after.train, before.train)
    assert np.array_equal(after.pixels[17], pattern(17))

    caplog.clear()
    for workers in (0, 2):  # two epochs, a reopened cache, other workers: nothing is reported again
        again = prepare(mixed, limit_bad=0.2)
        assert again.reused
        assert again.bad == after.bad
        size = len(again) // 5
        steps = Batches(again, seed=1).stream(0, size, workers=workers)
        seen = [next(steps).names for _ in range(10)]
        assert sorted(sum(seen[:5], ())) == sorted(again.names[row] for row in again.train[: 5 * size]) or (
            len(set(sum(seen[:5], ()))) == 5 * size
        )
    assert not caplog.records
    assert {flaw.name for flaw in inspect(mixed).bad} == set(reported)


def test_more_than_one_in_twenty_stops_with_a_count(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    write_good(root, 95)
    for number in range(5):
        (root / f"bad-{number}.png").write_bytes(b"no picture")
    assert len(prepare(root).bad) == 5
    (root / "bad-5.png").write_bytes(saved(pattern(0), "PNG")[:-80])
    with pytest.raises(DataError, match="6 of 101 pictures in pictures cannot be read, more than 5%"):
        prepare(root)
    assert len(prepare(root, limit_bad=0.1).bad) == 6
    with pytest.raises(DataError, match="6 of 101"):  # a cache that a laxer call left does not let them in
        prepare(root)


def test_nothing_readable_is_an_error_whatever_the_limit(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"no picture")
    for call in (lambda: prepare(tmp_path / "data", limit_bad=1.0), lambda: inspect(tmp_path / "data")):
        with pytest.raises(DataError, match="none of the 1 pictures in data can be read"):
            call()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    names = write_good(tmp_path / "data", 30)
    (tmp_path / "data" / names[3]).chmod(0)
    (flaw,) = prepare(tmp_path / "data").bad
    assert (flaw.name, flaw.reason) == (names[3], "it may not be read (permission denied)")
