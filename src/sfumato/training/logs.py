"""What a run tells of itself: RUN/log.jsonl always, TensorBoard and Weights & Biases on request."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sfumato.errors import SettingsError
from sfumato.files.atomic import write_atomic
from sfumato.training.figures import METRICS
from sfumato.training.step import TrainStep

LOG = "log.jsonl"


def values(step: TrainStep) -> dict[str, float]:
    """The figures of a step by name; those that are not finite are left out."""
    out = {
        "loss": step.loss,
        "grad_norm": step.grad_norm,
        "lr": step.lr,
        "images_per_second": step.images_per_second,
    }
    if step.validation is not None:
        out["held_out/loss"] = step.validation.loss
        for i, loss in enumerate(step.validation.per_level):
            out[f"held_out/level_{i}"] = loss
    out |= {f"{METRICS}{name}": value for name, value in step.figures.items()}
    return {name: value for name, value in out.items() if math.isfinite(value)}


def line(step: TrainStep) -> dict[str, Any]:
    """A step as a line of the log. Floats are written so that they read back exactly, an infinite log-SNR as
    null."""
    out: dict[str, Any] = {"step": step.step, "images": step.images, "seconds": step.seconds, **values(step)}
    if step.skipped:
        out["skipped"] = True
    if step.validation is not None:
        seen = step.validation.log_snr
        out["held_out/log_snr"] = [at if math.isfinite(at) else None for at in seen]
    if step.notices:
        out["notices"] = list(step.notices)
    return out


class Log:
    """RUN/log.jsonl, one line a step. A resumed run drops the lines of steps that were lost."""

    def __init__(self, path: Path, images: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [entry for entry in read_log(path) if entry["images"] <= images]
        text = "".join(json.dumps(entry) + "\n" for entry in kept)
        write_atomic(path, [text.encode()])
        self._file = path.open("a", encoding="utf-8")
        self._flushed = time.monotonic()

    def write(self, step: TrainStep) -> None:
        self._file.write(json.dumps(line(step), allow_nan=False) + "\n")
        if step.saved or step.notices or time.monotonic() - self._flushed > 1:
            self.flush()

    def flush(self) -> None:
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that a killed process left half is dropped."""
    if not path.exists():
        return []
    out: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("images"), int):
            out.append(entry)
    return out


@runtime_checkable
class Tracker(Protocol):
    """Another place that figures go to."""

    def write(self, figures: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in RUN/tensorboard. Raises SettingsError when tensorboard is not installed."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise SettingsError(
                "--tensorboard needs the tensorboard package: pip install -c constraints.txt '.[track]'"
            ) from None
        self._writer = SummaryWriter(str(folder))

    def write(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases. Raises SettingsError when wandb is not installed."""

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise SettingsError(
                "--wandb needs the wandb package: pip install -c constraints.txt '.[wandb]'"
            ) from None
        self._run: Any = wandb.init(
            project=project, name=folder.name, dir=str(folder), config=dict(config), resume="allow"
        )

    def write(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()
