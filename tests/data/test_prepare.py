"""From a source to a data set: what is chosen from the data, the cache, and two processes at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corpora.images import pattern, saved, write_good
from sfumato.data import cache, decode
from sfumato.data.dataset import to_unit
from sfumato.data.fit import digest, fit, plain
from sfumato.data.prepare import prepare
from sfumato.data.size import choose_size
from sfumato.errors import DataError


def _save(root: Path, *arrays: np.ndarray, form: str = "png") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for number, a in enumerate(arrays):
        Image.fromarray(a).save(root / f"{number:03}.{form}")
    return root


def _noise(*shape: int) -> np.ndarray:
    return (
        np.arange(np.prod(shape))
        .reshape(shape)
        .astype(np.uint32)
        .__mul__(2654435761)
        .__rshift__(13)
        .astype(np.uint8)
    )


def test_the_bundled_digits() -> None:
    digits = prepare("digits")
    assert digits.shape == (1, 28, 28)
    assert digits.label_names == tuple("0123456789")
    assert len(digits) + len(digits.held) == 10_000
    assert 400 < len(digits.held) < 600
    assert digits.labels is not None
    assert digits.labels[:2].tolist() == [3, 8]
    whole = digits.images(range(50))
    assert float(whole.min()) == -1.0
    assert float(whole.max()) == 1.0


def test_channels_and_depth_come_from_the_data(tmp_path: Path) -> None:
    grey, colour = _noise(8, 8), _noise(8, 8, 3)
    clear = np.concatenate([colour, grey[..., None]], axis=2)
    opaque = np.concatenate([colour, np.full((8, 8, 1), 255, np.uint8)], axis=2)
    grey_rgb = np.repeat(grey[..., None], 3, axis=2)
    deep = _noise(8, 8).astype(np.uint16) * 200
    cases = {
        "grey": ([grey, grey.T.copy()], 1, "uint8"),
        "grey as colour": ([grey, grey_rgb], 1, "uint8"),
        "colour": ([grey, colour], 3, "uint8"),
        "opaque": ([opaque, opaque], 3, "uint8"),
        "half clear": ([clear, colour], 4, "uint8"),
        "few clear": ([clear, colour, opaque], 3, "uint8"),
        "deep": ([deep, grey], 1, "uint16"),
        "deep and colour": ([deep, colour], 3, "uint16"),
    }
    for name, (arrays, channels, kind) in cases.items():
        data = prepare(_save(tmp_path / name, *arrays))
        assert (data.channels, data.pixels.dtype.name) == (channels, kind), name
    few = prepare(tmp_path / "few clear")
    alpha = clear[..., 3:].astype(float) / 255
    assert np.abs(few.pixels[0] - (colour * alpha + 255 * (1 - alpha))).max() <= 0.51
    assert np.array_equal(few.pixels[1], colour)
    deep_data = prepare(tmp_path / "deep")
    assert np.array_equal(deep_data.pixels[0, ..., 0], deep)
    assert np.array_equal(deep_data.pixels[1, ..., 0], grey.astype(np.uint16) * 257)
    assert np.allclose(deep_data.images([1])[0, 0].numpy(), grey / 127.5 - 1, atol=1e-6)
    four = prepare(tmp_path / "colour", channels=4)
    assert bool((four.pixels[..., 3] == 255).all())
    luma = prepare(tmp_path / "colour", channels=1).pixels[1, ..., 0]
    assert np.abs(luma - colour @ np.array([0.299, 0.587, 0.114])).max() <= 0.51


@pytest.mark.parametrize("channels", [3, 4])
def test_deep_colour_from_an_array_keeps_its_channels_and_depth(tmp_path: Path, channels: int) -> None:
    deep = np.stack([_noise(8, 8, channels), _noise(8, 8, channels)[::-1]]).astype(np.uint16) * 200
    np.savez(tmp_path / "deep.npz", images=deep)
    data = prepare(tmp_path / "deep.npz", hold_out=0)
    assert (data.channels, data.pixels.dtype.name) == (channels, "uint16")
    assert np.array_equal(data.pixels, deep)


@pytest.mark.parametrize(
    ("sizes", "multiple", "size"),
    [
        ([(28, 28)] * 3, 1, (28, 28)),
        ([(28, 28)] * 3, 8, (32, 32)),
        ([(32, 48)] * 3, 8, (32, 48)),
        ([(480, 640)] * 3, 8, (48, 64)),
        ([(64, 64)] * 3, 48, (48, 48)),
        ([(300, 200), (40, 45), (50, 70)], 1, (64, 64)),
        ([(30, 30), (40, 33), (17, 70)], 8, (32, 32)),
        ([(5, 6), (6, 5)], 8, (8, 8)),
        ([(1, 1)], 1, (1, 1)),
    ],
)
def test_the_size_comes_from_the_data(
    sizes: list[tuple[int, int]], multiple: int, size: tuple[int, int]
) -> None:
    assert choose_size(sizes, multiple) == size


def test_shapes_are_met_as_asked() -> None:
    """A picture of three vertical stripes, red, green, blue, brought to a square."""
    stripes = np.repeat(np.eye(3, dtype=np.uint8) * 255, 20, axis=0)[None].repeat(20, axis=0)
    crop = fit(stripes, (20, 20), "crop", 3, False)
    assert np.array_equal(crop, stripes[:, 20:40])
    stretch = fit(stripes, (20, 30), "stretch", 3, False)
    assert [int(stretch[10, x].argmax()) for x in (4, 15, 25)] == [0, 1, 2]
    tall = fit(stripes.swapaxes(0, 1), (20, 20), "crop", 3, False)
    assert np.array_equal(tall, stripes[:, 20:40].swapaxes(0, 1))
    framed = np.full((20, 60, 3), 9, np.uint8)
    framed[8:12, 20:40] = 200
    pad = fit(framed, (60, 60), "pad", 3, False)
    assert np.array_equal(pad[20:40], framed)
    assert bool((pad[:20] == 9).all())
    assert bool((pad[40:] == 9).all())
    clear = fit(np.full((2, 4, 4), 255, np.uint8), (4, 4), "pad", 4, False)
    assert clear[:, 0, 3].tolist() == [0, 255, 255, 0]


def test_shrinking_is_an_average_and_transparent_colours_do_not_bleed() -> None:
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    assert np.abs(fit(checks, (8, 8), "crop", 1, False).astype(int) - 127).max() <= 2
    deep = (checks.astype(np.uint16) * 257)[:, :, :1]
    assert np.abs(fit(deep, (8, 8), "crop", 1, True).astype(int) - 32_767).max() <= 300
    hidden = np.zeros((32, 32, 4), np.uint8)
    hidden[..., 0] = 255  # red, but not seen
    hidden[:, 16:] = (0, 0, 255, 255)
    seen = fit(hidden, (8, 8), "crop", 4, False)
    assert int(seen[seen[..., 3] > 20][:, 0].max()) <= 2


def test_plain_pictures_and_their_hash() -> None:
    grey = _noise(4, 4, 1)
    alike = [grey, np.repeat(grey, 3, 2), np.dstack([grey, np.full_like(grey, 255)]),
             np.dstack([grey, grey, grey, np.full_like(grey, 255)])]  # fmt: skip
    assert len({digest(a) for a in alike}) == 1
    assert all(plain(a).shape[2] == 1 for a in alike)
    half = np.dstack([grey, np.full_like(grey, 128)])
    assert len({digest(grey), digest(half), digest(grey.T.copy()), digest(grey.astype(np.uint16))}) == 4


def test_a_second_opening_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    write_good(root, 30)
    first = prepare(root)
    calls: list[Path] = []
    monkeypatch.setattr(decode, "decode", lambda path: calls.append(path))
    monkeypatch.setattr(decode, "probe", lambda path: calls.append(path))
    second = prepare(root)
    assert (first.reused, second.reused) == (False, True)
    assert not calls
    assert second.fingerprint == first.fingerprint
    assert np.array_equal(first.pixels, second.pixels)
    assert not second.pixels.flags.writeable


def test_what_changes_is_decoded_again(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_good(root, 30)
    first = prepare(root)
    (root / "good-000.png").write_bytes(saved(pattern(99), "PNG"))
    changed = prepare(root)
    assert not changed.reused
    assert changed.fingerprint != first.fingerprint
    assert np.array_equal(changed.pixels[0], pattern(99))
    (root / "good-000.txt").write_text("a caption")
    captioned = prepare(root)
    assert captioned.captions is not None
    assert captioned.fingerprint != changed.fingerprint
    assert prepare(root, size=16).shape == (3, 16, 16)
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    assert prepare(moved).fingerprint == captioned.fingerprint


@pytest.mark.parametrize("damage", ["cut", "gone", "noise", "version"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, own_cache: Path, damage: str) -> None:
    root = tmp_path / "data"
    write_good(root, 10)
    first = prepare(root)
    pixels = np.array(first.pixels)
    (folder,) = own_cache.iterdir()
    manifest = folder / "manifest.json"
    if damage == "cut":
        os.truncate(folder / "pixels.bin", 100)
    elif damage == "gone":
        manifest.unlink()
    elif damage == "noise":
        manifest.write_text("{")
    else:
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 0}))
    again = prepare(root)
    assert not again.reused
    assert np.array_equal(again.pixels, pixels)
    assert [path.name for path in own_cache.iterdir()] == [folder.name]


def test_a_full_disk_and_a_place_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    write_good(root, 10)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="SFUMATO_CACHE"):
        prepare(root, cache=tmp_path / "file")
    none = shutil._ntuple_diskusage(100, 100, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: none)
    with pytest.raises(DataError, match=r"need 1 MB in .* where 0 MB are free"):
        prepare(root, cache=tmp_path / "full")
    assert not list((tmp_path / "full").iterdir())


def test_what_a_killed_process_left_is_swept(tmp_path: Path, own_cache: Path) -> None:
    """What is not ours stays, however old: a cache may stand in a folder of other things (`--cache .`)."""
    old, young = own_cache / f"{cache.UNFINISHED}old-1", own_cache / f"{cache.UNFINISHED}young-1"
    foreign = own_cache / ".git"
    for left in (old, young, foreign):
        left.mkdir(parents=True)
        (left / "pixels.bin").write_bytes(b"x")
    for left in (old, foreign):
        os.utime(left, (time.time() - 2 * 24 * 3600,) * 2)
    write_good(tmp_path / "data", 3)
    prepare(tmp_path / "data")
    assert not old.exists()
    assert young.exists()
    assert (foreign / "pixels.bin").exists()


def _in_a_process(root: str, place: str, gate: object, out: object) -> None:
    gate.wait()  # type: ignore[attr-defined]
    data = prepare(root, cache=Path(place))
    out.put((data.fingerprint, int(np.asarray(data.pixels).sum())))  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_two_processes_at_once(tmp_path: Path) -> None:
    write_good(tmp_path / "data", 200)
    context = multiprocessing.get_context("spawn")
    gate, out = context.Barrier(2), context.Queue()
    arguments = (str(tmp_path / "data"), str(tmp_path / "shared"), gate, out)
    both = [context.Process(target=_in_a_process, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    answers = [out.get(timeout=100) for _ in both]
    for process in both:
        process.join(30)
        assert process.exitcode == 0
    assert answers[0] == answers[1]
    assert len(list((tmp_path / "shared").iterdir())) == 1


def test_the_loser_of_a_race_leaves_the_winner_alone(tmp_path: Path) -> None:
    """A cache that appears while ours is being built stays as it is."""

    def manifest(value: int, into: Path) -> dict[str, object]:
        (into / "pixels.bin").write_bytes(bytes([value]) * 4)
        return {"version": cache.VERSION, "shape": [1, 2, 2, 1], "dtype": "uint8", "value": value}

    def slow(into: Path) -> dict[str, object]:
        cache.write(tmp_path / "c", 0, lambda other: manifest(1, other))
        return manifest(2, into)

    cache.write(tmp_path / "c", 0, slow)
    found = cache.read(tmp_path / "c")
    assert found is not None
    assert found[1]["value"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_bad_picture_leaves_no_trace_in_the_good_ones(tmp_path: Path) -> None:
    """Its size, depth and colours count for nothing, even when only decoding shows that it is bad."""
    for name in ("clean", "mixed"):
        _save(tmp_path / name, *(np.full((20, 20), v, np.uint8) for v in range(40)))
    cut = saved(Image.fromarray(_noise(300, 200, 3)), "PNG")
    (tmp_path / "mixed" / "zz.png").write_bytes(cut[: len(cut) // 2])
    deep = saved(Image.fromarray(_noise(50, 50).astype(np.uint16) * 250), "PNG")
    (tmp_path / "mixed" / "zzz.png").write_bytes(deep[: len(deep) // 2])
    clean, mixed = (prepare(tmp_path / name) for name in ("clean", "mixed"))
    assert len(mixed.bad) == 2
    assert mixed.fingerprint == clean.fingerprint
    assert np.array_equal(mixed.pixels, clean.pixels)


def test_progress_and_threads_change_nothing(tmp_path: Path) -> None:
    write_good(tmp_path / "data", 100)
    told: list[tuple[int, int]] = []
    one = prepare(tmp_path / "data", workers=1, cache=tmp_path / "a", progress=lambda *at: told.append(at))
    many = prepare(tmp_path / "data", workers=5, cache=tmp_path / "b")
    assert told == [(32, 100), (64, 100), (96, 100), (100, 100)]
    assert np.array_equal(one.pixels, many.pixels)
    assert one.fingerprint == many.fingerprint


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        ({"size": 30, "multiple": 8}, "divisible by 8 on both sides, for example 32 x 32"),
        ({"size": (32, 0)}, "has no pixels: give sides from 1"),
        ({"channels": 2}, "1 .* 3 .* 4 .* channels, not 2"),
        ({"resize": "squash"}, "crop, stretch or pad|Type-check"),
        ({"hold_out": 0.7}, "between 0 and 0.5"),
        ({"room": -0.1}, "between 0 and 1"),
        ({"limit_bad": 5.0}, "between 0 and 1"),
        ({"multiple": 0}, "from 1"),
    ],
)
def test_wishes_that_cannot_be_met(tmp_path: Path, wish: dict[str, object], reason: str) -> None:
    write_good(tmp_path / "data", 3)
    with pytest.raises((DataError, TypeError), match=reason):
        prepare(tmp_path / "data", **wish)  # type: ignore[arg-type]


def test_values_are_exact_at_both_ends() -> None:
    for kind in (np.uint8, np.uint16):
        most = int(np.iinfo(kind).max)
        values = to_unit(np.array([0, most // 3, most], kind).reshape(1, 1, 3, 1)).flatten()
        assert values[[0, 2]].tolist() == [-1.0, 1.0]
        assert abs(float(values[1]) - (2 * (most // 3) / most - 1)) < 1e-7


def test_rows_outside_are_refused(tmp_path: Path) -> None:
    write_good(tmp_path / "data", 3)
    data = prepare(tmp_path / "data")
    for rows in ([3], [-1], [0, 99]):
        with pytest.raises(DataError, match="rows of data go from 0 to 2"):
            data.images(rows)
    assert data.images([]).shape == (0, 3, 32, 32)
    with pytest.raises(DataError, match="no picture of data is held out"):
        data.held_out()
    assert "no picture is held out" in data.notes[-1]
