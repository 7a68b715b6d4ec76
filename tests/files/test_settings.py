"""Row C5 of the reliability plan, the files' half: limits of JSON, links out of a folder, code beside it."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corpora.model_files import settings
from sfumato.errors import ModelFileError
from sfumato.files import inside, read_json, read_sharded, write_json, write_tensors


@pytest.mark.parametrize("name", list(settings()))
def test_C5_loose_or_huge_json_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(settings()[name])
    begun = time.process_time()
    with pytest.raises(ModelFileError) as caught:
        read_json(path)
    assert time.process_time() - begun < 1
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_C5_bites_the_json_module_takes_what_we_refuse() -> None:
    for name in ("NaN", "Infinity", "1e400", "10^100", "twice", "twice by escape", "UTF-16"):
        json.loads(settings()[name])


def test_infinity_is_taken_where_it_is_asked_for_and_nan_never(tmp_path: Path) -> None:
    path = tmp_path / "scheduler_config.json"
    path.write_text('{"lambda_min_clipped": -Infinity}')
    assert read_json(path, allow_infinity=True) == {"lambda_min_clipped": -math.inf}
    path.write_text('{"lambda_min_clipped": NaN}')
    with pytest.raises(ModelFileError, match="NaN"):
        read_json(path, allow_infinity=True)
    write_json(path, {"a": [-math.inf]}, allow_infinity=True)
    assert read_json(path, allow_infinity=True) == {"a": [-math.inf]}
    with pytest.raises(ValueError, match="NaN"):
        write_json(path, {"a": [math.nan]}, allow_infinity=True)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": math.inf})


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcé", max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(value=values)
def test_json_comes_back_and_twice_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    first = path.read_bytes()
    assert read_json(path) == value
    write_json(path, read_json(path))
    assert path.read_bytes() == first
    assert first.endswith(b"\n")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "..",
        "../x",
        "a/../../x",
        "",
        "a\0b",
        "a\nb",
        "..\\x",
        "C:x",
        "C:/x",
        "out",
        "out/x",
        "sub/out/x",
        "x" * 2000,
    ],
)
def test_C5_no_name_leads_out_of_a_model_folder(tmp_path: Path, name: str) -> None:
    home = tmp_path / "model"
    (home / "sub").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (home / "out").symlink_to(tmp_path / "other")
    (home / "sub" / "out").symlink_to("../../other")
    with pytest.raises(ModelFileError) as caught:
        inside(home, name)
    assert str(home) in str(caught.value)


def test_C5_a_folder_whose_name_begins_alike_is_outside(tmp_path: Path) -> None:
    home = tmp_path / "model"
    home.mkdir()
    (tmp_path / "model-secret").mkdir()
    (home / "out").symlink_to(tmp_path / "model-secret")
    with pytest.raises(ModelFileError, match="outside"):
        inside(home, "out")


def test_names_and_links_inside_are_followed(tmp_path: Path) -> None:
    home = tmp_path / "model"
    (home / "unet").mkdir(parents=True)
    (home / "unet" / "config.json").write_text("{}")
    (home / "same.json").symlink_to("unet/config.json")
    (tmp_path / "link").symlink_to(home)
    for folder in (home, tmp_path / "link"):
        assert inside(folder, "same.json") == home / "unet" / "config.json"
        assert inside(folder, "unet/config.json") == home / "unet" / "config.json"
        assert inside(folder, "not-there.json") == home / "not-there.json"


def test_shards_are_joined_and_code_beside_them_is_not_imported(tmp_path: Path) -> None:
    torch_names = {"a": "m-1.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}
    write_tensors(tmp_path / "m-1.safetensors", {"a": torch.zeros(2), "b": torch.ones(1)}, {"by": "a test"})
    write_tensors(tmp_path / "m-2.safetensors", {"c": torch.arange(3)})
    write_json(
        tmp_path / "m.safetensors.index.json", {"metadata": {"total_size": 36}, "weight_map": torch_names}
    )
    for name in ("__init__.py", "modeling.py", "torch.py", "safetensors.py"):
        (tmp_path / name).write_text("raise SystemExit('imported')")
    before = set(sys.modules)
    tensors, metadata = read_sharded(tmp_path, "m.safetensors.index.json")
    assert tensors.keys() == {"a", "b", "c"}
    assert tensors["c"].tolist() == [0, 1, 2]
    assert metadata == {"by": "a test", "format": "pt"}
    assert not {name for name in set(sys.modules) - before if "modeling" in name}
