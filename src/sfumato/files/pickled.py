"""A pickle read as data: its opcodes are interpreted by the few rules that tables of tensors need.

Nothing is unpickled: no name of a file is ever looked up, imported or called. What is not in the rules below
is refused. (The opcodes: Python's `pickletools`, protocols 2 to 5.)
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from sfumato.files.header import LONGEST_METADATA, shown

MOST_OPCODES = 4_000_000
"""A table of 65,536 tensors takes 2.5 million."""
LONGEST_WHOLE = 16
"""Bytes of a whole number."""
LONGEST_NAME = 256


@dataclass(frozen=True)
class Name:
    """A name that the pickle asks for, as `module.name`: a text and nothing more."""

    text: str


@dataclass(frozen=True)
class Rules:
    """What names and outside references mean: the only places where a pickle makes anything but plain values.

    `call` is given the name and its arguments, `reference` a persistent id; both raise ValueError with a
    clause that completes "it holds ...".
    """

    names: frozenset[str]
    call: Callable[[Name, tuple[Any, ...]], object]
    reference: Callable[[object], object]


def _take(file: BytesIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ValueError("a pickle that is cut off")
    return data


def _count(file: BytesIO, size: int) -> int:
    return int.from_bytes(_take(file, size), "little")


def _whole(file: BytesIO) -> int:
    length = _count(file, 1)
    if length > LONGEST_WHOLE:
        raise ValueError(f"a whole number of {length} bytes (at most {LONGEST_WHOLE})")
    return int.from_bytes(_take(file, length), "little", signed=True)


def _text(file: BytesIO, size: int, encoding: str = "utf-8") -> str:
    length = _count(file, size)
    if length > LONGEST_METADATA:
        raise ValueError(f"a text of {length:,} bytes (at most {LONGEST_METADATA:,})")
    return _decoded(_take(file, length), encoding)


def _decoded(data: bytes, encoding: str = "utf-8") -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise ValueError("a text that is not UTF-8") from None


def _line(file: BytesIO) -> str:
    line = file.readline(LONGEST_NAME)
    if not line.endswith(b"\n"):
        raise ValueError("a name without an end")
    return _decoded(line[:-1])


_VALUES: dict[bytes, Callable[[BytesIO], Any]] = {
    b"N": lambda file: None,
    b"\x88": lambda file: True,
    b"\x89": lambda file: False,
    b")": lambda file: (),
    b"]": lambda file: [],
    b"}": lambda file: {},
    b"J": lambda file: int.from_bytes(_take(file, 4), "little", signed=True),
    b"K": lambda file: _count(file, 1),
    b"M": lambda file: _count(file, 2),
    b"\x8a": _whole,
    b"G": lambda file: struct.unpack(">d", _take(file, 8))[0],
    b"X": lambda file: _text(file, 4),
    b"\x8c": lambda file: _text(file, 1),
    b"\x8d": lambda file: _text(file, 8),
    b"T": lambda file: _text(file, 4, "latin-1"),
    b"U": lambda file: _text(file, 1, "latin-1"),
}
"""Opcodes that put a value on the stack."""
_SKIPPED = {b"\x80": 1, b"\x95": 8}
"""The protocol's number and the lengths of frames: so many bytes that say nothing of values."""
_MEMO_SIZES = {b"h": 1, b"j": 4, b"q": 1, b"r": 4}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
STOP = b"."


@dataclass
class _Machine:
    """The pickle machine: a stack, the stacks below its marks, and the memo."""

    rules: Rules
    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def do(self, opcode: bytes, file: BytesIO) -> None:
        """One opcode. Raises ValueError, IndexError for an empty stack, KeyError for an empty memo."""
        if opcode in _VALUES:
            self.stack.append(_VALUES[opcode](file))
        elif opcode in _MEMO_SIZES:
            place = _count(file, _MEMO_SIZES[opcode])
            if opcode in b"hj":
                self.stack.append(self.memo[place])
            else:
                self.memo[place] = self.stack[-1]
        elif opcode in _TUPLES:
            self.stack.append(tuple(self._last(_TUPLES[opcode])))
        elif opcode in _SKIPPED:
            _take(file, _SKIPPED[opcode])
        else:
            self._make(opcode, file)

    def _make(self, opcode: bytes, file: BytesIO) -> None:
        match opcode:
            case b"(":
                self.below.append(self.stack)
                self.stack = []
            case b"t":
                items = self._since_mark()
                self.stack.append(tuple(items))
            case b"a":
                self._extend(self._last(1))
            case b"e":
                self._extend(self._since_mark())
            case b"s":
                self._fill(self._last(2))
            case b"u":
                self._fill(self._since_mark())
            case b"\x94":
                self.memo[len(self.memo)] = self.stack[-1]
            case b"c":
                self._name(_line(file), _line(file))
            case b"\x93":
                self._name(*self._last(2))
            case b"R":
                name, arguments = self._last(2)
                if not isinstance(name, Name) or not isinstance(arguments, tuple):
                    raise ValueError("a call of what is no name")
                self.stack.append(self.rules.call(name, arguments))
            case b"b":  # the attributes of a table (a state_dict's `_metadata`) say nothing of tensors
                self._last(1)
                if not isinstance(self.stack[-1], dict):
                    raise ValueError("a state for what is no table")
            case b"Q":
                self.stack.append(self.rules.reference(*self._last(1)))
            case b"":
                raise ValueError("a pickle that is cut off")
            case _:
                raise ValueError(f"the pickle opcode {opcode!r}, which tables of tensors do not need")

    def _last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("items for what is no list")
        self.stack[-1].extend(items)

    def _fill(self, pairs: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict) or len(pairs) % 2:
            raise ValueError("entries for what is no table")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) not in (str, int):  # the hash of nested tuples can take for ever
                raise ValueError("a table whose keys are neither texts nor whole numbers")
            self.stack[-1][key] = value

    def _name(self, module: Any, name: Any) -> None:
        text = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else ""
        if text not in self.rules.names:
            raise ValueError(f"the name {shown(text)}, which is none of those that tensors need")
        self.stack.append(Name(text))


def read_pickle(file: BytesIO, rules: Rules) -> object:
    """The value of the pickle that begins here; the file stands behind it afterwards.

    Lists, tuples, tables with texts and whole numbers as keys, numbers, texts, truth values, None, and what
    `rules` makes. Parts may be shared, and a list may hold itself: whoever walks through counts. Raises
    ValueError with a clause that completes "it holds ...".
    """
    machine = _Machine(rules)
    try:
        for _ in range(MOST_OPCODES):
            opcode = file.read(1)
            if opcode == STOP:
                if len(machine.stack) != 1 or machine.below:
                    raise ValueError("a pickle that leaves more than one value")
                return machine.stack[0]
            machine.do(opcode, file)
    except (IndexError, KeyError):
        raise ValueError("a pickle that takes what was never put") from None
    raise ValueError(f"more than {MOST_OPCODES:,} pickle opcodes")
