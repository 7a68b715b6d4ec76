"""How much of its captions does a model of emoji use?

    python benchmarks/captions.py runs/emoji [runs/other ...] [--pictures 256]

At four log-SNRs the squared error of x0 with each picture's own caption, and how much larger it is when the
caption names another concept, another drawing style, or nothing. Every run is asked with the same noise.
Compare two runs of the same minutes, for instance `--caption-loss 1` and `0`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from emoji import STYLES
from torch import Tensor

import sfumato
from sfumato.data.dataset import DataSet
from sfumato.data.prepare import prepare
from sfumato.forward import noised
from sfumato.noise import Noise, permutation
from sfumato.runs import Run
from sfumato.tuning.loss import at

LOG_SNRS = torch.tensor([-6.0, -4.0, -2.0, 0.0], dtype=torch.float64)


def captions(data: DataSet, rows: Sequence[int]) -> dict[str, list[str]]:
    """The captions of these pictures, and the wrong ones: those of the next picture, in part."""
    concepts = [data.columns[row]["concept"] for row in rows]
    styles = [STYLES[data.columns[row]["style"]] for row in rows]
    say = lambda names, looks: [f"{name}, {look}" for name, look in zip(names, looks)]
    turned = lambda values: values[1:] + values[:1]
    return {
        "its own caption": say(concepts, styles),
        "another concept": say(turned(concepts), styles),
        "another style": say(concepts, turned(styles)),
        "no caption": [""] * len(rows),
    }


@torch.no_grad()
def errors(run: Run, x0: Tensor, texts: Sequence[str]) -> Tensor:
    """Mean |x0 estimate - x0|^2 at each log-SNR."""
    conditions, out = run.conditions, list[float]()
    wishes = conditions.asked(len(texts), prompts=[text or None for text in texts])
    told = run.model.read({k: v.to(run.device) for k, v in conditions.rows(wishes).items()})
    eps = Noise(tuple(range(len(x0)))).normal(x0.shape[1:], "captions").to(run.device)
    for log_snr in LOG_SNRS:
        level = at(log_snr)
        parts = [
            (run.model(noised(x, e, level), level, **{k: v[i : i + len(x)] for k, v in told.items()}).x0 - x)
            for i, x, e in zip(range(0, len(x0), 64), x0.split(64), eps.split(64))
        ]
        out.append(float(torch.cat(parts).double().square().mean()))
    return torch.tensor(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--pictures", type=int, default=256)
    options = parser.parse_args()
    data = prepare("emoji", hold_out=0.0)
    rows = permutation(len(data), 0, "captions")[: options.pictures].tolist()
    print("log-SNR" + " " * 12 + "".join(f"{value:9g}" for value in LOG_SNRS.tolist()))
    for path in options.runs:
        run = sfumato.load(path)
        x0, own = data.images(rows).to(run.device), torch.ones(())
        for name, texts in captions(data, rows).items():
            found = errors(run, x0, texts)
            if name == "its own caption":
                own = found
                print(f"{path}, error of x0: " + "".join(f"{value:9.4f}" for value in found.tolist()))
            else:
                print(f"  {name:17s}" + "".join(f"{value:9.1%}" for value in (found / own - 1).tolist()))


if __name__ == "__main__":
    main()
