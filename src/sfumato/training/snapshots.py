"""The power averages that a run keeps in RUN/averages, from which an average of any width is rebuilt."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from sfumato.errors import ModelFileError, RunError
from sfumato.files import read_tensors, write_tensors
from sfumato.files.atomic import told
from sfumato.training.average import Snapshot, reconstruct

AVERAGES = "averages"


def write_snapshot(run: Path, snapshot: Snapshot) -> Path:
    """In 16 bits, as Karras et al. (2024) do: about 1 part in 2000 of a weight for half the room.
    Raises RunError if the disk refuses."""
    folder = run / AVERAGES
    with told("making", folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{snapshot.step:08d}-{snapshot.sigma_rel:g}.safetensors"
    said = {"step": str(snapshot.step), "sigma_rel": f"{snapshot.sigma_rel:g}"}
    write_tensors(path, {name: t.detach().half() for name, t in snapshot.weights.items()}, said)
    return path


def read_snapshots(run: Path) -> list[Snapshot]:
    """What a run kept, oldest first. Raises ModelFileError for damaged files."""
    found: list[Snapshot] = []
    for path in sorted((run / AVERAGES).glob("step-*.safetensors")):
        tensors, said = read_tensors(path)
        try:
            found.append(Snapshot(int(said["step"]), float(said["sigma_rel"]), tensors))
        except (KeyError, ValueError):
            raise ModelFileError(f"{path}: says no step and width: it is no average of a run") from None
    return found


def rebuild(run: Path, sigma_rel: float) -> dict[str, Tensor]:
    """The average of this relative width at the last snapshot, by the parameters' names, float32.

    Raises RunError when the run kept none, SettingsError for a width outside (0, 0.28).
    """
    snapshots = read_snapshots(run)
    if not snapshots:
        raise RunError(f"{run}: kept no averages to rebuild others from: train with --averages 8")
    return reconstruct(snapshots, sigma_rel)
