"""Stops and cuts training runs many times and counts what came back bit for bit (rows A5 and A9, in full).

    python benchmarks/resume.py            # about 10 minutes
    python benchmarks/resume.py --cuts 20 --stops 20

A5: runs cut one to three times at random steps, with 0 to 3 data threads, in fp32 and bf16, with AdamW and
SGLD, must end with the same weights, averages, optimiser, losses and samples as the run that nobody cut. A9:
SIGTERM, SIGINT and SIGUSR1 at random instants must end within 10 s with their codes, saved at the last
finished step.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "training"))

from test_resume import SETTINGS, STEPS, Runner, same
from test_signals import STEPS as LONG
from test_signals import Server, final, finished

from conftest import make_data, make_model
from sfumato.files import Checkpoints
from sfumato.noise import permutation, uniform


def cuts(count: int, folder: Path) -> dict[str, int]:
    """How many cut runs ended like the whole one, by the way they were trained."""
    found: Counter[str] = Counter()
    ways = ({}, {"precision": "bf16"}, {"optimiser": "sgld"}, {"accumulate": 1, "ema": 0.0})
    for number, way in enumerate(ways):
        settings = replace(SETTINGS, **way)
        whole = Runner(make_model, make_data(), folder / f"whole-{number}").train(settings=settings)
        for i in range(-(-count // len(ways))):
            places = sorted(permutation(STEPS + 1, "cuts", number, i)[: 1 + i % 3].tolist())
            runner = Runner(make_model, make_data(), folder / f"cut-{number}-{i}")
            result = runner.train(places, settings, workers=[i % 4, (i + 1) % 4], save_every=[3 + i % 9])
            name = ", ".join(f"{k} {v}" for k, v in way.items()) or "as it is"
            found[f"{name}: {'alike' if same(result, whole) else 'DIFFERENT'}"] += 1
    return dict(found)


def stops(count: int, folder: Path) -> dict[str, object]:
    """What `count` signals did, over as many runs as it takes."""
    server, kinds = Server(), (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    began = time.monotonic()
    server.begin(folder / "whole")
    server.code()
    took, expected = time.monotonic() - began, final(folder / "whole")
    found: Counter[str] = Counter()
    slowest, run, sent = 0.0, 0, 0
    waits = (uniform(3 * count, "stops") * took / 3).tolist()
    while sent < count:
        out = folder / f"run-{run}"
        kind = kinds[sent % 3]
        pid = server.begin(out, save_every=5 + sent % 7, workers=sent % 3)
        time.sleep(waits[sent % len(waits)])
        asked = time.monotonic()
        with suppress(ProcessLookupError):  # the run had ended already: no stop
            os.kill(pid, kind)
            sent += 1
        code = server.code()
        slowest = max(slowest, time.monotonic() - asked)
        latest, done = Checkpoints(out / "checkpoints").latest(), finished(out)
        if code == 0:
            found["complete: alike" if final(out) == expected else "complete: DIFFERENT"] += 1
            run += 1
        elif code == -kind:
            found["before the handlers were there"] += 1
        elif code != 128 + kind:
            found[f"WRONG CODE {code}"] += 1
        elif latest is None or latest.step != (int(done[-1][0]) if done else 0):
            found["WRONG STEP"] += 1
        else:
            found["stopped, saved at the last finished step"] += 1
    server.begin(folder / f"run-{run}")
    server.code()
    same_end = final(folder / f"run-{run}") == expected
    found["complete: alike" if same_end else "complete: DIFFERENT"] += 1
    server.close()
    return {**found, "slowest exit, s": round(slowest, 2), "steps of a run": LONG}


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--cuts", type=int, default=100)
    options.add_argument("--stops", type=int, default=100)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        said = {"A5": cuts(asked.cuts, Path(folder))}
        print(json.dumps(said, indent=2), flush=True)
        said["A9"] = stops(asked.stops, Path(folder))
        print(json.dumps(said["A9"], indent=2))
    return int(any(word in json.dumps(said) for word in ("DIFFERENT", "WRONG")))


if __name__ == "__main__":
    sys.exit(main())
