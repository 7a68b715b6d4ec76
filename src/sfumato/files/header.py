"""The header of a safetensors file, checked in full before anything is allocated for the tensors.

The format: 8 bytes with the header's length (little-endian), the header as JSON, then the tensors' bytes. The
limits below refuse in milliseconds what costs the reference parser half a minute and gigabytes (1.2 million
empty tensors in 80 MB took 37 s and 1.5 GB).
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from sfumato.files.json_file import parse_json

LONGEST_HEADER = 16 << 20
MOST_TENSORS = 65_536
HIGHEST_RANK = 8
LONGEST_NAME = 512
LONGEST_METADATA = 4 << 20
LARGEST_EMPTY = 1 << 40
"""An empty tensor's other sizes multiply to no more than this: (0, 10^18) is refused."""

SIZES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "C64": 8,
    "U64": 8,
    "U32": 4,
    "U16": 2,
}
"""Bytes of one value of each dtype that is read."""


class Entry(NamedTuple):
    """One tensor of the file: its bytes are data[begin:end]."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def shown(name: str) -> str:
    """A name for a message: escaped and cut."""
    text = ascii(name)
    return text if len(text) <= 90 else text[:80] + "...'"


def check_name(name: str) -> None:
    """Raises ValueError unless this is a tensor name: 1 to 512 printable characters."""
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or name == "__metadata__":
        raise ValueError(f"the tensor name {shown(name)}, names are 1 to {LONGEST_NAME} printable characters")


def check_metadata(metadata: object) -> dict[str, str]:
    """The metadata as strings to strings, at most 4 MiB; otherwise ValueError."""
    if not isinstance(metadata, dict):
        raise ValueError("metadata that is no table of strings")
    total = 0
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ValueError(f"metadata {shown(str(key))} that is not a string")
        total += len(key.encode("utf-8", "surrogatepass")) + len(value.encode("utf-8", "surrogatepass"))
    if total > LONGEST_METADATA:
        raise ValueError(f"{total:,} bytes of metadata (at most {LONGEST_METADATA:,})")
    return metadata


def _numbers(value: object, name: str, field: str) -> tuple[int, ...]:
    if not isinstance(value, list) or [n for n in value if type(n) is not int or not 0 <= n < 2**63]:
        raise ValueError(f"a {field} of tensor {shown(name)} that is no list of whole numbers from 0 to 2^63")
    return tuple(value)


def _entry(name: str, about: object, length: int) -> Entry:
    check_name(name)
    if not isinstance(about, dict) or about.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"a description of tensor {shown(name)} that is not dtype, shape and data_offsets")
    dtype = about["dtype"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise ValueError(f"tensor {shown(name)} of the unknown dtype {shown(str(dtype))}")
    shape = about["shape"]
    if isinstance(shape, list) and len(shape) > HIGHEST_RANK:
        raise ValueError(f"tensor {shown(name)} of {len(shape):,} dimensions (at most {HIGHEST_RANK})")
    shape = _numbers(shape, name, "shape")
    offsets = _numbers(about["data_offsets"], name, "data_offsets")
    if len(offsets) != 2 or not offsets[0] <= offsets[1] <= length:
        raise ValueError(f"tensor {shown(name)} at bytes {offsets} of {length:,} bytes of data")
    begin, end = offsets
    if prod(shape) * SIZES[dtype] != end - begin:
        raise ValueError(f"tensor {shown(name)} of shape {shape} and dtype {dtype} in {end - begin:,} bytes")
    if prod(n for n in shape if n) > LARGEST_EMPTY and 0 in shape:
        raise ValueError(f"the empty tensor {shown(name)} of the absurd shape {shape}")
    return Entry(name, dtype, shape, begin, end)


def parse_header(text: bytes, length: int) -> tuple[list[Entry], dict[str, str]]:
    """The tensors, in the order of their bytes, and the metadata of a header before `length` bytes of data.

    Every byte of the data belongs to exactly one tensor. Raises ValueError with a clause that completes "it
    holds ...".
    """
    tables = text.count(b'":{"') + text.count(b'": {"')  # quotes inside a text are escaped: these are tables
    if max(tables, text.count(b'"dtype"')) > MOST_TENSORS + 1:  # before the parsing, which would take seconds
        raise ValueError(f"more than {MOST_TENSORS:,} tensors")
    value = parse_json(text, depth=4)
    if not isinstance(value, dict):
        raise ValueError("a header that is no table")
    metadata = check_metadata(value.pop("__metadata__", {}))
    if len(value) > MOST_TENSORS:
        raise ValueError(f"{len(value):,} tensors (at most {MOST_TENSORS:,})")
    entries = sorted(
        (_entry(name, about, length) for name, about in value.items()), key=lambda e: (e.begin, e.end)
    )
    here = 0
    for entry in entries:
        if entry.begin != here:
            kind = (
                "bytes that belong to no tensor before"
                if entry.begin > here
                else "bytes of another tensor in"
            )
            raise ValueError(f"{kind} tensor {shown(entry.name)}")
        here = entry.end
    if here != length:
        raise ValueError(f"{length - here:,} bytes after its last tensor")
    return entries, metadata
