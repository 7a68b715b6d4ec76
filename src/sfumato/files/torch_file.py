"""Tensors in PyTorch's own files (.pth, .pt, .bin, .ckpt), without ever unpickling.

Both formats of `torch.save`: the zip archive (since 1.6, 2020) and the pickles one after the other before it.
Their pickles are interpreted as data (`pickled.py`) by the rules of what a table of tensors needs; anything
else, an optimiser's class or a whole module, is refused by its name. Model folders are safetensors and do not
come here: this is for weights that others publish as .pth.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.errors import ModelFileError
from sfumato.files.archive import begin, members
from sfumato.files.header import HIGHEST_RANK, MOST_TENSORS, check_name, shown
from sfumato.files.pickled import Name, Rules, read_pickle
from sfumato.files.sniff import CONVERT, FETCH, open_regular, read_all, what_it_is
from sfumato.files.tensors import read_tensors

Plain = str | int | float | bool | None
"""What stands beside tensors: an epoch, a name."""

MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How the older format begins: a pickle of the number 0x1950a86a20f9469cfc6c."""
LARGEST_PICKLE = 32 << 20
DEEPEST = 32
LARGEST_REPEAT = 1 << 20
"""A tensor that repeats its storage's values (stride 0) has no more of them than this."""

_STORED = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
_STORAGES: dict[str, torch.dtype] = {
    **{
        f"{place}.{kind}Storage": dtype
        for kind, dtype in _STORED.items()
        for place in ("torch", "torch.cuda")
    },
    "torch.storage.UntypedStorage": torch.uint8,
}
_DTYPES: dict[str, torch.dtype] = {
    str(dtype): dtype
    for dtype in (*_STORED.values(), torch.uint16, torch.uint32, torch.uint64)
    + (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)
}
_REBUILD = {f"torch._utils._rebuild_{what}" for what in ("tensor", "tensor_v2", "tensor_v3", "parameter")}
_NAMES = frozenset({"collections.OrderedDict", "torch.Size", *_REBUILD, *_STORAGES, *_DTYPES})


@dataclass(frozen=True)
class _Storage:
    """The bytes under one key of the file, as values of one dtype."""

    key: str
    dtype: torch.dtype
    values: int


@dataclass(frozen=True)
class _View:
    """A tensor before its bytes are read: where its values lie in a storage."""

    storage: _Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _reference(key: object) -> _Storage:
    match key:
        case ("storage", Name(text), str(name), str(), int(values)) if text in _STORAGES and values >= 0:
            return _Storage(name, _STORAGES[text], values)
        case ("storage", Name(text), str(name), str(), int(values), None) if (
            text in _STORAGES and values >= 0
        ):
            return _Storage(name, _STORAGES[text], values)
        case _:
            raise ValueError("a reference that is no whole storage")


def _call(name: Name, arguments: tuple[Any, ...]) -> object:
    """What the few names that tensors need make of their arguments."""
    match name.text.rpartition(".")[2], arguments:
        case "OrderedDict", ():
            return {}
        case "Size", (list(sizes) | tuple(sizes),):
            return tuple(sizes)
        case "_rebuild_tensor", (_Storage() as storage, offset, shape, strides):
            return _view(storage, storage.dtype, offset, shape, strides)
        case "_rebuild_tensor_v2", (_Storage() as storage, offset, shape, strides, _, _, *more):
            if any(more):  # conjugated or negated: other values than those that are stored
                raise ValueError("a tensor that is a conjugate or negative view")
            return _view(storage, storage.dtype, offset, shape, strides)
        case "_rebuild_tensor_v3", (_Storage() as storage, offset, shape, strides, _, _, Name(text), *more):
            if any(more) or text not in _DTYPES or storage.dtype != torch.uint8:
                raise ValueError("a tensor of an unknown kind")
            return _view(storage, _DTYPES[text], offset, shape, strides)
        case "_rebuild_parameter", (_View() as tensor, _, _):
            return tensor
        case _:
            raise ValueError(f"{shown(name.text)} with arguments that do not fit it")


def _view(storage: _Storage, dtype: torch.dtype, offset: object, shape: object, strides: object) -> _View:
    """The view, if every value of it lies within the storage."""
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or len(shape) != len(strides):
        raise ValueError("a tensor without a shape")
    numbers = (offset, *shape, *strides)
    if len(shape) > HIGHEST_RANK or any(type(n) is not int or not 0 <= n < 2**62 for n in numbers):
        raise ValueError(f"a tensor whose shape is not up to {HIGHEST_RANK} whole numbers")
    start = int(offset) if isinstance(offset, int) else 0
    values = storage.values * storage.dtype.itemsize // dtype.itemsize
    count = 1
    for side in shape:
        count *= side
    last = start + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if count and not last < values:
        raise ValueError(f"a tensor of shape {shape} beyond the end of its storage")
    if count > max(values, LARGEST_REPEAT) or (not count and max(shape) > LARGEST_REPEAT):
        raise ValueError(f"a tensor of the absurd shape {shape}")
    return _View(storage, dtype, start, shape, strides)


def _leaves(tree: object) -> Iterator[tuple[str, _View | Plain]]:
    """Names with dots -> tensors and plain values, in their order."""
    waiting: list[tuple[str, object, int]] = [("", tree, 0)]
    seen = 0
    while waiting:
        name, value, depth = waiting.pop()
        seen += 1
        if seen > 4 * MOST_TENSORS or depth > DEEPEST:
            raise ValueError(f"tables {DEEPEST} deep, or more than {4 * MOST_TENSORS:,} values")
        if isinstance(value, dict | list | tuple):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            inner = [(f"{name}.{key}" if name else str(key), one, depth + 1) for key, one in pairs]
            if len(inner) > 4 * MOST_TENSORS or any(len(one[0]) > 4096 for one in inner):
                raise ValueError("names or tables without end")
            waiting += reversed(inner)
        elif isinstance(value, _View | str | int | float) or value is None:
            yield name, value
        else:
            raise ValueError("a name or a storage where a tensor should be")


def _tensors(
    tree: object, content: Callable[[_Storage], bytearray]
) -> tuple[dict[str, Tensor], dict[str, Plain]]:
    """The tree with its tensors filled; those that shared memory share it again."""
    if not isinstance(tree, dict | list | tuple):
        raise ValueError("one value without a name, and no table of tensors")
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Plain] = {}
    stored: dict[str, bytearray] = {}
    for name, value in _leaves(tree):
        if name in tensors or name in plain:
            raise ValueError(f"two values of the name {shown(name)}")
        if not isinstance(value, _View):
            plain[name] = value
            continue
        check_name(name)
        if len(tensors) == MOST_TENSORS:
            raise ValueError(f"more than {MOST_TENSORS:,} tensors")
        storage = value.storage
        if storage.key not in stored:
            stored[storage.key] = content(storage)
        tensors[name] = _filled(name, value, stored[storage.key])
    return tensors, plain


def _filled(name: str, view: _View, stored: bytearray) -> Tensor:
    if len(stored) != view.storage.values * view.storage.dtype.itemsize:
        raise ValueError("a storage of another size than its tensors say")
    size = len(stored) // view.dtype.itemsize
    if not size:
        return torch.empty(view.shape, dtype=view.dtype)
    if view.dtype == torch.bool and max(stored) > 1:
        raise ValueError(f"truth values other than 0 and 1 in tensor {shown(name)}")
    flat = torch.frombuffer(stored, dtype=view.dtype, count=size)
    return flat.as_strided(view.shape, view.strides, view.offset)


def _zipped(handle: int, path: Path, size: int) -> tuple[dict[str, Tensor], dict[str, Plain]]:
    """The newer format: PREFIX/data.pkl, and each storage as PREFIX/data/KEY."""

    def read(start: int, length: int) -> bytes:
        if start + length > size:
            raise ValueError("a directory that points beyond its end")
        return read_all(handle, path, length, start)

    found = members(handle, size)
    pickles = [name for name in found if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise ValueError("no single data.pkl, so torch.save did not write it")
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in found:
        raise ValueError("a TorchScript program and no table of tensors")

    def content(name: str) -> bytes:
        member = found.get(prefix + name)
        if member is None:
            raise ValueError(f"no member {shown(name)}, though a tensor needs it")
        data = read(begin(read, member), member.file_size)
        if zlib.crc32(data) != member.CRC:
            raise ValueError(f"a damaged member {shown(name)} (its checksum differs)")
        return data

    def storage(wanted: _Storage) -> bytearray:
        return bytearray(content(f"data/{wanted.key}"))

    if f"{prefix}byteorder" in found and content("byteorder") != b"little":
        raise ValueError("numbers in big-endian order")
    if found[pickles[0]].file_size > LARGEST_PICKLE:
        raise ValueError(f"a table of more than {LARGEST_PICKLE:,} bytes")
    rules = Rules(_NAMES, _call, _reference)
    return _tensors(read_pickle(BytesIO(content("data.pkl")), rules), storage)


def _in_a_row(handle: int, path: Path, size: int) -> tuple[dict[str, Tensor], dict[str, Plain]]:
    """The older format: five pickles (magic, version, machine, the table, its keys), then each storage as the
    number of its values and the values, in the keys' order."""
    file = BytesIO(read_all(handle, path, min(size, LARGEST_PICKLE)))
    storages: dict[str, _Storage] = {}

    def known(key: object) -> _Storage:
        storage = _reference(key)
        if storages.setdefault(storage.key, storage) != storage:
            raise ValueError("one storage in two kinds")
        return storage

    rules = Rules(_NAMES, _call, known)
    _, version, machine, tree, keys = (read_pickle(file, rules) for _ in range(5))
    if version != 1001 or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("another version of the format, or numbers in big-endian order")
    listed: list[Any] = keys if isinstance(keys, list) else []
    if any(type(key) is not str for key in listed) or set(listed) != storages.keys():
        raise ValueError("a list of storages that is not that of its tensors")
    places: dict[str, int] = {}
    at = file.tell()
    for key in listed:
        storage = storages[key]
        length = storage.values * storage.dtype.itemsize
        if key in places or at + 8 + length > size:
            raise ValueError("storages beyond its end")
        if int.from_bytes(read_all(handle, path, 8, at), "little") != storage.values:
            raise ValueError("a storage of another size than its tensors say")
        places[key] = at + 8
        at += 8 + length

    def content(wanted: _Storage) -> bytearray:
        length = wanted.values * wanted.dtype.itemsize
        return bytearray(read_all(handle, path, length, places[wanted.key]))

    return _tensors(tree, content)


def _read(handle: int, path: Path, size: int) -> tuple[dict[str, Tensor], dict[str, Plain]]:
    head = read_all(handle, path, min(size, len(MAGIC)))
    if head == MAGIC:
        return _in_a_row(handle, path, size)
    if head.startswith(b"PK\x03\x04"):
        return _zipped(handle, path, size)
    most = min(size, 65_536)
    first, last = read_all(handle, path, most), read_all(handle, path, most, size - most)
    raise ModelFileError(f"{path}: {what_it_is(first, last)}")


def read_torch(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Plain]]:
    """The tensors, on the CPU, and the plain values of a file that `torch.save` wrote, by name.

    Tables within tables are joined by dots: {"state_dict": {"a": tensor}} gives "state_dict.a". Nothing is
    unpickled and nothing of the file is run. Raises ModelFileError, one sentence that says what was found.
    """
    with open_regular(path) as (handle, size):
        try:
            return _read(handle, path, size)
        except ValueError as error:
            raise ModelFileError(f"{path}: not usable, it holds {error}: {FETCH}, or {CONVERT}") from None


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights, safetensors or PyTorch's own: its content decides. ModelFileError."""
    with open_regular(path) as (handle, size):
        head = read_all(handle, path, min(size, len(MAGIC)))
    ours = head == MAGIC or head.startswith(b"PK\x03\x04")
    return read_torch(path)[0] if ours else read_tensors(path)[0]
