"""Sets of pictures and the store of their features: order, batches, memory, crashes."""

from __future__ import annotations

import gc
import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import sfumato
from sfumato.assembled import build
from sfumato.card import Card, ImageSettings, SamplerSettings
from sfumato.data.arrays import read_arrays
from sfumato.data.prepare import prepare
from sfumato.errors import SettingsError
from sfumato.evaluation.features import store
from sfumato.evaluation.features.seen import Features, Looking
from sfumato.evaluation.features.store import features_of
from sfumato.evaluation.sets import PictureSet, of_dataset, of_folder, of_run, of_tensor
from sfumato.folders.run import save
from sfumato.networks import UNetConfig
from sfumato.predictions import V
from sfumato.runs import Run
from sfumato.tables import Table


def looking(fail_at: int | None = None) -> Looking:
    """An extractor whose numbers are the pictures' own: pooled, spatial and logits."""
    seen = 0

    def look(images: Tensor) -> Features:
        nonlocal seen
        seen += len(images)
        if fail_at is not None and seen > fail_at:
            raise KeyboardInterrupt
        flat = images.flatten(1)
        return Features(flat[:, :5], flat[:, 5:9], images.mean((2, 3)))

    return Looking("own", "0" * 64, "none", 5, look, torch.device("cpu"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    chance = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "small.npz"
    images = chance.integers(0, 256, (70, 6, 6), dtype=np.uint8)
    images[40:45] = images[3]  # copies
    np.savez(
        path, images=images, labels=np.arange(70) % 3, captions=np.array([f"no. {i}" for i in range(70)])
    )
    data = prepare(read_arrays(path), size=6, room=0.5, cache=path.parent)
    return of_dataset(data, np.arange(70))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    network = UNetConfig(
        in_channels=1,
        out_channels=1,
        image_size=(8, 8),
        channels=(8,),
        layers=1,
        groups=4,
        head_channels=8,
        classes=3,
        null_class=True,
    )
    card = Card.of(
        network=network,
        schedule=Table.cosine(),
        prediction=V(),
        image=ImageSettings(channels=1, height=8, width=8),
        classes=("a", "b", "c"),
        clip=True,
        sampler=SamplerSettings(steps=2),
    )
    folder = tmp_path_factory.mktemp("run") / "tiny"
    save(folder, build(card), card)
    return sfumato.load(folder)


def test_a_data_sets_rows_are_what_training_sees(digits: PictureSet) -> None:
    assert digits.count == 70
    assert digits.shape == (1, 6, 6)
    assert digits.classes == tuple(i % 3 for i in range(70))
    assert digits.captions is not None
    assert digits.captions[4] == "no. 4"
    part = digits.take([4, 2, 4])
    assert part.classes == (1, 2, 1)
    assert torch.equal(part.images([0, 1]), digits.images([4, 2]))
    assert torch.equal(part.take([2]).images([0]), digits.images([4]))
    assert torch.cat(list(digits.batches(32))).shape == (70, 1, 6, 6)
    with pytest.raises(SettingsError, match="go from 0 to 2"):
        part.take([3])


def test_the_hash_is_of_the_content_whatever_its_order(digits: PictureSet) -> None:
    order = torch.randperm(70, generator=torch.Generator().manual_seed(1)).tolist()
    assert digits.take(order).sha256 == digits.sha256
    assert digits.take(order[:-1]).sha256 != digits.sha256
    assert digits.take([*order[:-1], order[0]]).sha256 != digits.sha256
    again = of_tensor(digits.images(order), "the same")
    assert again.sha256 == digits.sha256
    other = digits.images(range(70))
    other[7, 0, 0, 0] += 2 / 255 if float(other[7, 0, 0, 0]) < 0 else -2 / 255
    assert of_tensor(other, "one pixel").sha256 != digits.sha256


def test_features_stand_at_their_pictures_in_any_order_and_batch(digits: PictureSet, tmp_path: Path) -> None:
    order = torch.randperm(70, generator=torch.Generator().manual_seed(2)).tolist()
    wanted = looking()(digits.images(range(70)))
    for batch, cache in ((64, None), (7, None), (33, tmp_path), (5, tmp_path)):
        seen = features_of(digits, looking(), batch, cache)
        shuffled = features_of(digits.take(order), looking(), batch, cache)
        for mine, mixed, theirs in zip(seen, shuffled, wanted, strict=True):
            assert torch.equal(mine, theirs)
            assert torch.equal(mixed, theirs[order])
    assert len(list(tmp_path.iterdir())) == 1


def test_features_are_found_again_and_only_for_the_same_question(digits: PictureSet, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    features_of(digits, looking(), 30, tmp_path, lambda done, n: told.append((done, n)))
    assert told == [(30, 70), (60, 70), (70, 70)]
    never = looking(fail_at=0)
    assert features_of(digits, never, 30, tmp_path).pooled.shape == (70, 5)
    others = [
        Looking(never.name, "1" * 64, never.resize, 5, never.look, never.device),
        Looking(never.name, never.sha256, "another", 5, never.look, never.device),
        Looking("other", never.sha256, never.resize, 5, never.look, never.device),
    ]
    for other in others:
        with pytest.raises(KeyboardInterrupt):
            features_of(digits, other, 30, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        features_of(digits.take(range(69)), never, 30, tmp_path)


def test_what_is_cut_short_leaves_nothing_and_what_is_damaged_is_made_again(
    digits: PictureSet, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        features_of(digits, looking(fail_at=40), 10, tmp_path)
    assert not list(tmp_path.iterdir())
    wanted = features_of(digits, looking(), 10, tmp_path).pooled.clone()
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (whole[:-4], whole[:100], b"", b"x" + whole[1:], whole + b"1234"):
        path.write_bytes(damaged)
        assert torch.equal(features_of(digits, looking(), 10, tmp_path).pooled, wanted)
        assert path.read_bytes() == whole
    left = tmp_path / f"{path.name}.tmp-12345"
    left.write_bytes(b"half")
    os.utime(left, (time.time() - 2 * store.STALE,) * 2)
    features_of(digits.take([0]), looking(), 10, tmp_path)
    assert not left.exists()


class Endless:
    """Pictures that are made when they are asked for, and remember how many there were at once."""

    def __init__(self) -> None:
        self.most = 0

    def read(self, rows: np.ndarray) -> np.ndarray:
        self.most = max(self.most, len(rows))
        return np.broadcast_to((rows % 251).astype(np.uint8)[:, None, None, None], (len(rows), 64, 64, 3))


def test_memory_is_that_of_a_batch_and_not_of_the_set(tmp_path: Path) -> None:
    """1,500 pictures of 12 kB (as float32: 49 kB) with features of 20 bytes go through in 8 batches' room."""
    pictures = Endless()
    n, batch = 1500, 20
    made = PictureSet("made", tuple(f"{i:05d}" for i in range(n)), (3, 64, 64), pictures.read)

    def look(images: Tensor) -> Features:
        return Features(images[:, 0, 0, :5])

    extractor = Looking("own", "0" * 64, "none", 5, look, torch.device("cpu"))
    features_of(made.take(range(100)), extractor, batch, tmp_path / "first")
    gc.collect()
    tracemalloc.start()
    features_of(made, extractor, batch, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pictures.most == batch
    assert peak < 8 * batch * 3 * 64 * 64 * 4 < n * 3 * 64 * 64 * 4 / 5


def test_a_runs_samples_are_the_bytes_that_it_would_write(run: Run, tmp_path: Path) -> None:
    drawn = of_run(run, 7, seed=3, cache=tmp_path, batch=4)
    assert drawn.classes == (0, 1, 2, 0, 1, 2, 0)
    assert drawn.class_names == ("a", "b", "c")
    wanted = run.sample(7, seed=3, classes=[0, 1, 2, 0, 1, 2, 0], batch=4)
    assert torch.equal(drawn.images(range(7)), ((wanted + 1) * 127.5).round() / 127.5 - 1)
    assert of_tensor(wanted, "by hand").sha256 == drawn.sha256


def test_a_runs_samples_are_drawn_once_for_one_question(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = of_run(run, 4, cache=tmp_path, classes="b")
    assert first.classes == (1, 1, 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "make", lambda *_: pytest.fail("drawn again"))
        assert of_run(run, 4, cache=tmp_path, classes="b").sha256 == first.sha256
    other = of_run(run, 4, seed=1, cache=tmp_path, classes="b")
    assert other.sha256 != first.sha256
    assert len(list(tmp_path.glob("samples-*"))) == 2


def test_samples_that_nobody_keeps_go_with_the_set(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    drawn = of_run(run, 2)
    part = drawn.take([1])
    assert len(list(tmp_path.iterdir())) == 1
    del drawn
    gc.collect()
    assert part.images([0]).shape == (1, 1, 8, 8)
    del part
    gc.collect()
    assert not list(tmp_path.iterdir())


def _photos(folder: Path, sizes: Iterator[tuple[int, int]]) -> Path:
    chance = np.random.default_rng(1)
    for i, (width, height) in enumerate(sizes):
        place = folder / ("cats" if i % 2 else "dogs")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(place / f"{i}.png")
    return folder


def test_a_folders_pictures_keep_their_size_and_mixed_ones_are_refused(tmp_path: Path) -> None:
    found = of_folder(_photos(tmp_path / "one", iter([(90, 70)] * 6)), cache=tmp_path / "c")
    assert found.shape == (3, 70, 90)
    assert found.class_names == ("cats", "dogs")
    assert found.classes is not None
    assert sorted(found.classes) == [0, 0, 0, 1, 1, 1]
    mixed = _photos(tmp_path / "two", iter([(90, 70), (90, 70), (50, 40)]))
    with pytest.raises(SettingsError, match=r"figures are of pictures of one size"):
        of_folder(mixed, cache=tmp_path / "c")
    assert of_folder(mixed, size=32, cache=tmp_path / "c").shape == (3, 32, 32)
