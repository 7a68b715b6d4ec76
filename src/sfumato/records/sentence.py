"""What pydantic finds wrong, in a few words."""

from __future__ import annotations

from pydantic import ValidationError


def sentence(error: ValidationError) -> str:
    """The first thing that pydantic found, in a few words: where, and what."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part)[:60] for part in first["loc"])
    words = first["msg"].removeprefix("Value error, ")
    return f"{place}: {words}"[:400] if place else words[:400]
