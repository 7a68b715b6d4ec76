"""The head and the body of a README that a program and a person both write.

What the program says stands between marks; what stands outside them is the person's and survives. The head is
YAML; ours is written in the part of it that is JSON too, so that no text can be read as anything but text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

BEGIN = "written by sfumato: what is between these marks is replaced"
END = "end of what sfumato wrote"
_HEAD = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_KEY = re.compile(r"[^\s#:][^:]*(?=\s*:)")

Value = str | int | float | bool | None | list[Any] | dict[str, Any]
"""What JSON holds."""


def merged(text: str, head: Mapping[str, Value], body: str) -> str:
    """The README `text` ("" for none yet) with our head and body in place of those between the marks. Keys
    that the person has set are theirs: ours of the same name is left out."""
    match = _HEAD.match(text)
    rest = text[match.end() :] if match else text
    own_head = _outside(match[1] if match else "", f"# {BEGIN}", f"# {END}")
    marked = match is not None and f"# {BEGIN}" in match[1]
    kept = [block for block in _blocks(own_head) if marked or _key(block) not in {"model-index"}]
    theirs = {_key(block) for block in kept}
    ours = [line for key, value in head.items() if key not in theirs for line in _lines(key, value, 0)]
    parts = ["---", f"# {BEGIN}", *ours, f"# {END}", *(block.rstrip("\n") for block in kept), "---"]
    begin, end = f"<!-- {BEGIN} -->", f"<!-- {END} -->"
    whole = f"{begin}\n{body.strip()}\n{end}"
    if begin in rest and end in rest.partition(begin)[2]:
        before, _, after = rest.partition(begin)
        rest = before + whole + after.partition(end)[2]
    else:
        rest = f"{rest.rstrip()}\n\n{whole}\n" if rest.strip() else f"\n{whole}\n"
    return "\n".join(parts) + "\n" + rest


def _outside(text: str, begin: str, end: str) -> str:
    """The lines that are not between the marks."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines():
        inside = inside or line.strip() == begin
        if not inside:
            kept.append(line)
        inside = inside and line.strip() != end
    return "\n".join(kept)


def _blocks(text: str) -> list[str]:
    """The keys of a YAML mapping at its outermost level, each with what belongs to it; comments before."""
    found: list[str] = []
    for line in text.splitlines():
        if not line.strip() and not found:
            continue
        if _key(line) is not None or not found:
            found.append(line)
        else:
            found[-1] += "\n" + line
    return found


def _key(block: str) -> str | None:
    match = _KEY.match(block)
    return match[0].strip("\"' ") if match and not block.startswith("- ") else None


def _lines(key: str, value: Value, depth: int) -> list[str]:
    """A key of a YAML mapping. Text is written as a JSON string, which every YAML reader takes literally."""
    pad = "  " * depth
    if isinstance(value, dict) and value:
        inner = [line for k, v in value.items() for line in _lines(k, v, depth + 1)]
        return [f"{pad}{key}:", *inner]
    if isinstance(value, list) and value:
        return [f"{pad}{key}:", *(line for item in value for line in _item(item, depth))]
    return [f"{pad}{key}: {_scalar(value)}"]


def _item(item: Value, depth: int) -> list[str]:
    pad = "  " * depth
    if not isinstance(item, dict) or not item:
        return [f"{pad}- {_scalar(item)}"]
    inner = [line for k, v in item.items() for line in _lines(k, v, depth + 1)]
    return [f"{pad}- {inner[0].lstrip()}", *inner[1:]]


def _scalar(value: Value) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)
