"""Where classes, captions and pixels come from: folders, tables, sidecars and npz files; row B5."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corpora.images import pattern, saved, write_good
from sfumato.conditions.classes import Classes
from sfumato.conditions.schema import Conditions
from sfumato.data.bundled import open_source
from sfumato.data.captions import CAPTION_BYTES, decode_text
from sfumato.data.prepare import prepare
from sfumato.errors import DataError


def _put(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(saved(pattern(number, 8), "PNG"))


def _labels(root: Path) -> dict[str, str | None]:
    return {item.name: item.label for item in open_source(root).items}


def test_first_level_folders_are_classes(tmp_path: Path) -> None:
    _put(tmp_path, "b/1.png", "a/x/deep/2.PNG", "a/3.png", "c10/4.png", "c9/5.png")
    source = open_source(tmp_path)
    assert source.label_names == ("a", "b", "c9", "c10")
    assert [item.name for item in source.items] == [
        "a/3.png",
        "a/x/deep/2.PNG",
        "b/1.png",
        "c9/5.png",
        "c10/4.png",
    ]
    assert _labels(tmp_path)["a/x/deep/2.PNG"] == "a"


def test_flat_mixed_and_lone_folders_have_no_classes(tmp_path: Path) -> None:
    _put(tmp_path / "flat", "1.png", "2.png")
    _put(tmp_path / "lone", "images/1.png", "images/2.png")
    _put(tmp_path / "mixed", "1.png", "a/2.png", "b/3.png")
    for name in ("flat", "lone", "mixed"):
        assert open_source(tmp_path / name).label_names == ()
    assert "1 of 3 pictures lie in no sub-folder" in open_source(tmp_path / "mixed").notes[0]
    assert "images" in open_source(tmp_path / "lone").notes[0]


def test_what_a_computer_leaves_about_is_passed_over(tmp_path: Path) -> None:
    _put(tmp_path, "1.png", ".hidden.png", "._1.png", "__MACOSX/1.png", ".thumbnails/1.png")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    assert [item.name for item in open_source(tmp_path).items] == ["1.png"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.timeout(20)
def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    _put(tmp_path / "else", "1.png")
    _put(tmp_path / "data", "a/2.png")
    (tmp_path / "data" / "b").symlink_to(tmp_path / "else")
    (tmp_path / "data" / "a" / "ring").symlink_to(tmp_path / "data")
    assert _labels(tmp_path / "data") == {"a/2.png": "a", "b/1.png": "b"}


def test_a_csv_table(tmp_path: Path) -> None:
    _put(tmp_path, "1.png", "2.png", "sub/3.png")
    table = 'file_name,label,text,year\n1.png,cat,"a cat, sitting",1999\n'
    table += "2.png,dog,a dog,\n./sub/3.png,cat,,2001\n"
    (tmp_path / "metadata.csv").write_bytes(b"\xef\xbb\xbf" + table.encode())
    items = open_source(tmp_path).items
    assert [item.label for item in items] == ["cat", "dog", "cat"]
    assert [item.captions for item in items] == [("a cat, sitting",), ("a dog",), ()]
    assert [dict(item.columns) for item in items] == [{"year": "1999"}, {}, {"year": "2001"}]


def test_a_jsonl_table_in_a_sub_folder(tmp_path: Path) -> None:
    _put(tmp_path, "sub/1.png", "sub/2.png")
    rows = [
        {"file_name": "1.png", "class": 10, "caption": ["one", "two", "one"]},
        {"file_name": "2.png", "class": 9, "text": "three\nfour", "box": [1, 2]},
    ]
    (tmp_path / "sub" / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    source = open_source(tmp_path)
    assert source.label_names == ("9", "10")
    assert [item.captions for item in source.items] == [("one", "two"), ("three", "four")]
    assert dict(source.items[1].columns) == {"box": "[1, 2]"}


def test_dataset_json(tmp_path: Path) -> None:
    _put(tmp_path, "00000/img0.png", "00000/img1.png")
    (tmp_path / "dataset.json").write_text(
        json.dumps({"labels": [["00000/img0.png", 5], ["00000/img1.png", 3]]})
    )
    assert _labels(tmp_path) == {"00000/img0.png": "5", "00000/img1.png": "3"}


def test_classes_that_are_not_known(tmp_path: Path) -> None:
    _put(tmp_path, "a.png", "b.png", "c.png", "d.png")
    said = {"labels": [["a.png", 5], ["b.png", -1], ["c.png", None], ["d.png", 3]]}
    (tmp_path / "dataset.json").write_text(json.dumps(said))
    source = open_source(tmp_path)
    assert {item.name: item.label for item in source.items} == {
        "a.png": "5", "b.png": None, "c.png": None, "d.png": "3"
    }  # fmt: skip
    assert source.flaws == ()
    assert source.notes == ("of 2 of 4 pictures the class is not known",)
    words, numbers = np.array(["ant", "", "bee"] * 2), np.array([1, -1, 0] * 2)
    names = np.array(["ant", "bee"])
    cases: list[tuple[dict[str, np.ndarray], list[str | None]]] = [
        ({"labels": words}, ["ant", None, "bee"]),
        ({"labels": words, "label_names": names}, ["ant", None, "bee"]),
        ({"labels": numbers}, ["1", None, "0"]),
        ({"labels": numbers, "label_names": names}, ["bee", None, "ant"]),
    ]
    for i, (arrays, told) in enumerate(cases):
        found = open_source(_npz(tmp_path / f"{i}.npz", images=IMAGES, **arrays))
        assert [item.label for item in found.items] == told * 2
        assert found.notes == ("of 2 of 6 pictures the class is not known",)


def test_bad_tables_are_reported_and_never_crash(tmp_path: Path) -> None:
    _put(tmp_path, "1.png", "2.png")
    long = "x" * 200_000
    lines = [
        "file_name,text",
        "1.png,fine",
        "2.png,a,b,c",
        f"2.png,{long}",
        "../../etc/passwd,out",
        "gone.png,gone",
        "2.png,nul\0 and \u202eright to left",
    ]
    (tmp_path / "metadata.csv").write_text("\n".join(lines), encoding="utf-16")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "1.png"\n[1]\n{"text": "no name"}\n' + "[" * 100_000
    )
    source = open_source(tmp_path)
    assert source.items[0].captions == ("fine",)
    assert source.items[1].captions == ("nul and \u202eright to left",)
    told = "\n".join(str(flaw) for flaw in source.flaws)
    for piece in (
        "line 3: has 4 cells",
        "field larger",
        "etc/passwd",
        "gone.png",
        "jsonl, line 1",
        "names no picture",
    ):
        assert piece in told


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("metadata.csv", "name,text\n1.png,a\n", "no column file_name"),
        ("dataset.json", "{", "is no JSON"),
        ("dataset.json", '{"labels": 7}', "must hold"),
    ],
)
def test_what_is_no_table_is_an_error(tmp_path: Path, name: str, content: str, reason: str) -> None:
    _put(tmp_path, "1.png")
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=reason):
        open_source(tmp_path)


def test_a_class_may_be_missing_and_is_told(tmp_path: Path) -> None:
    """Of a picture that the table leaves out, and of one whose cell is empty."""
    _put(tmp_path, "1.png", "2.png", "3.png", "4.png")
    (tmp_path / "metadata.csv").write_text("file_name,class\n1.png,a\n2.png,\n4.png,b\n")
    source = open_source(tmp_path)
    assert [item.label for item in source.items] == ["a", None, None, "b"]
    assert source.label_names == ("a", "b")
    assert source.notes == ("of 2 of 4 pictures the class is not known",)
    data = prepare(tmp_path, size=8, cache=tmp_path / "cache")
    assert data.labels is not None
    assert data.labels.tolist() == [0, -1, -1, 1]
    known = Conditions(classes=Classes(data.label_names, null=True))
    assert [wish.label for wish in known.wishes(data.take(range(4)))] == [0, None, None, 1]


CAPTIONS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "utf-8": ("a café".encode(), ("a café",)),
    "utf-8 mark": (b"\xef\xbb\xbf" + "a café".encode(), ("a café",)),
    "utf-16": ("a café\r\n猫".encode("utf-16"), ("a café", "猫")),
    "utf-16 big": (b"\xfe\xff" + "a café".encode("utf-16-be"), ("a café",)),
    "nul": (b"a\0 cat\0", ("a cat",)),
    "several": (b"one\n\n  two  \r\nthree", ("one", "two", "three")),
    "right to left": ("קו \u202e abc".encode(), ("קו \u202e abc",)),
    "emoji": ("👩‍👩‍👧‍👦 family".encode(), ("👩‍👩‍👧‍👦 family",)),
    "markup": (b"<script>alert(1)</script> %s {0} $HOME", ("<script>alert(1)</script> %s {0} $HOME",)),
}


@pytest.mark.parametrize("kind", CAPTIONS)
def test_sidecar_captions(tmp_path: Path, kind: str) -> None:
    raw, captions = CAPTIONS[kind]
    _put(tmp_path, "1.png", "2.png")
    (tmp_path / "1.txt").write_bytes(raw)
    (tmp_path / "2.caption").write_bytes(raw)
    source = open_source(tmp_path)
    assert [item.captions for item in source.items] == [captions, captions]
    assert not source.flaws
    assert prepare(tmp_path).captions == (captions, captions)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"x" * (10 << 20), f"longer than {CAPTION_BYTES:,} bytes"),
        (b"caf\xe9", "is not UTF-8 or UTF-16"),
        (b"\xff\xfea", "is not UTF-8 or UTF-16"),
        (b" \n \n", "is empty"),
    ],
)
def test_bad_sidecars_are_reported(tmp_path: Path, raw: bytes, reason: str) -> None:
    _put(tmp_path, "1.png", "2.png")
    (tmp_path / "1.txt").write_bytes(raw)
    (tmp_path / "2.txt").write_bytes(b"fine")
    source = open_source(tmp_path)
    assert [item.captions for item in source.items] == [(), ("fine",)]
    (flaw,) = source.flaws
    assert flaw.name == "1.txt"
    assert reason in flaw.reason


def test_any_bytes_are_some_text() -> None:
    for number in range(256):
        text, _ = decode_text(bytes([number, 255 - number, 0, number]))
        assert "\0" not in text


def _npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


IMAGES = np.stack([pattern(number, 8) for number in range(6)])


def test_npz_of_ours(tmp_path: Path) -> None:
    path = _npz(
        tmp_path / "a.npz",
        images=IMAGES,
        labels=np.array([0, 1, 1, 0, 1, 1]),
        label_names=np.array(["zebra", "ant"]),
        captions=np.array(["a zebra", "an ant", "", "d", "e", "f"]),
    )
    data = prepare(path)
    assert data.label_names == ("zebra", "ant")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 1, 0, 1, 1]
    assert data.captions is not None
    assert data.captions[:3] == (("a zebra",), ("an ant",), ())
    assert np.array_equal(data.pixels, IMAGES)
    assert data.names[5] == "a.npz#5"


def test_npz_of_guided_diffusion_and_other_axes(tmp_path: Path) -> None:
    batch = prepare(_npz(tmp_path / "b.npz", arr_0=IMAGES, arr_1=np.array([7, 7, 3, 3, 3, 3])))
    assert batch.label_names == ("3", "7")
    assert np.array_equal(batch.pixels, IMAGES)
    assert np.array_equal(
        prepare(_npz(tmp_path / "c.npz", images=IMAGES.transpose(0, 3, 1, 2))).pixels, IMAGES
    )
    grey = prepare(_npz(tmp_path / "d.npz", images=IMAGES[..., 0]))
    assert np.array_equal(grey.pixels[..., 0], IMAGES[..., 0])
    clear = prepare(_npz(tmp_path / "e.npz", images=IMAGES, alpha=IMAGES[..., 0]))
    assert clear.shape == (4, 8, 8)


def test_npz_of_packed_files_with_a_bad_one(tmp_path: Path) -> None:
    files = [saved(image, "PNG") for image in IMAGES] + [b"no picture"]
    offsets = np.cumsum([0, *(len(file) for file in files)])
    path = _npz(
        tmp_path / "p.npz",
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        offsets=offsets,
        labels=np.arange(7) % 2,
    )
    data = prepare(path, limit_bad=0.2)
    assert np.array_equal(data.pixels, IMAGES)
    assert [flaw.name for flaw in data.bad] == ["p.npz#6"]


def test_npz_objects_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (canary,))

    images = np.empty(2, object)
    images[:] = [Payload(), Payload()]
    with pytest.raises(DataError, match="holds Python objects"):
        open_source(_npz(tmp_path / "a.npz", images=images))
    with pytest.raises(DataError, match="holds Python objects"):
        open_source(_npz(tmp_path / "b.npz", images=IMAGES, labels=images))
    assert not canary.exists()


def _member(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read as an .npz"),
        (b"PK\x03\x04 and nothing", "cannot be read as an .npz"),
        (_member("images.npy", b"no array"), "cannot be read as an .npz|is no array"),
        (_member("other.npy", b"\x93NUMPY"), "holds no pictures"),
    ],
)
def test_npz_damage(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=reason):
        open_source(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": IMAGES.astype(np.float32)}, "are float32: save them as uint8"),
        ({"images": IMAGES.astype(np.int64)}, "are int64"),
        ({"images": np.full((2, 4, 4, 3), np.nan)}, "are float64"),
        ({"images": np.zeros((2, 9, 9, 9), np.uint8)}, "have the shape"),
        ({"images": np.zeros((0, 9, 9, 3), np.uint8)}, "have the shape"),
        ({"images": np.zeros((9, 9), np.uint8)}, "have the shape"),
        ({"images": IMAGES, "labels": np.zeros(5, int)}, "labels in"),
        ({"images": IMAGES, "labels": np.zeros(6)}, "labels in"),
        ({"images": IMAGES, "labels": np.full(6, 9), "label_names": np.array(["a", "b"])}, "go from 9 to 9"),
        ({"images": IMAGES, "captions": np.zeros(6)}, "captions in"),
        ({"images": IMAGES, "alpha": np.zeros((6, 4, 4), np.uint8)}, "`alpha` in"),
        ({"jpeg": np.zeros(9, np.uint8), "offsets": np.array([0, 5, 3])}, "do not lie"),
        ({"jpeg": np.zeros(9, np.uint8), "offsets": np.array([0, 50])}, "do not lie"),
        ({"jpeg": np.zeros(9, np.uint8), "offsets": np.array([0.5, 1])}, "whole numbers"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        open_source(_npz(tmp_path / "a.npz", **arrays))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*nowhere"):
        prepare(tmp_path / "nowhere")
    (tmp_path / "one.png").write_bytes(saved(pattern(1), "PNG"))
    with pytest.raises(DataError, match="is one file"):
        prepare(tmp_path / "one.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there are no pictures in"):
        prepare(tmp_path / "empty")


def test_other_kinds_of_picture_are_reported_not_passed_over(tmp_path: Path) -> None:
    write_good(tmp_path, 40)
    Image.fromarray(pattern(1)).save(tmp_path / "x.tga")
    (flaw,) = prepare(tmp_path).bad
    assert flaw.name == "x.tga"
