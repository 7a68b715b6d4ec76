"""A pickle read as data: its opcodes are interpreted by the few rules that tables of tensors need.

Nothing is unpickled: no name of a file is ever looked up, imported or called. What is not in the rules below
is refused by name. `pickletools` (Python's disassembler) cuts the bytes into opcodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pickletools import genops
from typing import Any

from sfumato.files.header import LONGEST_METADATA, shown

MOST_OPCODES = 4_000_000
"""A table of 65,536 tensors takes 2.5 million."""
LARGEST_WHOLE = 1 << 127


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


_CONSTANT: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PLAIN = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINSTRING", "SHORT_BINSTRING"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass
class _Machine:
    """The pickle machine: a stack, the stacks below its marks, and the memo."""

    rules: Rules
    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def do(self, opcode: str, argument: Any) -> None:
        """One opcode. Raises ValueError, IndexError for an empty stack, KeyError for an empty memo."""
        if opcode in _CONSTANT:
            self.stack.append(_CONSTANT[opcode])
        elif opcode in _PLAIN:
            self.stack.append(_plain(argument))
        elif opcode in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif opcode == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif opcode not in ("PROTO", "FRAME"):
            self._make(opcode, argument)

    def _make(self, opcode: str, argument: Any) -> None:
        match opcode:
            case "MARK":
                self.below.append(self.stack)
                self.stack = []
            case "EMPTY_LIST":
                self.stack.append([])
            case "EMPTY_DICT":
                self.stack.append({})
            case "TUPLE":
                items = self._since_mark()
                self.stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple(self._last(_TUPLES[opcode])))
            case "APPEND":
                self._extend(self._last(1))
            case "APPENDS":
                self._extend(self._since_mark())
            case "SETITEM":
                self._fill(self._last(2))
            case "SETITEMS":
                self._fill(self._since_mark())
            case "GLOBAL":
                self._name(*str(argument).split(" ", 1))
            case "STACK_GLOBAL":
                self._name(*self._last(2))
            case "REDUCE":
                name, arguments = self._last(2)
                if not isinstance(name, Name) or not isinstance(arguments, tuple):
                    raise ValueError("a call of what is no name")
                self.stack.append(self.rules.call(name, arguments))
            case "BUILD":  # the attributes of a table (a state_dict's `_metadata`) say nothing of tensors
                self._last(1)
                if not isinstance(self.stack[-1], dict):
                    raise ValueError("a state for what is no table")
            case "BINPERSID":
                self.stack.append(self.rules.reference(*self._last(1)))
            case _:
                raise ValueError(f"the pickle opcode {opcode}, which tables of tensors do not need")

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

    def _name(self, *parts: Any) -> None:
        text = ".".join(part for part in parts if isinstance(part, str))
        if len(parts) != 2 or text not in self.rules.names:
            raise ValueError(f"the name {shown(text)}, which is none of those that tensors need")
        self.stack.append(Name(text))


def _plain(value: Any) -> Any:
    if type(value) is int and not -LARGEST_WHOLE <= value < LARGEST_WHOLE:
        raise ValueError("a whole number of more than 16 bytes")
    if isinstance(value, str) and len(value) > LONGEST_METADATA:
        raise ValueError(f"a text of {len(value):,} characters (at most {LONGEST_METADATA:,})")
    return value


def read_pickle(file: BytesIO, rules: Rules) -> object:
    """The value of the pickle that begins here; the file stands behind it afterwards.

    Lists, tuples, tables with texts and whole numbers as keys, numbers, texts, truth values, None, and what
    `rules` makes. Parts may be shared, and a list may hold itself: whoever walks through counts. Raises
    ValueError with a clause that completes "it holds ...".
    """
    machine = _Machine(rules)
    try:
        for count, (opcode, argument, _) in enumerate(genops(file)):
            if count >= MOST_OPCODES:
                raise ValueError(f"more than {MOST_OPCODES:,} pickle opcodes")
            if opcode.name == "STOP":
                if len(machine.stack) != 1:
                    raise IndexError
                return machine.stack[0]
            machine.do(opcode.name, argument)
    except (IndexError, KeyError):
        raise ValueError("a pickle that takes what was never put") from None
    raise ValueError("a pickle without an end")
