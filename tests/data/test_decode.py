"""The one door for pictures: rows B1 and B3 of the reliability plan, file by file."""

from __future__ import annotations

import io
import os
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corpora.images import bad_pictures, chunk, odd_but_good, pattern, saved
from sfumato.data.decode import Picture, decode, probe, shown
from sfumato.errors import ImageFileError
from sfumato.noise import key_of

BAD = bad_pictures()
GOOD = odd_but_good()


def test_there_are_enough_bad_kinds() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_one_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(BAD[name])
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for source in (path, BAD[name]):
            with pytest.raises(ImageFileError) as refused:
                decode(source)
    assert time.monotonic() - began < 2
    assert not heard
    with pytest.raises(ImageFileError) as refused:
        decode(path)
    sentence = str(refused.value)
    assert name in sentence
    assert "\n" not in sentence
    assert 20 < len(sentence.replace(str(tmp_path), "")) < 400


def test_these_files_bite() -> None:
    """A decoder that minds OSError alone, as most do, lets other things escape, and takes the bombs."""
    escaped: set[str] = set()
    for content in BAD.values():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = Image.open(io.BytesIO(content))
                if image.size[0] * image.size[1] < 64_000_000:
                    image.convert("RGB")
        except OSError:
            pass
        except Exception as error:
            escaped.add(type(error).__name__)
    assert {"ValueError", "DecompressionBombError"} <= escaped


@pytest.mark.parametrize("name", GOOD)
def test_an_odd_picture_is_read(name: str) -> None:
    picture = decode(GOOD[name])
    header = probe(GOOD[name])
    assert (header.height, header.width) == picture.array.shape[:2]
    assert picture.array.shape[:2] == (32, 32)
    if name.startswith("moving"):
        assert np.array_equal(picture.array, pattern(5)) or (
            name.endswith("gif") and np.abs(picture.array.astype(int) - pattern(5)).mean() < 30
        )


def test_changed_bytes_never_raise_anything_else() -> None:
    """2,000 files with a few bytes changed: read or refused, nothing else, no warning."""
    wholes = [*GOOD.values(), saved(pattern(9), "TIFF"), saved(pattern(9), "BMP"), saved(pattern(9), "WEBP")]
    kinds = {"read": 0, "refused": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(2000):
            content = bytearray(wholes[number % len(wholes)])
            for change in range(1 + number % 4):
                key = key_of("mutation", number, change)
                reach = len(content) if number % 2 else min(200, len(content))
                content[key % reach] = (key >> 40) % 256
            try:
                decode(bytes(content), max_pixels=4_000_000)
                kinds["read"] += 1
            except ImageFileError:
                kinds["refused"] += 1
    assert kinds["read"] > 200
    assert kinds["refused"] > 200


HALF = np.array([[0, 255], [128, 64]], np.uint8)
RED = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], np.uint8)


def _palette(transparent: bool) -> bytes:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return saved(image, "PNG", **({"transparency": 1} if transparent else {}))


def _with_alpha(colour: np.ndarray, *alpha: int) -> np.ndarray:
    a = colour.reshape(2, 2, -1)
    return np.concatenate([a, np.array(alpha, np.uint8).reshape(2, 2, 1)], axis=2)


P = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]], np.uint8)
CMYK = np.array([[[0, 0, 0, 0], [255, 0, 0, 0]], [[0, 255, 255, 0], [0, 0, 0, 255]]], np.uint8)
CMYK_SEEN = np.array([[[255, 255, 255], [0, 255, 255]], [[255, 0, 0], [0, 0, 0]]], np.uint8)
LA = _with_alpha(HALF, 0, 255, 7, 128)
RGBA = _with_alpha(RED, 0, 255, 7, 128)
TRUTH = {
    "1": (saved(Image.fromarray(HALF > 100), "PNG"), "L", (HALF > 100)[..., None] * 255),
    "1 tiff": (saved(Image.fromarray(HALF > 100), "TIFF"), "L", (HALF > 100)[..., None] * 255),
    "L": (saved(HALF, "PNG"), "L", HALF[..., None]),
    "L bmp": (saved(HALF, "BMP"), "L", HALF[..., None]),
    "L tRNS": (saved(HALF, "PNG", transparency=128), "LA", _with_alpha(HALF, 255, 255, 0, 255)),
    "LA": (saved(Image.fromarray(LA), "PNG"), "LA", LA),
    "P": (_palette(False), "RGB", P),
    "P tRNS": (_palette(True), "RGBA", _with_alpha(P, 255, 0, 255, 0)),
    "RGB": (saved(RED, "PNG"), "RGB", RED),
    "RGB tRNS": (saved(RED, "PNG", transparency=(10, 20, 30)), "RGBA", _with_alpha(RED, 255, 255, 255, 0)),
    "RGB webp": (saved(RED, "WEBP", lossless=True), "RGB", RED),
    "RGBA": (saved(RGBA, "PNG"), "RGBA", RGBA),
    "RGBA webp": (saved(RGBA, "WEBP", lossless=True, exact=True), "RGBA", RGBA),
    "RGBA tiff": (saved(RGBA, "TIFF"), "RGBA", RGBA),
    "CMYK tiff": (saved(Image.frombytes("CMYK", (2, 2), CMYK.tobytes()), "TIFF"), "RGB", CMYK_SEEN),
}


@pytest.mark.parametrize("kind", TRUTH)
def test_pixels_are_what_was_written(kind: str) -> None:
    content, mode, seen = TRUTH[kind]
    picture = decode(content)
    assert picture.mode == mode
    assert picture.array.dtype == np.uint8
    visible = seen[..., -1:] > 0 if seen.shape[2] in (2, 4) else np.ones((2, 2, 1), bool)
    difference = np.abs(picture.array.astype(int) - seen.astype(int))
    assert int((difference[..., :-1] * visible).max(initial=0)) <= 1
    assert int(difference[..., -1].max()) <= 1
    header = probe(content)
    assert (header.mode, header.width, header.height) == (mode, 2, 2)


@pytest.mark.parametrize(
    ("kind", "colour"), [("RGB", (200, 30, 90)), ("YCbCr", (120, 90, 160)), ("CMYK", (20, 200, 90, 0))]
)
def test_jpeg_colours(kind: str, colour: tuple[int, ...]) -> None:
    """A flat JPEG, so that only the conversion counts; CMYK is (255 - c)(255 - k) / 255."""
    image = Image.new(kind, (16, 16), colour)
    seen = np.asarray(image.convert("RGB"))[0, 0].astype(int)
    form = "TIFF" if kind == "YCbCr" else "JPEG"
    array = decode(saved(image, form, **({} if form == "TIFF" else {"quality": 100}))).array
    assert array.shape == (16, 16, 3)
    assert np.abs(array.astype(int) - seen).max() <= 2
    if kind == "CMYK":
        assert np.abs(seen - np.array([235, 55, 165])).max() <= 1


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_stay(form: str) -> None:
    deep = np.array([[0, 1, 255], [256, 40_000, 65_535]], np.uint16)
    picture = decode(saved(Image.fromarray(deep), form))
    assert picture.mode == "I;16"
    assert picture.array.dtype == np.uint16
    assert np.array_equal(picture.array[..., 0], deep)


def test_sixteen_bits_whatever_the_byte_order_and_the_meaning_of_zero() -> None:
    deep = np.array([[0, 1, 255], [256, 40_000, 65_535]], np.uint16)
    big = saved(Image.frombytes("I;16B", (3, 2), deep.astype(">u2").tobytes()), "TIFF")
    assert np.array_equal(decode(big).array[..., 0], deep)
    white_is_zero = saved(Image.fromarray(65_535 - deep), "TIFF")
    where = white_is_zero.index((262).to_bytes(2, "little") + b"\x03\0\x01\0\0\0") + 8
    changed = white_is_zero[:where] + b"\0" + white_is_zero[where + 1 :]
    assert np.array_equal(decode(changed).array[..., 0], deep)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(form: str, orientation: int) -> None:
    """The corner that EXIF 2.3 calls row 0, column 0 ends up where the standard says, in every format."""
    # the 0th row is the visual side, the 0th column is the visual side (EXIF 2.3, table for tag 274)
    row_side, column_side = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[orientation]  # fmt: skip
    stored = np.full((32, 48, 3), 128, np.uint8)
    stored[:16] = (255, 0, 0)
    stored[:16, :16] = (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(
        form, {}
    )
    content = saved(stored, form, exif=exif, **options)
    seen = decode(content).array.astype(int)
    assert seen.shape == ((48, 32, 3) if orientation >= 5 else (32, 48, 3))
    header = probe(content)
    assert (header.height, header.width) == seen.shape[:2]
    corner = {"top": 0, "bottom": -1, "left": 0, "right": -1}
    upright = orientation < 5
    y, x = (corner[row_side], corner[column_side]) if upright else (corner[column_side], corner[row_side])
    assert np.abs(seen[y, x] - (0, 0, 255)).max() < 12
    far = (y, -1 - x) if upright else (-1 - y, x)
    assert np.abs(seen[far] - (255, 0, 0)).max() < 12
    assert np.abs(seen[-1 - y, -1 - x] - 128).max() < 12


def test_profiles_and_gamma_leave_the_numbers_alone() -> None:
    plain = saved(RED, "PNG")
    gamma = plain[:33] + chunk(b"gAMA", (100_000).to_bytes(4, "big")) + plain[33:]  # behind the first chunk
    with Image.open(io.BytesIO(gamma)) as image:
        assert image.info["gamma"] == 1.0
    for content in (gamma, saved(RED, "PNG", icc_profile=b"a profile"), saved(RED, "TIFF", icc_profile=b"x")):
        assert np.array_equal(decode(content).array, RED)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_numbers_without_a_range_are_refused_by_name(mode: str) -> None:
    with pytest.raises(ImageFileError, match="floating-point" if mode == "F" else "32-bit integer"):
        decode(saved(Image.new(mode, (4, 4)), "TIFF"))


def test_the_cap_is_checked_before_decoding() -> None:
    content = saved(np.zeros((100, 100), np.uint8), "PNG")
    with pytest.raises(ImageFileError, match="100 x 100 pixels, more than 9,999"):
        decode(content, max_pixels=9_999)
    assert decode(content, max_pixels=10_000).array.shape == (100, 100, 1)


@pytest.mark.skipif(os.name == "nt", reason="pipes and links of a Unix")
@pytest.mark.timeout(20)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "ring.png").symlink_to(tmp_path / "ring.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    reasons = {
        "pipe": "not an ordinary file",
        "zero": "not an ordinary file",
        "broken": "link leads nowhere",
        "ring": "link",
        "folder": "is a folder",
        "absent": "no such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(ImageFileError, match=f"{name}.png cannot be used as a picture: .*{reason}"):
            decode(tmp_path / f"{name}.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "good.png")
    (tmp_path / "good.png").write_bytes(saved(pattern(1), "PNG"))
    assert np.array_equal(decode(tmp_path / "link.png").array, pattern(1))


def test_no_warning_escapes_from_any_thread_and_the_filters_are_as_before() -> None:
    noisy = [BAD["cut-10.tiff"], BAD["bomb-9459.png"], GOOD["exif-is-noise.jpg"], GOOD["orientation-9.jpg"]]
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")

        def work() -> None:
            for content in noisy * 20:
                try:
                    decode(content)
                except ImageFileError:
                    continue

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        warnings.warn("mine", UserWarning, stacklevel=1)
    assert [str(one.message) for one in heard] == ["mine"]
    assert list(warnings.filters) == before


def test_names_are_printable() -> None:
    assert shown("a\nb\x1b[31m\udcff.png") == "a\\nb\\x1b[31m\\udcff.png"
    assert len(shown("x" * 5000)) < 300
    assert shown(Path("猫.png")) == "猫.png"


def test_a_picture_says_what_it_was() -> None:
    picture = decode(_palette(True))
    assert isinstance(picture, Picture)
    assert (picture.format, picture.stored, picture.mode) == ("PNG", "P", "RGBA")
