"""Tensors in safetensors files: the only weights read or written. Nothing here can run code from a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from sfumato.errors import ModelFileError
from sfumato.files.atomic import Chunk, write_atomic
from sfumato.files.header import LONGEST_HEADER, SIZES, Entry, check_metadata, check_name, parse_header, shown
from sfumato.files.sniff import FETCH, open_regular, read_all, what_it_is

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
}


def _header(handle: int, path: Path, size: int) -> tuple[list[Entry], dict[str, str]]:
    head = read_all(handle, path, min(size, 512))
    length = int.from_bytes(head[:8], "little")
    if len(head) < 10 or head[8:9] != b"{" or length > size:
        most = min(size, 65_536)
        raise ModelFileError(
            f"{path}: {what_it_is(read_all(handle, path, most), read_all(handle, path, most, size - most))}"
        )
    if length > LONGEST_HEADER:
        raise ModelFileError(
            f"{path}: a header of {length:,} bytes, at most {LONGEST_HEADER:,} are read: {FETCH}"
        )
    if 8 + length > size:
        raise ModelFileError(f"{path}: cut off inside its header: {FETCH}")
    try:
        return parse_header(read_all(handle, path, length, 8), size - 8 - length)
    except ValueError as error:
        raise ModelFileError(f"{path}: a damaged safetensors file, it holds {error}: {FETCH}") from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the metadata of a safetensors file, whatever its name ends in.

    The content decides: a pickle, an archive or anything else is refused by name and never opened. The header
    is checked by our own limits (`header.py`) before safetensors (Hugging Face, 2022) reads the bytes. Values
    may be NaN or infinite: whoever uses them judges that. Raises ModelFileError.
    """
    return read_hashed(path)


def read_hashed(path: Path, sha256: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """As `read_tensors`; where `sha256` is given, the very bytes that are loaded must have this hash."""
    with open_regular(path) as (handle, size):
        entries, metadata = _header(handle, path, size)
        data = read_all(handle, path, size)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ModelFileError(f"{path}: its sha256 is not that in manifest.json: use another copy")
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ModelFileError(f"{path}: a damaged safetensors file ({error}): {FETCH}") from None
    del data
    if tensors.keys() != {entry.name for entry in entries}:
        raise ModelFileError(f"{path}: changed while it was read: try again when nothing writes to it")
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bool and tensor.numel() and int(tensor.view(torch.uint8).max()) > 1:
            raise ModelFileError(
                f"{path}: tensor {shown(name)} holds truth values other than 0 and 1: {FETCH}"
            )
    return tensors, metadata


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; its tensors are not read. Raises ModelFileError."""
    with open_regular(path) as (handle, size):
        return _header(handle, path, size)[1]


def _plain(path: Path, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        try:
            check_name(name)
            name.encode("utf-8")
        except ValueError as error:
            raise ModelFileError(f"{path}: not written, it would hold {error}") from None
        if tensor.dtype not in _NAMES or tensor.layout != torch.strided:
            raise ModelFileError(
                f"{path}: not written, tensor {shown(name)} is {tensor.dtype}, {tensor.layout}"
            )
        yield name, tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def tensor_chunks(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[Chunk]:
    """The bytes of a safetensors file, piece by piece, without a second copy of the tensors.

    Ordered by item size and then by name, as safetensors itself writes them, keys of the metadata sorted: the
    same tensors always give the same bytes. Tensors that share memory are written each in full.
    """
    plain = dict(_plain(path, tensors))
    try:
        said = check_metadata({**metadata, "format": "pt"})
    except ValueError as error:
        raise ModelFileError(f"{path}: not written, it would hold {error}") from None
    header: dict[str, object] = {"__metadata__": dict(sorted(said.items()))}
    order = sorted(plain, key=lambda name: (-plain[name].element_size(), name))
    here = 0
    for name in order:
        tensor = plain[name]
        dtype = _NAMES[tensor.dtype]
        end = here + tensor.numel() * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [here, end]}
        here = end
    try:
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
        text += b" " * (-len(text) % 8)
        parse_header(text, here)  # what the reader would refuse is not written
    except ValueError as error:
        raise ModelFileError(f"{path}: not written, it would hold {error}") from None
    if len(text) > LONGEST_HEADER:
        raise ModelFileError(f"{path}: not written, its header would be {len(text):,} bytes long")
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        if plain[name].numel():
            yield _bytes(plain[name])


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors as safetensors, atomically; the same tensors and metadata give the same bytes.

    `{"format": "pt"}` is always in the metadata, since other readers ask for it. Any layout in memory and any
    sharing is allowed; sparse tensors and rare dtypes raise ModelFileError. Raises RunError if the disk
    refuses; what was at `path` is then still there.
    """
    write_atomic(path, tensor_chunks(path, tensors, metadata or {}))
