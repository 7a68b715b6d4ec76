"""From a folder to a data set: what is chosen from the data, the cache, and many processes at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sfumato.data.batches import Batches
from sfumato.data.prepare import prepare


def test_the_bundled_digits() -> None:
    digits = prepare("digits")
    assert digits.shape == (1, 28, 28)
    assert digits.classes == 10
    assert digits.label_names == tuple("0123456789")
    assert len(digits) + len(digits.held) == 10_000
    assert 400 < len(digits.held) < 600
    batch = Batches(digits, seed=3).batch(range(4))
    assert batch.images.shape == (4, 1, 28, 28)
    assert float(batch.images.min()) == -1.0
    assert float(batch.images.max()) == 1.0


def test_a_folder_with_classes(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for i in range(40):
        place = root / ("cats" if i % 4 else "dogs") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), (i, 255 - i, 7), np.uint8)).save(place)
    pets = prepare(root)
    assert pets.shape == (3, 16, 16)
    assert pets.label_names == ("cats", "dogs")
    assert pets.labels is not None
    for row, name in enumerate(pets.names):
        i = int(name.split("/")[1].removesuffix(".png"))
        assert pets.label_names[pets.labels[row]] == name.split("/")[0]
        assert pets.stored(np.array([row]))[0, 0, 0].tolist() == [i, 255 - i, 7]
