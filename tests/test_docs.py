"""What the README and the manual show: their Python runs, their commands exist, their links lead somewhere.

Python blocks of one page run in order in one namespace, in a folder with small pictures (`my-photos`) and
two untrained runs (`runs/digits` with classes, `runs/mine` without). Command lines are held against the real
command line's own parser.
"""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import typer.main
from PIL import Image

from sfumato.assembled import build
from sfumato.card import Card, ImageSettings, SamplerSettings
from sfumato.cli import app
from sfumato.folders.run import save
from sfumato.networks import UNetConfig, parameter_count
from sfumato.predictions import V
from sfumato.tables import Table

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
PROGRAM = typer.main.get_command(app)


class Block(NamedTuple):
    """A fenced block: its language, the line of its first line, its text."""

    language: str
    line: int
    text: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found = [
        Block(m[1], text.count("\n", 0, m.start(2)) + 1, m[2])
        for m in re.finditer(r"^```([a-z]*)[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ]
    assert text.count("\n```") + text.startswith("```") == 2 * len(found), f"{page}: a block is not closed"
    return found


def _run(folder: Path, channels: int, side: int, classes: tuple[str, ...] | None) -> None:
    """An untrained run."""
    network = UNetConfig(
        in_channels=channels,
        out_channels=channels,
        image_size=(side, side),
        channels=(8, 8),
        layers=1,
        groups=4,
        head_channels=8,
        classes=len(classes) if classes else None,
        null_class=classes is not None,
    )
    card = Card.of(
        network=network,
        schedule=Table.cosine(),
        prediction=V(),
        image=ImageSettings(channels=channels, height=side, width=side),
        classes=classes,
        clip=True,
        sampler=SamplerSettings(steps=5),
    )
    save(folder, build(card), card)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has after the first two journeys, made in a second."""
    root = tmp_path_factory.mktemp("reader")
    photos = root / "my-photos"
    photos.mkdir()
    wave = np.arange(18)
    for i in range(48):
        height = 16 + i % 3
        green = (wave[:height, None] * 14 + i) % 256 * np.ones((1, 18))
        picture = np.stack([np.full((height, 18), 5 * i), green, 255 - green], axis=2)
        Image.fromarray(picture.astype(np.uint8)).save(photos / f"{i:02d}.png")
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    _run(root / "runs" / "digits", 1, 28, tuple("0123456789"))
    _run(root / "runs" / "mine", 3, 16, None)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("page", [n for n in NAMES if any(b.language == "python" for b in blocks(ROOT / n))])
def test_python_runs(page: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("SFUMATO_CACHE", str(place / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # dataclasses look their module up
    for block in blocks(ROOT / page):
        if block.language == "python":
            code = "\n" * (block.line - 1) + block.text
            ready = compile(code, str(ROOT / page), "exec", dont_inherit=True)
            exec(ready, module.__dict__)  # noqa: S102 (our own pages)


def commands(text: str) -> list[list[str]]:
    """The `sfumato` command lines in the text of a shell block, as words after the program's name."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        at = next((i for i, word in enumerate(words) if word.rpartition("/")[2] == "sfumato"), None)
        if at is not None and "pip" not in words[:at]:
            found.append(words[at + 1 :])
    return found


def wrong_with(words: list[str]) -> str | None:
    """What the real command line would not understand; None if it would understand all."""
    with PROGRAM.make_context("sfumato", [], resilient_parsing=True) as context:
        if not words or words[0].startswith("-"):
            known = {option for p in PROGRAM.get_params(context) for option in p.opts}
            return next((f"no option {word}" for word in words if word not in known), None)
        return _wrong_in(PROGRAM, context, words)


def _wrong_in(group: Any, context: Any, words: list[str]) -> str | None:
    """The same below a command that has commands of its own."""
    command = group.get_command(context, words[0]) if words else None
    if command is None:
        return f"no command {' '.join(words[:1])}"
    with command.make_context(words[0], [], parent=context, resilient_parsing=True) as inner:
        if hasattr(command, "get_command") and words[1:] != ["--help"]:
            return _wrong_in(command, inner, words[1:]) if words[1:] else None
        parser = command.make_parser(inner)
        inner.resilient_parsing = False  # so that the parser refuses what it does not know
        try:
            _, left, _ = parser.parse_args(args=words[1:])
        except Exception as error:
            return str(getattr(error, "message", error))
        return f"too many words: {left}" if left else None


def _options(group: Any, context: Any) -> set[str]:
    """The options of all commands, those of commands' commands among them."""
    found = {o for p in group.params for o in (*p.opts, *p.secondary_opts)}
    for name in group.list_commands(context) if hasattr(group, "list_commands") else ():
        found |= _options(group.get_command(context, name), context)
    return found


@pytest.mark.parametrize("page", NAMES)
def test_commands_exist(page: str) -> None:
    shown = [
        (b.line, words)
        for b in blocks(ROOT / page)
        if b.language in ("console", "sh")
        for words in commands(b.text)
    ]
    text = (ROOT / page).read_text("utf-8")
    for m in re.finditer(r"(?<!`)`(sfumato(?: [^`]+)?)`(?!`)", text):  # in running text
        shown.append((text.count("\n", 0, m.start()) + 1, shlex.split(m[1])[1:]))
    wrong = [
        f"{page}:{line}: {' '.join(words)}: {why}" for line, words in shown if (why := wrong_with(words))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_command_check_bites() -> None:
    assert commands("# sfumato nothing\n$ .venv/bin/sfumato sample \\\n  RUN -n 4  # four") == [
        ["sample", "RUN", "-n", "4"]
    ]
    assert commands("torchrun --nproc-per-node 2 -m sfumato train x --out y") == [
        ["train", "x", "--out", "y"]
    ]
    assert wrong_with(["sample", "RUN", "-n", "16", "--out", "x.png"]) is None
    assert wrong_with(["sample", "RUN", "--sharpness", "2"])
    assert wrong_with(["sample", "RUN", "ANOTHER"])
    assert wrong_with(["paint", "RUN"])
    assert wrong_with(["edit", "img2img", "RUN", "x.png", "--strength", "0.4"]) is None
    assert wrong_with(["edit", "img2img", "RUN", "x.png", "--strongly", "0.4"])
    assert wrong_with(["edit", "dance", "RUN"])
    assert wrong_with(["--version"]) is None
    assert wrong_with(["--verbose"])


@pytest.mark.parametrize("page", NAMES)
def test_options_in_running_text_exist(page: str) -> None:
    """`--hold-out` alone, between backquotes, is an option of some command of ours."""
    with PROGRAM.make_context("sfumato", [], resilient_parsing=True) as context:
        every = _options(PROGRAM, context)
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    spans = [m[1] for m in re.finditer(r"`(--[^`]+)`", text)]
    gone = {option for span in spans for option in re.findall(r"--[a-z-]+", span)} - every - {"--help"}
    assert not gone, f"{page}: no command has {sorted(gone)}"


@pytest.mark.parametrize("page", NAMES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    links = [m[1].partition("#")[0] for m in re.finditer(r"\]\(([^)\s]+)\)", text) if "://" not in m[1]]
    gone = [link for link in links if link and not ((ROOT / page).parent / link).exists()]
    files = [m[1] for m in re.finditer(r"`python (?:-m pytest )?([\w/]+\.py)\b", text)]
    gone += [file for file in files if not (ROOT / file).exists()]
    assert not gone, f"{page}: {gone} is not there"


@pytest.mark.slow
@pytest.mark.parametrize("script", ["orders", "resume"])
def test_a_benchmark_finds_what_it_borrows_from_the_tests(script: str, tmp_path: Path) -> None:
    code = f"import runpy; runpy.run_path({str(ROOT / 'benchmarks' / script)!r} + '.py', run_name='imported')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_api_page_lists_what_there_is() -> None:
    listed = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE)
    assert len(listed) == len(set(listed))
    for name in listed:
        importlib.import_module(name)
    tops = {
        path.stem for path in (ROOT / "src" / "sfumato").iterdir() if path.suffix == ".py" or path.is_dir()
    }
    tops -= {"__init__", "__main__", "__pycache__"}
    missing = tops - {name.split(".")[1] for name in listed}
    assert not missing, f"docs/api.md leaves out {sorted(missing)}"


def test_the_sizes_are_what_the_manual_says() -> None:
    """docs/training.md: about 1, 3, 9, 40 million numbers."""
    from sfumato.networks import SIZES, preset

    said = dict(zip(SIZES, (1, 3, 9, 40), strict=True))
    for size, millions in said.items():
        count = parameter_count(preset(size, channels=3, image_size=(32, 32), classes=10)) / 1e6
        assert 0.6 * millions < count < 1.5 * millions, f"{size}: {count:.2f} million"


@pytest.mark.slow
def test_the_manual_builds(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "--site-dir",
            str(tmp_path / "site"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = {page.name for page in (tmp_path / "site").glob("*.html")}
    assert {path.with_suffix(".html").name for path in (ROOT / "docs").glob("*.md")} <= pages
    for page in (tmp_path / "site").glob("*.html"):
        fetched = re.findall(r'(?:src|href)="(https?:)?//[^"]*\.(?:js|css|woff2?)"', page.read_text("utf-8"))
        assert not fetched, f"{page.name} fetches something from elsewhere"
