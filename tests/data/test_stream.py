"""Split, order, balance, augmentation and batches: all functions of the seed and the position."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from corpora.images import pattern, write_good
from sfumato.data import augment as augmentation
from sfumato.data.augment import Augment
from sfumato.data.batches import Batches
from sfumato.data.dataset import Batch, DataSet
from sfumato.data.fit import digest
from sfumato.data.order import Order, tempered
from sfumato.data.prepare import prepare
from sfumato.data.split import held_out
from sfumato.errors import DataError


def _digests(start: int, end: int) -> list[str]:
    return [
        digest(np.frombuffer(f"{number:09}".encode(), np.uint8).reshape(3, 3, 1))
        for number in range(start, end)
    ]


def test_the_split_stays_when_pictures_are_added() -> None:
    old, new = _digests(0, 2000), _digests(5000, 8000)
    before = held_out(old, 0.05)
    assert abs(sum(before) / 2000 - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 2000)
    mixed = [digest for pair in zip(new, old) for digest in pair] + new[2000:]
    after = dict(zip(mixed, held_out(mixed, 0.05)))
    assert [after[digest] for digest in old] == before
    assert all(after[d] for d, held in zip(old, held_out(old, 0.02)) if held)  # a smaller share lies inside


def test_the_split_has_both_sides_from_twenty_on() -> None:
    for start in range(0, 4000, 20):
        for count in (19, 20):
            sides = held_out(_digests(start, start + count), 0.05)
            assert (sum(sides) == 0) if count < 20 else (1 <= sum(sides) < 20)
    assert sum(held_out(["0" * 32] * 50, 0.05)) == 0  # all alike: nothing could be held out
    assert sum(held_out(_digests(0, 500), 0)) == 0
    assert sum(held_out([*_digests(0, 1), *["0" * 32] * 50], 0.05)) == 50


def test_copies_lie_on_one_side(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_good(root, 200)
    for number in range(200):
        Image.fromarray(pattern(number)).save(root / f"copy-{number:03}.webp", lossless=True)
    data = prepare(root, hold_out=0.2)
    held = {data.names[row] for row in data.held}
    assert 20 < len(held) < 140
    for number in range(200):
        assert (f"good-{number:03}.png" in held) == (f"copy-{number:03}.webp" in held)
    assert sorted([*data.train, *data.held]) == list(range(400))


def test_each_epoch_shows_each_picture_once_in_its_own_order() -> None:
    order = Order(101, seed=5)
    epochs = [order.at(range(101 * epoch, 101 * (epoch + 1))) for epoch in range(4)]
    assert all(sorted(epoch.tolist()) == list(range(101)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4
    assert not np.array_equal(Order(101, seed=6).at(range(101)), epochs[0])
    scattered = [307, 3, 101, 100, 0, 202, 3]
    fresh = Order(101, seed=5).at(scattered)
    assert fresh.tolist() == [int(epochs[p // 101][p % 101]) for p in scattered]
    with pytest.raises(DataError, match="positions start at 0"):
        order.at([-1])
    with pytest.raises(DataError, match="no pictures"):
        Order(0, seed=1)


@pytest.mark.parametrize("temper", [0.0, 0.5, 1.0])
def test_balanced_classes_are_drawn_as_often_as_said(temper: float) -> None:
    """Class shares over 200 epochs against count^temper, within the chi-square bound that independent draws
    would meet; every picture of a class is drawn alike."""
    counts = [900, 90, 9, 1]
    classes = np.repeat(np.arange(4), counts)
    shares = tempered(classes, temper)
    wanted = np.array(counts, float) ** temper
    wanted /= wanted.sum()
    assert np.allclose(np.bincount(classes, shares), wanted)
    order = Order(1000, 3, shares)
    drawn = np.concatenate([order.epoch(epoch) for epoch in range(200)])
    seen = np.bincount(classes[drawn], minlength=4)
    chi = float(((seen - 200_000 * wanted) ** 2 / (200_000 * wanted)).sum())
    assert chi < 16.3  # 3 degrees of freedom, p = 0.001
    each = np.bincount(drawn, minlength=1000)[:900]
    expected = 200_000 * shares[0]
    spread = float(((each - expected) ** 2 / expected).sum())
    assert spread < 899 + 5 * math.sqrt(2 * 899)
    for epoch in range(3):  # systematic: an epoch is never off by more than one for a picture
        times = np.bincount(order.epoch(epoch), minlength=1000)
        assert (np.abs(times - 1000 * shares) < 1 + 1e-9).all()


def test_balance_needs_classes_and_a_sane_number(tmp_path: Path) -> None:
    write_good(tmp_path / "data", 25)
    with pytest.raises(DataError, match="no classes to balance"):
        Batches(prepare(tmp_path / "data"), balance=0.5)
    with pytest.raises(DataError, match="between 0"):
        tempered(np.array([0, 1]), 2.0)


@pytest.fixture
def pictures(tmp_path: Path) -> DataSet:
    root = tmp_path / "pictures"
    for number in range(60):
        place = root / ("few" if number % 6 == 0 else "many")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pattern(number, 18)).save(place / f"{number:02}.png")
        (place / f"{number:02}.txt").write_text(f"first {number}\nsecond {number}\nthird {number}")
    return prepare(root, size=16, room=0.125)


ALL = Augment(flip=True, brightness=0.2, contrast=0.2, saturation=0.2)


def _same(a: Batch, b: Batch) -> bool:
    assert a.classes is not None
    assert b.classes is not None
    classes = torch.equal(a.classes, b.classes)
    return torch.equal(a.images, b.images) and classes and a.captions == b.captions and a.names == b.names


def test_batches_are_the_same_with_any_workers_and_after_any_restart(pictures: DataSet) -> None:
    make = lambda: Batches(pictures, seed=9, augment=ALL, balance=0.5)
    straight = make()
    reference = [straight.batch(range(7 * step, 7 * step + 7)) for step in range(40)]
    for workers in (0, 1, 4):
        for start in (0, 5, 23):
            stream = make().stream(7 * start, 7, workers=workers)
            for step in range(start, 40):
                assert _same(next(stream), reference[step])
            stream.close()  # type: ignore[attr-defined]
    whole = make().batch(range(28))
    parts = [make().batch(range(part, 28, 4)) for part in range(4)]  # other batches, other processes
    for part, batch in enumerate(parts):
        assert torch.equal(batch.images, whole.images[part::4])
    assert not torch.equal(
        Batches(pictures, seed=8, augment=ALL, balance=0.5).batch(range(28)).images, whole.images
    )


def test_a_batch_holds_what_it_says(pictures: DataSet) -> None:
    batches = Batches(pictures, seed=1)
    batch = batches.batch(range(len(pictures)))
    assert batch.images.dtype == torch.float32
    assert batch.images.shape == (len(pictures), 3, 16, 16)
    assert batch.classes is not None
    assert batch.captions is not None
    assert batch.positions == tuple(range(len(pictures)))
    kinds: set[str] = set()
    for image, label, caption, name in zip(batch.images, batch.classes, batch.captions, batch.names):
        folder, file = name.split("/")
        number = int(file.removesuffix(".png"))
        assert pictures.label_names[int(label)] == folder
        kind, _, told = caption.partition(" ")
        assert int(told) == number
        kinds.add(kind)
        row = pictures.names.index(name)
        stored = pictures.stored(np.array([row]))[0]
        bytes_of = ((image + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        places = [(y, x) for y in range(3) for x in range(3)]
        assert any(np.array_equal(bytes_of, stored[y : y + 16, x : x + 16]) for y, x in places)
    assert kinds == {"first", "second", "third"}


def test_the_held_out_part_is_fixed(pictures: DataSet) -> None:
    one, two = pictures.held_out(), pictures.held_out()
    assert len(one) == len(pictures.held) >= 1
    assert _same(one, two)
    assert one.captions is not None
    assert one.captions[0].startswith("first")
    row = int(pictures.held[0])
    middle = pictures.stored(np.array([row]))[0, 1:17, 1:17]
    assert np.array_equal(((one.images[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy(), middle)
    assert len(pictures.held_out(1)) == 1
    assert not set(one.names) & set(Batches(pictures).batch(range(len(pictures))).names)


def test_flips_and_crops_are_even() -> None:
    """Half are flipped, each of 3 x 3 places is cut equally often, and the draws of one do not tell the
    other's.
    """
    count = 9000
    stored = np.zeros((count, 18, 18, 1), np.uint8)
    stored[:] = np.arange(18 * 18).reshape(18, 18, 1) % 256
    drawn = augmentation.draws(4, range(count))
    cut = augmentation.place(stored, (16, 16), True, drawn)
    corners = cut[:, 0, 0, 0].astype(int), cut[:, 0, 15, 0].astype(int)
    flipped = corners[0] > corners[1]
    start = np.minimum(*corners)
    place = np.array(
        [{0: 0, 1: 1, 2: 2, 18: 3, 19: 4, 20: 5, 36: 6, 37: 7, 38: 8}[s] for s in start.tolist()]
    )
    cells = np.bincount(place + 9 * flipped, minlength=18)
    assert float(((cells - 500) ** 2 / 500).sum()) < 40.8  # 17 degrees of freedom, p = 0.001
    assert np.array_equal(augmentation.draws(4, range(50, 60)), drawn[50:60])


def test_colour_jitter_by_hand() -> None:
    seen = torch.tensor([0.2, 0.5, 0.7, 0.4, 0.6, 0.1]).reshape(1, 3, 1, 2)
    rows = np.array(
        [[0, 0, 0, 0.75, 0.5, 0.5], [0, 0, 0, 0.5, 0.0, 0.5], [0, 0, 0, 0.5, 0.5, 1.0]], np.float32
    )
    images = (seen * 2 - 1).repeat(3, 1, 1, 1)
    out = augmentation.colour(images, Augment(brightness=0.4, contrast=1.0, saturation=0.5), rows) / 2 + 0.5
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    assert torch.allclose(out[0], seen[0] * 1.2, atol=1e-6)
    luma = (seen[0] * weights).sum(0)
    assert torch.allclose(out[1], luma.mean().expand(3, 1, 2), atol=1e-6)
    assert torch.allclose(out[2], (luma + (seen[0] - luma) * 1.5).clamp(0, 1), atol=1e-6)
    clear = torch.cat([images, torch.full((3, 1, 1, 2), -0.3)], 1)
    assert torch.equal(augmentation.colour(clear, ALL, rows)[:, 3], clear[:, 3])
    grey = augmentation.colour(images[:, :1], Augment(saturation=1.0), rows)
    assert torch.allclose(grey, images[:, :1], atol=1e-6)
    with pytest.raises(DataError, match="contrast must lie between 0 and 1"):
        Augment(contrast=1.5)


class _Broken(np.ndarray):
    """Pixels on a disk that fails for one row."""

    def __getitem__(self, key: object) -> np.ndarray:
        if isinstance(key, np.ndarray) and 13 in key:
            raise OSError(5, "Input/output error")
        return np.asarray(super().__getitem__(key))  # type: ignore[call-overload]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_what_a_worker_raises_arrives_with_the_file_named(pictures: DataSet, workers: int) -> None:
    from dataclasses import replace

    row = 13
    broken = replace(
        pictures, pixels=np.array(pictures.pixels).view(_Broken), train=np.arange(60), held=np.arange(0)
    )
    batches = Batches(broken, seed=2)
    where = batches.order.epoch(0).tolist().index(row)
    stream = batches.stream(0, 4, workers=workers)
    for _ in range(where // 4):
        next(stream)
    with pytest.raises(DataError, match=pictures.names[row]):
        next(stream)


@pytest.mark.timeout(30)
def test_leaving_early_ends_the_workers(pictures: DataSet) -> None:
    import threading

    before = threading.active_count()
    for _ in range(5):
        stream = Batches(pictures, augment=ALL).stream(0, 8, workers=3)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    finite = list(Batches(pictures).each([range(3), range(3, 5)], workers=2))
    assert [len(batch) for batch in finite] == [3, 2]
    with pytest.raises(DataError, match="size of at least 1"):
        Batches(pictures).stream(0, 0)


def test_sixteen_bits_and_alpha_reach_the_batch(tmp_path: Path) -> None:
    deep = np.arange(25 * 64, dtype=np.uint16).reshape(25, 8, 8) * 41
    np.savez(tmp_path / "deep.npz", images=deep)
    data = prepare(tmp_path / "deep.npz", hold_out=0)
    batch = Batches(data).batch(range(25))
    rows = [data.names.index(name) for name in batch.names]
    assert torch.allclose(batch.images[:, 0], torch.from_numpy(deep[rows] / 32767.5 - 1).float(), atol=1e-6)


def test_batches_are_fast_enough() -> None:
    """Far below what an idle machine does (170,000 a second), since the suite runs on busy ones."""
    root = np.zeros((4000, 32, 32, 3), np.uint8)
    many = DataSet(
        "many", root, (32, 32), np.arange(4000), np.arange(0), None, (), None,
        tuple(map(str, range(4000))), ({},) * 4000, ("",) * 4000, (), (), (), "",
    )  # fmt: skip
    stream = Batches(many).stream(0, 64)
    next(stream)
    best = math.inf
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(20):
            next(stream)
        best = min(best, time.perf_counter() - began)
    assert 20 * 64 / best > 20_000
