"""One process of several: trains its share, rank 0 writes what came out.

Arguments: FOLDER STEPS ACCUMULATE APART BESIDE. With BESIDE levels are drawn by importance and a
discriminator learns beside the model.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
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


def main(folder: Path, steps: int, accumulate: int, seed: int, beside: bool) -> None:
    torch.set_num_threads(1)
    settings = replace(SETTINGS, steps=steps, accumulate=accumulate)
    if beside:
        settings = replace(settings, levels="importance")
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
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "1")
