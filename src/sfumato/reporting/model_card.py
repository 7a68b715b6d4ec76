"""The model card: RUN/README.md, for people and, in its head, for the ecosystem's programs.

The head is the YAML that model hubs read (Mitchell et al. 2019, "Model cards for model reporting"; the
`model-index` of Papers with Code). What a person writes outside the marks survives.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from sfumato.errors import SettingsError
from sfumato.evaluation.record import Record
from sfumato.files.atomic import write_atomic
from sfumato.reporting import licence, tables, words
from sfumato.reporting.advice import advice, verdict
from sfumato.reporting.energy import estimate
from sfumato.reporting.front_matter import Value, merged
from sfumato.reporting.report import seconds
from sfumato.reporting.stored import Stored

NAME = "README.md"
_KINDS = ("text-to-image", "unconditional-image-generation")


def write_model_card(run: Stored) -> Path:
    """Writes RUN/README.md, or renews our part of it, and gives its path. Raises SettingsError for a file
    that is not text."""
    path = run.path / NAME
    try:
        before = path.read_text("utf-8") if path.is_file() else ""
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not UTF-8 text: convert it, or move it away") from None
    write_atomic(path, [merged(before, head(run), body(run)).encode("utf-8")])
    return path


def task(run: Stored) -> str:
    """What the ecosystem calls what it does."""
    return _KINDS[0] if run.card.text is not None else _KINDS[1]


def head(run: Stored) -> dict[str, Value]:
    """The card's metadata."""
    records = [record for record in run.newest if record.group is None]
    tags: list[Value] = ["sfumato", "diffusion", "image-generation"]
    tags += ["class-conditional"] if run.card.classes else []
    said: dict[str, Value] = {
        "library_name": "sfumato",
        "pipeline_tag": task(run),
        "license": licence.of_model(run),
        "tags": tags,
    }
    if re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?", run.data_name):
        said["datasets"] = [run.data_name]
    if records:
        said["metrics"] = list(dict.fromkeys(kind(record) for record in records))
        said["model-index"] = [{"name": run.name, "results": [_result(run, one) for one in records]}]
    return said


def kind(record: Record) -> str:
    """What the ecosystem may call a metric: "fid" by Inception's eyes alone, "fd-lite0" by others."""
    return record.terms.title.lower().replace(" ", "-")


def _result(run: Stored, record: Record) -> Value:
    """A record as a result of the model-index: the terms are its arguments."""
    terms, base = record.terms, record.baseline
    args: dict[str, Value] = {
        "extractor": terms.extractor,
        "weights_sha256": terms.weights_sha256,
        "resize": terms.resize,
        "real": terms.real,
        "generated": terms.generated,
        "reference_sha256": terms.reference_sha256,
        "seed": terms.seed,
        **dict(terms.settings),
    }
    if record.low is not None and record.high is not None:
        args |= {"low": record.low, "high": record.high}
    if base is not None:
        args["real_against_real"] = base.value
    return {
        "task": {"type": task(run), "name": task(run).replace("-", " ")},
        "dataset": {"name": run.data_name, "type": run.card.data.fingerprint[:16] or "unknown"},
        "metrics": [
            {
                "type": kind(record),
                "value": record.value,
                "name": terms.title,
                "args": args,
                "verified": False,
            }
        ],
    }


def body(run: Stored) -> str:
    """The card itself."""
    found = advice(run)
    name = plain(run.name)
    said = [f"# {name}", "", f"**{plain(verdict(run, found))}**", ""]
    if (run.home / "samples.png").is_file() and run.home.parent == run.path:
        said += [f"![Samples of {name}]({run.home.name}/samples.png)", ""]
    said += ["## What it is", "", *(plain(line) for line in words.model_words(run.card))]
    said += [*(plain(line) for line in words.sampler_words(run)), ""]
    said += ["```python", "import sfumato", "", 'pictures = sfumato.load("PATH OF THIS FOLDER").sample(4)']
    said += ["```", "", "## How good it is", ""]
    said += _figures(run)
    said += [f"{plain(one.says)}\n" for one in found if one.kind == "good"]
    warned = [one for one in found if one.kind != "good"]
    if warned:
        said += ["## What to know before using it", ""]
        said += [f"- {plain(one.says)}" for one in warned] + [""]
    said += ["## Data and training", ""]
    said += [f"- {plain(line)}" for line in (*words.data_words(run), *words.training_words(run))]
    said += [f"- {line}" for line in (estimate(seconds(run), _watts(run)).lines() if seconds(run) else [])]
    said += ["", "## Licence", "", *(f"- {plain(line)}" for line in licence.lines(run)), ""]
    if run.home.parent == run.path:
        said += [
            f"The whole of what was measured: [{run.home.name}/report.html]({run.home.name}/report.html)."
        ]
    return "\n".join(said)


def _watts(run: Stored) -> float | None:
    return run.parts.get("about", {}).get("watts")


def _figures(run: Stored) -> list[str]:
    rows = tables.whole(run)
    if not rows:
        return ["Not measured yet.", ""]
    said = ["| metric | value | 95 % interval | real against real | pictures |", "|---|---|---|---|---|"]
    said += [
        f"| {plain(r.title)} ({r.better}) | {r.value} | {r.interval or 'none'} | {r.baseline or 'unknown'} | "
        f"{r.numbers} |"
        for r in rows
    ]
    return [*said, ""]


def plain(text: str) -> str:
    """Text that Markdown and HTML show as it is, on one line."""
    line = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", line)
