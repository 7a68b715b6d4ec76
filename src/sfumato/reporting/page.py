"""Templates filled in: one file, whole without a network, every name that comes from outside escaped."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from sfumato.files.atomic import write_atomic


def fill(template: str, **values: Any) -> str:
    """A template of the package with these values. Text is escaped wherever it stands; only what the package
    itself drew (`markupsafe.Markup`) is not."""
    room = Environment(
        loader=PackageLoader("sfumato.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    room.filters |= {"sha256_source": sha256_source, "options": options}
    return room.get_template(template).render(**values)


def options(text: str) -> Markup:
    """Text in which options of a command, such as --flip, stand out and are not broken."""
    plain = str(escape(text))  # of Markup, re.sub would escape what it puts in
    return Markup(re.sub(r"(?<!\S)(--[a-z-]+(?: \d+(?:\.\d+)?)?)", r"<code>\1</code>", plain))


def sha256_source(text: str) -> str:
    """How a content security policy names a script that may run: by what it says."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def write_page(path: Path, text: str) -> Path:
    """Writes a page, atomically. Raises RunError if the disk refuses."""
    write_atomic(path, [text.encode("utf-8")])
    return path
