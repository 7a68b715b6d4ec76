"""Pictures as files: the numbers, the texts in a PNG, grids and films; Pillow is the other reader."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sfumato.errors import ImageFileError
from sfumato.files.pictures import grid, read_recipe, to_bytes, write_film, write_png
from sfumato.files.png import SIGNATURE, encode_png

ORIGIN = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def test_every_byte_comes_back_and_halves_are_rounded_not_cut() -> None:
    levels = torch.arange(256, dtype=torch.float64)
    image = (levels / 255 * 2 - 1).reshape(1, 16, 16)
    assert to_bytes(image).ravel().tolist() == list(range(256))
    assert to_bytes(image.float()).ravel().tolist() == list(range(256))
    shifted = ((levels + 0.4) / 255 * 2 - 1).reshape(1, 16, 16)
    assert to_bytes(shifted).ravel().tolist() == list(range(256))
    assert to_bytes(torch.tensor([[[-7.0, -1.0, 0.0, 1.0, 1.5]]])).tolist() == [[0, 0, 128, 255, 255]]
    deep = to_bytes(torch.linspace(-1, 1, 65536, dtype=torch.float64).reshape(1, 256, 256), deep=True)
    assert deep.dtype == np.uint16
    assert deep.ravel().tolist() == list(range(65536))


def test_channels_go_last_and_grey_loses_its_own() -> None:
    image = torch.stack([torch.full((2, 3), value) for value in (-1.0, 0.0, 1.0, -1.0)])
    assert to_bytes(image).shape == (2, 3, 4)
    assert to_bytes(image)[0, 0].tolist() == [0, 128, 255, 0]
    assert to_bytes(image[:3]).shape == (2, 3, 3)
    assert to_bytes(image[:1]).shape == (2, 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_named_and_never_becomes_black(value: float) -> None:
    image = torch.zeros(3, 4, 4)
    image[1, 2, 3] = value
    assert image.to(torch.uint8)[1, 2, 3] in (0, 255)  # bites: the cast says nothing
    with pytest.raises(ImageFileError, match="1 of 48 values that are NaN or infinite"):
        to_bytes(image)
    with pytest.raises(ImageFileError, match="cannot be shown"):
        to_bytes(torch.zeros(5, 4, 4))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([0, 1, 2, 3, 4]),
    data=st.binary(min_size=9 * 9 * 4, max_size=9 * 9 * 4),
)
def test_pillow_reads_the_same_pixels(height: int, width: int, channels: int, data: bytes) -> None:
    shape = (height, width, channels) if channels else (height, width)
    pixels = np.frombuffer(data, np.uint8)[: int(np.prod(shape))].reshape(shape)
    with Image.open(io.BytesIO(encode_png(pixels, {"a": "b"}))) as read:
        read.load()
        assert read.mode == {0: "L", 1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        assert np.array_equal(np.asarray(read).reshape(shape), pixels)
        assert read.text == {"a": "b"}


def test_sixteen_bits_are_kept_and_smooth_pictures_are_packed_well() -> None:
    y, x = np.mgrid[0:128, 0:128]
    deep = (y * 400 + x * 100).astype(np.uint16)
    with Image.open(io.BytesIO(encode_png(deep, {}))) as read:
        assert np.array_equal(np.asarray(read).astype(np.uint16), deep)
    smooth = np.stack([y, x, (x + y) // 2], axis=2).astype(np.uint8)
    peer = io.BytesIO()
    Image.fromarray(smooth).save(peer, "PNG")
    assert len(encode_png(smooth, {})) < 1.3 * len(peer.getvalue())


def test_a_png_says_how_it_was_made_and_that_a_model_made_it(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    recipe = {"seed": 2**62, "sampler": "ddim", "names": ["caf\u00e9", "\u6c34"], "guidance": 7.5}
    parameters = "a cat, sm\u00f6rg\u00e5s\nNegative prompt: blurry\nSteps: 20, Seed: 123"
    write_png(path, np.zeros((4, 5, 3), np.uint8), parameters=parameters, recipe=recipe)
    assert read_recipe(path) == recipe
    with Image.open(path) as read:
        assert read.text["parameters"] == parameters
        assert json.loads(read.text["sfumato"]) == recipe
        assert read.text["Software"] == "Sfumato"
        assert ORIGIN in read.text["XML:com.adobe.xmp"]
        assert read.size == (5, 4)
    first = path.read_bytes()
    write_png(path, np.zeros((4, 5, 3), np.uint8), parameters=parameters, recipe=recipe)
    assert path.read_bytes() == first
    write_png(path, np.zeros((4, 5), np.uint8), parameters="\u6c34 with 16 \u00b0C")
    with Image.open(path) as read:
        assert read.text["parameters"] == "\u6c34 with 16 \u00b0C"
    with pytest.raises(ImageFileError, match="no recipe"):
        read_recipe(path)


def test_a_recipe_is_found_after_another_program_saved_the_picture(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    write_png(tmp_path / "x.png", np.zeros((4, 5, 3), np.uint8), recipe={"seed": 1})
    with Image.open(tmp_path / "x.png") as read:
        kept = PngInfo()
        kept.add_itxt("sfumato", read.text["sfumato"])
        read.save(tmp_path / "y.png", pnginfo=kept)
    assert read_recipe(tmp_path / "y.png") == {"seed": 1}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


END = chunk(b"IEND", b"")
HOSTILE = {
    "empty": b"",
    "jpeg": b"\xff\xd8\xff\xe0" + b"\0" * 40,
    "signature only": SIGNATURE,
    "no end": SIGNATURE + chunk(b"tEXt", b"sfumato\0{}"),
    "long": SIGNATURE + struct.pack(">I4s", 2**31, b"tEXt"),
    "bad checksum": SIGNATURE + chunk(b"tEXt", b"sfumato\0{}")[:-1] + b"x" + END,
    "two recipes": SIGNATURE + chunk(b"tEXt", b"sfumato\0{}") * 2 + END,
    "list": SIGNATURE + chunk(b"tEXt", b"sfumato\0[]") + END,
    "NaN": SIGNATURE + chunk(b"tEXt", b'sfumato\0{"a":NaN}') + END,
    "key twice": SIGNATURE + chunk(b"tEXt", b'sfumato\0{"a":1,"a":2}') + END,
    "bomb": SIGNATURE + chunk(b"zTXt", b"sfumato\0\0" + zlib.compress(b" " * 50_000_000)) + END,
    "packed": SIGNATURE + chunk(b"iTXt", b"sfumato\0\1\0\0\0" + zlib.compress(b"{}")) + END,
    "too long": SIGNATURE + chunk(b"tEXt", b'sfumato\0{"a":"' + b"x" * 70_000 + b'"}') + END,
    "many chunks": SIGNATURE + chunk(b"abCd", b"") * 100_001 + END,
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_png_is_refused_with_its_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(ImageFileError) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ImageFileError):
        read_recipe(tmp_path / "absent.png")


def test_texts_that_a_png_cannot_hold_are_not_written(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2), np.uint8)
    with pytest.raises(ImageFileError, match="NUL"):
        write_png(tmp_path / "x.png", pixels, parameters="a\0b")
    with pytest.raises(ImageFileError, match="longer than"):
        write_png(tmp_path / "x.png", pixels, recipe={"a": "x" * 70_000})
    with pytest.raises(ImageFileError, match="no PNG"):
        write_png(tmp_path / "x.png", np.zeros((2, 2, 5), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_a_grid_puts_each_picture_in_its_place() -> None:
    pictures = [np.full((2, 3, 3), value, np.uint8) for value in (10, 20, 30, 40, 50)]
    whole = grid(pictures, 3, gap=1)
    assert whole.shape == (5, 11, 3)
    assert whole[:2, 4:7].min() == whole[:2, 4:7].max() == 20
    assert whole[3:, :3].min() == whole[3:, :3].max() == 40
    assert whole[3:, 8:].max() == 0
    assert whole[2].max() == 0
    assert np.array_equal(grid(pictures[:1], 8), pictures[0])
    for wrong in (
        [],
        [pictures[0], np.zeros((2, 2, 3), np.uint8)],
        [pictures[0], pictures[0].astype(np.uint16)],
    ):
        with pytest.raises(ImageFileError):
            grid(wrong, 2)


@pytest.mark.parametrize("ending", ["webp", "gif", "png", "apng"])
def test_a_film_has_its_frames_its_time_and_its_mark(tmp_path: Path, ending: str) -> None:
    frames = [np.full((8, 8, 3), value, np.uint8) for value in (0, 120, 250)]
    path = tmp_path / f"film.{ending}"
    write_film(path, frames, 40)
    assert ORIGIN.encode() in path.read_bytes()
    with Image.open(path) as film:
        assert film.n_frames == 3
        for number, frame in enumerate(frames):
            film.seek(number)
            assert np.array_equal(np.asarray(film.convert("RGB")), frame)
            assert film.info["duration"] == 40
    deep = [(np.full((8, 8), value, np.uint16) << 8) for value in (7, 77)]
    write_film(path, deep, 40)
    with Image.open(path) as film:
        film.seek(1)
        assert np.asarray(film.convert("L")).max() == 77


def test_a_film_of_unlike_frames_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    frame = np.zeros((4, 4, 3), np.uint8)
    for path, frames, ms in (
        (tmp_path / "x.mp4", [frame], 40),
        (tmp_path / "x.gif", [], 40),
        (tmp_path / "x.gif", [frame, frame[:2]], 40),
        (tmp_path / "x.gif", [frame], 0),
    ):
        with pytest.raises(ImageFileError, match="x"):
            write_film(path, frames, ms)
    assert list(tmp_path.iterdir()) == []
