"""JSON, read strictly: UTF-8, no key twice, no NaN, bounded in size, depth and length of numbers.

What two readers may understand differently is refused, and a small file cannot ask for much memory.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from sfumato.errors import ModelFileError
from sfumato.files.atomic import write_atomic
from sfumato.files.sniff import open_regular, read_all

MARKS = 1_000_000
"""At most so many brackets and commas: 16 MB of `[[],[],...` would become 300 MB of objects."""
LARGEST = 1 << 64
"""Whole numbers beyond it are refused: no setting is so large."""
LIMIT = 4 << 20


class _RefusedError(ValueError):
    """Well-formed, and still not taken."""


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RefusedError(f"the key {key[:80]!r} is there twice")
            seen.add(key)
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _RefusedError(f"the number {text[:40]}, which no computer float holds")
    return value


def _constant(name: str) -> float:
    raise _RefusedError(f"the value {name}, which is not JSON")


def _infinity(name: str) -> float:
    if name == "NaN":
        return _constant(name)
    return float(name)


def _check(value: object, depth: int) -> None:
    """Goes through the value level by level: how deep it is and how large its whole numbers are."""
    level: list[object] = [value]
    for _ in range(depth + 2):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
            elif isinstance(item, int) and abs(item) > LARGEST:
                raise _RefusedError("a whole number beyond 64 bits")
        level = inner
        if not level:
            return
    raise _RefusedError(f"values nested deeper than {depth}")


def parse_json(data: bytes, *, depth: int = 64, allow_infinity: bool = False) -> object:
    """The value of strict JSON text. Raises ValueError with a clause that completes "it holds ..."."""
    if data.startswith(b"\xef\xbb\xbf"):
        raise ValueError("a byte-order mark at its start")
    marks = data.count(b"[") + data.count(b"{") + data.count(b",")
    if marks > MARKS:
        raise ValueError(f"{marks:,} brackets and commas (at most {MARKS:,})")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"bytes that are not UTF-8 at offset {error.start}") from None
    del data
    try:
        value: object = json.loads(
            text,
            object_pairs_hook=_pairs,
            parse_float=_finite,
            parse_constant=_infinity if allow_infinity else _constant,
        )
    except _RefusedError:
        raise
    except RecursionError:
        raise ValueError(f"values nested deeper than {depth}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"a mistake at line {error.lineno}, column {error.colno} ({error.msg})") from None
    except ValueError:  # Python converts no more than 4,300 digits
        raise ValueError("a whole number beyond 64 bits") from None
    _check(value, depth)
    return value


def read_json(path: Path, *, limit: int = LIMIT, allow_infinity: bool = False) -> object:
    """The value in a JSON file of at most `limit` bytes.

    `allow_infinity` takes the bare `Infinity` and `-Infinity` that diffusers writes into scheduler settings;
    NaN is never taken. Raises ModelFileError with the file's name and what is wrong.
    """
    with open_regular(path) as (handle, size):
        if size > limit:
            raise ModelFileError(
                f"{path}: {size:,} bytes of JSON, at most {limit:,} are read: this is not a settings file"
            )
        data = read_all(handle, path, size)
    try:
        return parse_json(data, allow_infinity=allow_infinity)
    except ValueError as error:
        raise ModelFileError(
            f"{path}: not usable as JSON, it holds {error}: mend it or fetch the file again"
        ) from None


def json_bytes(value: object, *, allow_infinity: bool = False) -> bytes:
    """The JSON text of a value: two spaces, sorted keys, a newline at the end. Raises ValueError for NaN."""
    if allow_infinity:
        _no_nan(value)
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=allow_infinity)
    return (text + "\n").encode("utf-8")


def _no_nan(value: object) -> None:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            _no_nan(item)
    elif isinstance(value, float) and math.isnan(value):
        raise ValueError("NaN is not written as JSON")


def write_json(path: Path, value: object, *, allow_infinity: bool = False) -> None:
    """Writes a value as JSON, atomically; the same value gives the same bytes.

    Raises ValueError for NaN (and for infinity unless `allow_infinity`), RunError if the disk refuses.
    """
    write_atomic(path, [json_bytes(value, allow_infinity=allow_infinity)])
