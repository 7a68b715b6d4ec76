"""Hostile and damaged model files, made by rule: no file is shipped, no licence is needed.

`structural` gives safetensors and folders that are wrong in structure; `pickles` gives files whose opening by
pickle would run code (here: touch a canary file). All of them must be refused.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sfumato.files import read_json, read_sharded, read_tensors

Read = Callable[[], object]


class Case(NamedTuple):
    """`build` writes into an empty folder and gives the reading that has to be refused."""

    name: str
    build: Callable[[Path], Read]


def pack(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int = 0, end: int = 4, dtype: object = "F32", shape: object = (1,)) -> dict[str, object]:
    return {
        "dtype": dtype,
        "shape": list(shape) if isinstance(shape, tuple) else shape,
        "data_offsets": [begin, end],
    }


def good(tensors: int = 4) -> bytes:
    """A small file that is right."""
    header = {f"layer.{i}.weight": entry(24 * i, 24 * i + 24, shape=(2, 3)) for i in range(tensors)}
    return pack({"__metadata__": {"format": "pt"}, **header}, bytes(range(24)) * tensors)


def _bytes() -> dict[str, Callable[[], bytes]]:
    """Single files, by name; made when called, since some are large."""
    four, one = b"\0" * 4, entry()
    raw = good()
    cases: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"",
        "one byte": lambda: b"\x08",
        "seven bytes": lambda: b"\0" * 7,
        "length only": lambda: struct.pack("<Q", 2),
        "header {} with trailing bytes": lambda: pack({}, b"x"),
        "header is a list": lambda: pack(b"[]"),
        "header is a number": lambda: pack(b"12345678"),
        "header cut": lambda: raw[:40],
        "data cut": lambda: raw[:-1],
        "data one byte more": lambda: raw + b"\0",
        "zip appended": lambda: raw + zip_bytes({"archive/data.pkl": b"\x80\x02."}),
        "length 2^64-1": lambda: pack({"a": one}, four, 2**64 - 1),
        "length 2^63": lambda: pack({"a": one}, four, 2**63),
        "length past the end": lambda: pack({"a": one}, four, 10_000),
        "length zero": lambda: pack({"a": one}, four, 0),
        "header of 90 MB": lambda: pack(b'{"a":' + b" " * (90 << 20) + b"{}}"),
        "header of 17 MiB of spaces": lambda: pack(b"{" + b" " * (17 << 20) + b"}"),
        "1.2 million empty tensors": lambda: pack(many(1_200_000)),
        "200,000 empty tensors": lambda: pack(many(200_000)),
        "70,000 empty tensors": lambda: pack(many(70_000)),
        "70,000 tables": lambda: pack(many(70_000).replace(b"dtype", b"kind")),
        "16 MiB of empty lists": lambda: pack(b'{"a":[' + b"[]," * 5_500_000 + b"0]}"),
        "16 MiB of empty tables": lambda: pack(b'{"a":[' + b"{}," * 5_500_000 + b"0]}"),
        "16 MiB of small numbers": lambda: pack(b'{"a":[' + b"-6," * 5_500_000 + b"0]}"),
        "16 MiB of short texts": lambda: pack(b'{"a":[' + b'"bc",' * 3_300_000 + b"0]}"),
        "16 MiB of one text": lambda: pack(b'{"a":"' + b"x" * (16 << 20) + b'"}'),
        "a number of 16 million digits": lambda: pack(b'{"a":' + b"9" * (16_000_000) + b"}"),
        "a million open brackets": lambda: pack(b'{"a":' + b"[" * 900_000),
        "2,000 brackets deep": lambda: pack(b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}"),
        "metadata of 5 MiB": lambda: pack({"__metadata__": {"k": "v" * (5 << 20)}}),
        "metadata of 90 MB": lambda: pack({"__metadata__": {"k": "v" * (90 << 20)}}),
        "metadata with a number": lambda: pack({"__metadata__": {"k": 1}}),
        "metadata nested": lambda: pack({"__metadata__": {"k": {"a": "b"}}}),
        "metadata a list": lambda: pack({"__metadata__": []}),
        "metadata twice": lambda: pack(b'{"__metadata__":{},"__metadata__":{"a":"b"}}'),
        "tensor twice": lambda: pack(
            b'{"a":%b,"a":%b}' % (json.dumps(one).encode(), json.dumps(one).encode()), four
        ),
        "dtype twice": lambda: pack(
            b'{"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}}', four
        ),
        "metadata key twice": lambda: pack(b'{"__metadata__":{"a":"b","a":"c"}}'),
        "rank 9": lambda: pack({"a": entry(shape=(1,) * 9)}, four),
        "rank 200,000": lambda: pack({"a": entry(shape=(1,) * 200_000)}, four),
        "dimension 10^18 of none": lambda: pack({"a": entry(0, 0, shape=(0, 10**18))}),
        "dimension 10^18": lambda: pack({"a": entry(shape=(10**18,))}, four),
        "dimension 2^64": lambda: pack({"a": entry(shape=(2**64,))}, four),
        "dimensions that overflow to 4 bytes": lambda: pack({"a": entry(shape=(2**32, 2**32, 1))}, four),
        "dimension -1": lambda: pack({"a": entry(shape=(-1,))}, four),
        "dimensions -1 and -1": lambda: pack({"a": entry(shape=(-1, -1))}, four),
        "dimension 1.0": lambda: pack({"a": entry(shape=[1.0])}, four),
        "dimension true": lambda: pack({"a": entry(shape=[True])}, four),
        "dimension a text": lambda: pack({"a": entry(shape=["1"])}, four),
        "shape a number": lambda: pack({"a": entry(shape=1)}, four),
        "shape null": lambda: pack({"a": entry(shape=None)}, four),
        "shape too small": lambda: pack({"a": entry(0, 8)}, four * 2),
        "overlap": lambda: pack({"a": entry(0, 4), "b": entry(2, 6)}, b"\0" * 6),
        "two tensors in one place": lambda: pack({"a": entry(), "b": entry()}, four),
        "hole": lambda: pack({"a": entry(0, 4), "b": entry(8, 12)}, four * 3),
        "hole at the start": lambda: pack({"a": entry(4, 8)}, four * 2),
        "offsets reversed": lambda: pack({"a": entry(4, 0)}, four),
        "offsets negative": lambda: pack({"a": entry(-4, 0)}, four),
        "offsets past the end": lambda: pack({"a": entry(0, 400, shape=(100,))}, four),
        "offsets 2^64": lambda: pack({"a": entry(0, 2**64)}, four),
        "offsets of three": lambda: pack({"a": {**one, "data_offsets": [0, 2, 4]}}, four),
        "offsets missing": lambda: pack({"a": {"dtype": "F32", "shape": [1]}}, four),
        "a key too many": lambda: pack({"a": {**one, "code": "print(1)"}}, four),
        "dtype unknown": lambda: pack({"a": entry(dtype="F31")}, four),
        "dtype a number": lambda: pack({"a": entry(dtype=32)}, four),
        "dtype of half bytes": lambda: pack({"a": entry(0, 1, dtype="F4", shape=(2,))}, b"\0"),
        "truth value 77": lambda: pack({"a": entry(0, 2, dtype="BOOL", shape=(2,))}, b"\x01\x4d"),
        "name of 600": lambda: pack({"n" * 600: one}, four),
        "name of 10 MB": lambda: pack({"n" * 10_000_000: one}, four),
        "name empty": lambda: pack({"": one}, four),
        "name with NUL": lambda: pack({"a\0b": one}, four),
        "name with a newline": lambda: pack({"a\nb": one}, four),
        "name with an escape": lambda: pack({"a\x1b[31mb": one}, four),
        "name turned right to left": lambda: pack({"a\u202eb": one}, four),
        "name of half a pair": lambda: pack(b'{"\\ud800":' + json.dumps(one).encode() + b"}", four),
        "not UTF-8": lambda: pack(b'{"\xff\xfe":' + json.dumps(one).encode() + b"}", four),
        "UTF-16": lambda: pack(json.dumps({"a": one}).encode("utf-16"), four),
        "NaN in the header": lambda: pack(b'{"a":NaN}'),
        "1e400 in the header": lambda: pack(
            b'{"a":{"dtype":"F32","shape":[1e400],"data_offsets":[0,4]}}', four
        ),
        "comment in the header": lambda: pack(b'{/* */"a":' + json.dumps(one).encode() + b"}", four),
        "text after the header": lambda: pack(json.dumps({"a": one}).encode() + b"{}", four),
    }
    return cases


def many(tensors: int) -> bytes:
    one = b'"t%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return b"{" + b",".join(one % i for i in range(tensors)) + b"}"


def _single(name: str, make: Callable[[], bytes]) -> Case:
    def build(folder: Path) -> Read:
        path = folder / "model.safetensors"
        path.write_bytes(make())
        return lambda: read_tensors(path)

    return Case(name, build)


def _sharded(name: str, listed: object, prepare: Callable[[Path], None] = lambda folder: None) -> Case:
    def build(folder: Path) -> Read:
        home = folder / "model"
        home.mkdir()
        (folder / "secret.safetensors").write_bytes(pack({"a": entry()}, b"\0" * 4))
        (home / "one.safetensors").write_bytes(pack({"a": entry()}, b"\0" * 4))
        text = listed if isinstance(listed, bytes) else json.dumps(listed).encode()
        (home / "model.safetensors.index.json").write_bytes(text)
        prepare(home)
        return lambda: read_sharded(home, "model.safetensors.index.json")

    return Case(name, build)


def _link(folder: Path) -> None:
    (folder / "two.safetensors").symlink_to(folder.parent / "secret.safetensors")


def _folder_link(folder: Path) -> None:
    (folder / "sub").symlink_to(folder.parent)


def _twin(folder: Path) -> None:
    (folder / "two.safetensors").symlink_to(folder / "one.safetensors")


def _fifo(folder: Path) -> Read:
    os.mkfifo(folder / "model.safetensors")
    return lambda: read_tensors(folder / "model.safetensors")


def _directory(folder: Path) -> Read:
    return lambda: read_tensors(folder)


def _loop(folder: Path) -> Read:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return lambda: read_tensors(folder / "a")


def structural() -> list[Case]:
    """About a hundred files and folders with a wrong structure."""
    shards: dict[str, object] = {
        "shard /etc/passwd": {"weight_map": {"a": "/etc/passwd"}},
        "shard above": {"weight_map": {"a": "../secret.safetensors"}},
        "shard above by detour": {"weight_map": {"a": "x/../../secret.safetensors"}},
        "shard with backslash": {"weight_map": {"a": "..\\secret.safetensors"}},
        "shard with drive": {"weight_map": {"a": "C:/secret.safetensors"}},
        "shard with NUL": {"weight_map": {"a": "one.safetensors\0"}},
        "shard missing": {"weight_map": {"a": "gone.safetensors"}},
        "shard is the folder": {"weight_map": {"a": "."}},
        "shard a number": {"weight_map": {"a": 1}},
        "shard without the tensor": {"weight_map": {"b": "one.safetensors"}},
        "shard with a tensor too many": {"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}},
        "no shards": {"weight_map": {}},
        "no map": {"metadata": {}},
        "map a list": {"weight_map": ["one.safetensors"]},
        "map twice": b'{"weight_map":{"a":"one.safetensors"},"weight_map":{"a":"one.safetensors"}}',
        "tensor listed twice": b'{"weight_map":{"a":"one.safetensors","a":"two.safetensors"}}',
        "2,000 shards": {"weight_map": {str(i): f"{i}.safetensors" for i in range(2000)}},
    }
    return [
        *(_single(name, make) for name, make in _bytes().items()),
        *(_sharded(name, listed) for name, listed in shards.items()),
        _sharded("shard by a link outside", {"weight_map": {"a": "two.safetensors"}}, _link),
        _sharded("shard by a linked folder", {"weight_map": {"a": "sub/secret.safetensors"}}, _folder_link),
        _sharded(
            "one file as two shards", {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}, _twin
        ),
        Case("a pipe", _fifo),
        Case("a folder", _directory),
        Case("links in a circle", _loop),
        Case("/dev/zero", lambda folder: lambda: read_tensors(Path("/dev/zero"))),
        Case("nothing there", lambda folder: lambda: read_tensors(folder / "gone.safetensors")),
    ]


def settings() -> dict[str, bytes]:
    """JSON that must not be read as settings."""
    return {
        "10 MB": b'{"a":"' + b"x" * 10_000_000 + b'"}',
        "NaN": b'{"a": NaN}',
        "Infinity": b'{"a": Infinity}',
        "-Infinity": b'{"a": -Infinity}',
        "1e400": b'{"a": 1e400}',
        "-1e400": b'{"a": -1e400}',
        "10^100": b'{"a": 1' + b"0" * 100 + b"}",
        "a number of a million digits": b'{"a": ' + b"1" * 1_000_000 + b"}",
        "deep": b"[" * 500 + b"]" * 500,
        "deeper": b"[" * 200_000 + b"]" * 200_000,
        "deep tables": b'{"a":' * 100 + b"1" + b"}" * 100,
        "twice": b'{"_class_name": "A", "_class_name": "B"}',
        "twice by escape": b'{"a": 1, "\\u0061": 2}',
        "not UTF-8": b'{"a": "\xff"}',
        "UTF-16": '{"a": 1}'.encode("utf-16"),
        "byte-order mark": b'\xef\xbb\xbf{"a": 1}',
        "cut": b'{"a": 1',
        "empty": b"",
        "single quotes": b"{'a': 1}",
        "comment": b'{"a": 1} // b',
        "comma": b'{"a": 1,}',
        "4 MB of lists": b"[" + b"[]," * 1_300_000 + b"0]",
        "pickle": b"\x80\x04}.",
        "YAML": b"a: !!python/object/apply:os.system ['true']",
    }


class _Touch:
    """Unpickling this writes the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (open, (str(self.canary), "w"))


class _Execute(_Touch):
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (exec, (f"open({str(self.canary)!r}, 'w').close()",))


def zip_bytes(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _tar(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return stream.getvalue()


def _saved(value: object, *, zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def _script() -> bytes:
    files = {"net/constants.pkl": b"\x80\x02).", "net/data.pkl": b"\x80\x02).", "net/version": b"3\n"}
    return zip_bytes({**files, "net/code/__torch__.py": b"def forward(self): return 1\n"})


def pickles(canary: Path) -> dict[str, bytes]:
    """Forty files by name: pickles in every coat. Opening any of them as a pickle may touch `canary`."""
    touch, execute = _Touch(canary), _Execute(canary)
    state = {"weight": torch.zeros(2), "x": touch}
    found: dict[str, bytes] = {}
    for protocol in range(6):
        for kind, bomb in (("open", touch), ("exec", execute)):
            found[f"protocol{protocol}-{kind}.safetensors"] = pickle.dumps(bomb, protocol)
    for ending in ("pt", "pth", "ckpt", "bin", "safetensors", "SafeTensors", "SAFETENSORS", "gguf"):
        found[f"zipped.{ending}"] = _saved(state, zipped=True)
    for ending in ("pt", "ckpt", "bin", "safetensors"):
        found[f"legacy.{ending}"] = _saved(state, zipped=False)
    bomb = pickle.dumps({"a": [touch]}, 2)
    objects = io.BytesIO()
    np.save(objects, np.array([touch], dtype=object), allow_pickle=True)
    arrays = io.BytesIO()
    np.savez(arrays, a=np.array([touch], dtype=object))
    found |= {
        "tar.pt": _tar({"pickle": bomb, "storages": bomb, "tensors": bomb}),
        "tar.safetensors": _tar({"model.safetensors": good(), "pickle": bomb}),
        "appended.safetensors": good() + zip_bytes({"archive/data.pkl": bomb}),
        "prepended.safetensors": zip_bytes({"archive/data.pkl": bomb}) + good(),
        "torchscript.pt": _script(),
        "torchscript.safetensors": _script(),
        "objects.npy": objects.getvalue(),
        "objects.npz": arrays.getvalue(),
        "objects.safetensors": arrays.getvalue(),
        "joblib.pkl": zlib.compress(bomb),
        "joblib.gz": gzip.compress(bomb),
        "joblib.bz2": bz2.compress(bomb),
        "joblib.xz": lzma.compress(bomb),
        "nested.zip": zip_bytes({"inner.zip": zip_bytes({"archive/data.pkl": bomb})}),
        "as-metadata-length.safetensors": pack(bomb),
        "braces.safetensors": struct.pack("<Q", 16) + b"{" + bomb,
    }
    return found


def settings_reader(path: Path) -> Read:
    return lambda: read_json(path)
