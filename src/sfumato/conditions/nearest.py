"""Names that a user may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from sfumato.errors import SettingsError


def match(asked: str, names: Sequence[str]) -> int | None:
    """The place of a name: exact, or the only one that differs by capital letters alone."""
    text = asked.strip()
    if text in names:
        return names.index(text)
    lower = [name.lower() for name in names]
    return lower.index(text.lower()) if lower.count(text.lower()) == 1 else None


def unknown(start: str, asked: str, names: Sequence[str]) -> SettingsError:
    """The refusal of a name: "no class is called 'cta': did you mean cat?"."""
    lower = [name.lower() for name in names]
    near = difflib.get_close_matches(asked.strip().lower(), lower, n=3)
    shown = [names[lower.index(name)] for name in near] or list(names[:8])
    more = ", ..." if not near and len(names) > 8 else ""
    return SettingsError(
        f"{start} {asked[:60]!r}: {'did you mean' if near else 'there are'} "
        f"{', '.join(shown)}{more}" + ("?" if near else "")
    )
