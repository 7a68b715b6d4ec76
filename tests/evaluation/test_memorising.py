"""A network that was trained until it knows its few pictures by heart is caught; one that saw many passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from corpora import small
from evaluation.fields import SIDE, a_set, extractor, pictures
from sfumato.assembled import build
from sfumato.data.batches import Batches
from sfumato.data.dataset import DataSet
from sfumato.denoiser import Bound
from sfumato.evaluation import novelty
from sfumato.evaluation.novelty import Novelty
from sfumato.files.pictures import to_bytes
from sfumato.plans import descend, trailing
from sfumato.predictions import V
from sfumato.sampling import sample
from sfumato.schedules import Cosine
from sfumato.solvers.multistep import Multistep
from sfumato.tables import Table
from sfumato.training.settings import TrainSettings
from sfumato.training.trainer import fit

HELD = pictures(200, "held")


def of(images: Tensor) -> DataSet:
    """The pictures as a data set, nothing held out."""
    pixels = np.stack([to_bytes(one)[..., None] for one in images])
    rows, names = np.arange(len(pixels)), tuple(map(str, range(len(pixels))))
    return DataSet(
        "few", pixels, (SIDE, SIDE), rows, rows[:0], None, (), None, names, ({},) * len(rows), names, (), (),
        (), "fingerprint",
    )  # fmt: skip


def trained_on(images: Tensor, steps: int) -> Novelty:
    """What the samples are of a network that was trained on these pictures."""
    model = build(small.card(schedule=Table.cosine(), prediction=V()), 0).train()
    settings = TrainSettings(steps=steps, batch=24, lr=4e-3, warmup=20, ema=0.98, validate=0)
    for _ in fit(model, Batches(of(images), 0), settings):
        pass
    with torch.no_grad():
        plan = descend(trailing(Cosine(), 40))
        made = sample(Bound(model.eval(), {}), (1, SIDE, SIDE), plan, Multistep(order=2), range(120))
    sets = [
        a_set(one.clamp(-1, 1), name) for one, name in ((made, "made"), (images, "train"), (HELD, "held"))
    ]
    return novelty.look(sets[0], sets[1], sets[2], extractor())


@pytest.mark.slow
def test_a_network_that_saw_few_pictures_too_often_is_caught_and_one_that_saw_many_passes() -> None:
    few, many = trained_on(pictures(24, "few"), 900), trained_on(pictures(3000, "many"), 900)
    assert few.flagged
    assert few.pixels.near.value > 0.5
    assert not many.flagged
    assert not bool(many.copies.any())
