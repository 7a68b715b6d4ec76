"""Is a healthy run told from one that knows its pictures by heart?

    python benchmarks/novelty.py runs/digits [-n 300 --pictures 20 --minutes 9 --memorised RUN --out FOLDER]

Looks at samples of the run, trained on thousands of digits, beside its training and its held-out pictures.
Then the run is trained on with 20 of these digits alone (or the one given is taken), and samples of that are
looked at beside the 20 and the same held-out pictures. The first must pass and the second be flagged, else
the script ends with 1. --out: a folder for the two contact sheets.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import sfumato
from sfumato.data.batches import Batches
from sfumato.data.prepare import prepare
from sfumato.evaluation import novelty
from sfumato.evaluation.contact import write_contact
from sfumato.evaluation.features.extractor import Extractor, open_extractor
from sfumato.evaluation.features.store import default_cache
from sfumato.evaluation.sets import PictureSet, of_dataset, of_run
from sfumato.runs import save
from sfumato.training.settings import TrainSettings
from sfumato.training.telling import Telling
from sfumato.training.trainer import fit


def gone_on(run: Path, data: Path, out: Path, minutes: float, **more: Any) -> Path:
    """The run trained on with other pictures, as a run of its own."""
    opened = sfumato.load(run, "cpu")
    settings = TrainSettings(minutes=minutes, warmup=10, ema=0.97, averages=0, **more)
    batches = Batches(prepare(data, hold_out=0.0), 0)
    for step in fit(
        opened.model.train().requires_grad_(True), batches, settings, telling=Telling(opened.conditions)
    ):
        if step.step % 50 == 0 or step.last:
            print(f"  step {step.step}  {step.share:.0%}  loss {step.loss:.4f}", flush=True)
    save(out, opened.model.eval(), opened.card)
    return out


def by_heart(run: Path, pictures: PictureSet, minutes: float) -> Path:
    """The run trained on with these pictures alone, until it knows little else."""
    out = Path(tempfile.mkdtemp())
    images = pictures.read(np.arange(pictures.count))
    np.savez(out / "few.npz", images=images, labels=np.asarray(pictures.classes))
    return gone_on(run, out / "few.npz", out / "run", minutes, batch=pictures.count, lr=2e-3, drop=0.0)


def some_of_each(pictures: PictureSet, n: int) -> list[int]:
    """The first pictures of every class, n in all."""
    classes = np.asarray(pictures.classes)
    each = n // len(pictures.class_names)
    return [row for one in range(len(pictures.class_names)) for row in (classes == one).nonzero()[0][:each]]


def looked(
    run: Path, train: PictureSet, held: PictureSet, extractor: Extractor, n: int, sheet: Path | None
) -> novelty.Novelty:
    """What the run's samples are, printed and shown."""
    began = time.monotonic()
    samples = of_run(sfumato.load(run), n, seed=20_000, cache=default_cache())
    drawn = time.monotonic()
    found = novelty.look(samples, train, held, extractor, cache=default_cache())
    print(f"\n{run.name}: {drawn - began:.0f} s to draw, {time.monotonic() - drawn:.0f} s to look")
    for line in found.lines():
        print(f"  {line}")
    for space in (found.pixels, found.features):
        print(
            f"  {space.space}: median score {space.score.median():.3f}, of held-out pictures "
            f"{space.new.median():.3f}; limit {space.limit:.3f}; chance {space.chance:.2g}",
            flush=True,
        )
    if sheet is not None:
        write_contact(sheet, found, samples, train, most=12)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", default="digits")
    parser.add_argument("-n", type=int, default=300)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--memorised", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    data, extractor = prepare(options.data), open_extractor()
    train, held = of_dataset(data, data.train), of_dataset(data, data.held)
    few = train.take(some_of_each(train, options.pictures))
    again = options.memorised or by_heart(options.run, few, options.minutes)
    sheets = [
        None if options.out is None else options.out / f"{name}.png" for name in ("healthy", "memorised")
    ]
    healthy = looked(options.run, train, held, extractor, options.n, sheets[0])
    memorised = looked(again, few, held, extractor, options.n, sheets[1])
    print(f"\nthe run that knows its pictures by heart: {again}")
    return 0 if memorised.flagged and not healthy.flagged else 1


if __name__ == "__main__":
    sys.exit(main())
