"""One process of several: trains its share, rank 0 writes what came out.

Arguments: FOLDER STEPS ACCUMULATE APART BESIDE JUDGED. With BESIDE levels are drawn by importance and a
discriminator learns beside the model. With JUDGED a planted metric ends the run, which each process sees
differently.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from conftest import make_batches, make_data, make_model
from corpora.told import ABC
from sfumato.files import Checkpoints, write_tensors
from sfumato.networks.patches import PatchDiscriminator
from sfumato.noise import seeded
from sfumato.training.adversarial import Adversarial
from sfumato.training.crew import joined
from sfumato.training.objectives import Denoising
from sfumato.training.settings import Habits, TrainSettings
from sfumato.training.trainer import Training
from sfumato.training.validation import HeldOut
from sfumato.training.vault import Disk

SETTINGS = TrainSettings(batch=9, lr=2e-3, warmup=2, validate=4, steps=12, averages=0)


def judge() -> Adversarial:
    """A small discriminator, felt from the fourth step on."""
    with seeded(0, "discriminator"):
        return Adversarial(PatchDiscriminator(1, (8, 8), width=8), ramp=4)


@dataclass
class Planted:
    """A judge whose figures are known beforehand; its recall is -kid."""

    kid: list[float]
    terms: str = "planted"
    looks: int = 0
    rising: Mapping[str, bool] = field(default_factory=lambda: {"kid": False, "recall": True})

    def look(self) -> Mapping[str, float]:
        self.looks += 1
        return {"kid": self.kid[self.looks - 1], "recall": -self.kid[self.looks - 1]}


def main(folder: Path, steps: int, accumulate: int, seed: int, beside: bool, judged: bool) -> None:
    torch.set_num_threads(1)
    settings = replace(SETTINGS, steps=steps, accumulate=accumulate)
    if beside:
        settings = replace(settings, levels="importance")
    if judged:
        settings = replace(settings, metrics_every=36, best_by="kid", patience=2)
    with joined("cpu", 60.0) as crew:
        model = make_model()
        if crew.rank and seed:
            next(model.parameters()).data += 1.0  # another beginning: must be refused
        batch = make_data().held_out()
        training = Training(
            model,
            make_batches(),
            settings,
            telling=ABC,
            held=HeldOut(batch.images, ABC.told(batch, 0)),
            judge=Planted([3.0, 4.0, 5.0, 6.0] if crew.leads else [3.0, 2.0, 1.0, 0.0]) if judged else None,
            vault=Disk(Checkpoints(folder / "checkpoints"), settings, "toy", crew.leads),
            habits=Habits(workers=0, save_every=5),
            crew=crew,
            objective=Denoising() + 0.3 * judge() if beside else None,
        )
        taken = list(training.steps())
        if crew.leads:
            named = training.state.weights.named(training.state.weights.vector)
            write_tensors(folder / "weights.safetensors", named)
            said = {"losses": [s.loss for s in taken], "norms": [s.grad_norm for s in taken]}
            (folder / "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
        int(sys.argv[4]),
        *(a == "1" for a in sys.argv[5:]),
    )
