"""The house: imports only go down the floors, one idea a file, nothing heavy before it is needed.

Everything is read from the syntax trees of src/; only the last test runs Python.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "sfumato"

# A unit is a package, a top-level module, or a module of a package that stands above the rest of it. A step
# may import from the steps below it and a unit from itself; the units of one step know nothing of each other.
# Steps are the finest order that holds.
FLOORS: tuple[tuple[str, tuple[frozenset[str], ...]], ...] = (
    ("0 ground", (frozenset({"errors"}), frozenset({"level", "noise"}))),
    ("1 matter", (frozenset({"forward", "networks", "data", "files", "operators"}),)),
    (
        "2 meaning",
        (
            frozenset({"schedules", "codecs", "conditions"}),
            frozenset({"tables", "learned"}),
            frozenset({"predictions"}),
        ),
    ),
    (
        "3 mathematics",
        (
            frozenset({"denoiser", "bound"}),
            frozenset({"model", "solvers", "guidance"}),
            frozenset({"grids", "records"}),
            frozenset({"plans"}),
        ),
    ),
    (
        "4 model",
        (
            frozenset({"sampling", "sampler_names", "training"}),
            frozenset({"walkers"}),
            frozenset({"interop", "card", "samplers"}),
            frozenset({"assembled"}),
        ),
    ),
    # training writes runs and a run reads back its averages, so the package stands on two floors
    (
        "5 run",
        (
            frozenset({"folders", "training.told", "training.unsaid"}),
            frozenset({"guides", "training.recipes"}),
            frozenset({"recipe"}),
            frozenset({"guided", "guides.account"}),
            frozenset({"runs"}),
            frozenset({"training.drawing"}),
            frozenset({"training.preview"}),
            frozenset({"provenance", "training.run"}),
        ),
    ),
    (
        "6 crafts",
        (
            frozenset({"evaluation", "inside"}),
            frozenset({"editing", "finetuning", "distillation", "tuning"}),
            frozenset({"reporting"}),
        ),
    ),
    ("7 doors", (frozenset({"serving", "cli"}), frozenset({"__main__"}))),
)
STEP = {unit: n for n, step in enumerate(step for _, steps in FLOORS for step in steps) for unit in step}

# What some units may import of ours, beside themselves: tighter than their floor.
ONLY = {
    "networks": {"errors", "noise"},
    "files": {"errors"},
    "data": {"errors", "noise"},
    "operators": {"errors", "noise"},
    "solvers": {"errors", "level", "noise", "forward", "predictions", "denoiser"},
    "guidance": {"errors", "level", "forward", "predictions", "denoiser"},
}
# Heavy or optional packages -> the files that may import them at their top. Elsewhere: inside the function.
HEAVY: Mapping[str, tuple[str, ...]] = {
    "matplotlib": (),
    "tensorboard": (),
    "torch.utils.tensorboard": (),
    "wandb": (),
    "diffusers": (),
    "transformers": (),
    "torch.distributed": ("training/crew.py",),
    "pydantic": (
        "records/",
        "card.py",
        "folders/classifier.py",
        "guides/account.py",
        "provenance.py",
        "editing/record.py",
        "evaluation/record.py",
        "tuning/kept.py",
        "tuning/trial.py",
    ),
    "rich": ("cli/",),
    "typer": ("cli/",),
    "click": ("cli/",),
}
VAGUE = {"utils", "util", "common", "base", "helpers", "helper", "misc", "core", "tools", "types", "shared"}
LINES, FUNCTION_LINES, TASK_LINES = 330, 70, 40
# file or file:function -> why it may be longer. An entry that is not needed any more fails the test.
LONGER: dict[str, str] = {
    "cli/train.py:train": "its arguments are the options of the command, a line or two each",
    "cli/sample.py:sample": "its arguments are the options of the command, a line or two each",
    "cli/evaluate.py:evaluate": "its arguments are the options of the command, a line or two each",
}


class Import(NamedTuple):
    """A module of ours that a file imports, at its top or inside a function."""

    file: str
    line: int
    target: str


def _files() -> dict[str, str]:
    """Path inside the package -> text, for every module."""
    found = {path.relative_to(SRC).as_posix(): path.read_text("utf-8") for path in sorted(SRC.rglob("*.py"))}
    assert len(found) > 20
    return found


def _module(file: str) -> str:
    """ "data/toy.py" -> "data.toy", "data/__init__.py" -> "data", "__init__.py" -> ""."""
    parts = file.removesuffix(".py").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(files: Mapping[str, str]) -> list[Import]:
    """Every import of ours. `from sfumato.a import b` is of a.b where that is a module, of a otherwise."""
    modules = {_module(file) for file in files}
    found: list[Import] = []
    for file, text in files.items():
        for node in ast.walk(ast.parse(text)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names if a.name.split(".")[0] == "sfumato"]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}:{node.lineno}: a relative import; write the full name"
                inside = node.module is not None and node.module.split(".")[0] == "sfumato"
                names = [f"{node.module}.{a.name}" for a in node.names] if inside else []
            for name in names:
                target = name.removeprefix("sfumato").removeprefix(".")
                target = target if target in modules else target.rpartition(".")[0]
                found.append(Import(file, getattr(node, "lineno", 0), target))
    return found


def _unit(module: str) -> str:
    """The longest beginning of a module's name that has a floor, or its first part."""
    parts = module.split(".")
    ways = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((way for way in ways if way in STEP), parts[0])


def wrong_imports(files: Mapping[str, str]) -> list[str]:
    """Imports that go up or sideways, one sentence each."""
    wrong: list[str] = []
    for file, line, target in _imports(files):
        here, there = _unit(_module(file)), _unit(target)
        if (
            here == there or here == "" or there == ""
        ):  # the entrance is lazy; from it comes __version__ alone
            continue
        where = f"src/sfumato/{file}:{line}"
        if here not in STEP or there not in STEP:
            wrong.append(f"{where}: {here if here not in STEP else there} has no floor: give it one")
        elif STEP[there] >= STEP[here]:
            way = "sideways" if STEP[there] == STEP[here] else "up"
            wrong.append(f"{where}: {here} imports {target}, which goes {way}")
        elif here in ONLY and there not in ONLY[here]:
            wrong.append(
                f"{where}: {here} imports {target}: it may know {', '.join(sorted(ONLY[here]))} only"
            )
    return list(dict.fromkeys(wrong))


def _cycle(files: Mapping[str, str]) -> list[str]:
    """The modules of one import cycle, [] without any. The lazy entrance is left out."""
    graph: dict[str, set[str]] = {_module(file): set() for file in files if _module(file)}
    for file, _, target in _imports(files):
        here = _module(file)
        if here and target and target != here:
            graph[here].add(target)
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def _at_the_top(nodes: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported, those under if and try included."""
    for node in nodes:
        yield node
        checking = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if (
            isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef | ast.For | ast.While)
            and not checking
        ):
            inner: list[ast.stmt] = [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt)]
            yield from _at_the_top(inner)
            for handler in getattr(node, "handlers", ()):
                yield from _at_the_top(handler.body)


def heavy_at_the_top(file: str, text: str) -> list[str]:
    """Heavy packages that importing this file would import."""
    found: list[str] = []
    for node in _at_the_top(ast.parse(text).body):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        for heavy, places in HEAVY.items():
            if any(n == heavy or n.startswith(heavy + ".") for n in names) and not file.startswith(
                places or ("-",)
            ):
                found.append(
                    f"src/sfumato/{file}:{node.lineno}: {heavy} at the top: import it where it is needed"
                )
    return found


def test_imports_go_down_the_floors() -> None:
    assert not wrong_imports(_files()), "\n".join(wrong_imports(_files()))


def test_there_is_no_import_cycle() -> None:
    assert not _cycle(_files()), " -> ".join(_cycle(_files()))


def test_heavy_packages_are_imported_where_they_are_needed() -> None:
    wrong = [sentence for file, text in _files().items() for sentence in heavy_at_the_top(file, text)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("level.py", "from sfumato.schedules import Cosine"),
        ("solvers/some.py", "from sfumato.schedules import Cosine"),
        ("solvers/some.py", "def f():\n    from sfumato.model import Model"),
        ("guidance/some.py", "import sfumato.model"),
        ("networks/some.py", "from sfumato.level import Level"),
        ("networks/some.py", "from sfumato import level"),
        ("files/some.py", "from sfumato.noise import Noise"),
        ("data/some.py", "from sfumato.files import read_json"),
        ("training/some.py", "from sfumato.cli import main"),
        ("training/trainer.py", "from sfumato.training.run import FolderRun"),
        ("schedules.py", "from sfumato.conditions.classes import Classes"),
        ("brand_new.py", "from sfumato.level import Level"),
    ],
)
def test_bites(file: str, text: str) -> None:
    assert wrong_imports(_files() | {file: text})


def test_bites_on_cycles_and_heavy_imports() -> None:
    ring = {
        "data/a.py": "from sfumato.data import b",
        "data/b.py": "def f():\n    from sfumato.data.a import x",
    }
    assert _cycle(ring)
    assert heavy_at_the_top("some.py", "try:\n    import wandb\nexcept ImportError:\n    wandb = None")
    assert heavy_at_the_top("some.py", "from torch.utils import tensorboard")
    assert heavy_at_the_top("training/trainer.py", "from pydantic import BaseModel")
    assert not heavy_at_the_top("some.py", "def f():\n    import wandb")
    assert not heavy_at_the_top("cli/train.py", "import typer")


def test_names_say_what_is_inside() -> None:
    vague = [file for file in _files() if VAGUE & set(file.removesuffix(".py").split("/"))]
    assert not vague, f"{vague}: a name by the field's plain word, please"


def _most(file: str, function: str) -> int:
    """How long a function may be. A task of editing is a plan, a hook and a guidance; so is what a command
    makes of them, its `draw`: around that stand options and their refusals."""
    task = file.startswith("editing/") or (file.startswith("cli/edits/") and function == "draw")
    return TASK_LINES if task else FUNCTION_LINES


def _too_long(files: Mapping[str, str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for file, text in files.items():
        if len(text.splitlines()) > LINES:
            found[file] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > _most(file, node.name):
                    found[f"{file}:{node.name}"] = length
    return found


def test_files_and_functions_are_short() -> None:
    found = _too_long(_files())
    wrong = [f"src/sfumato/{place}: {lines} lines" for place, lines in found.items() if place not in LONGER]
    most = f"at most {LINES} lines a file, {FUNCTION_LINES} a function and {TASK_LINES} a task"
    assert not wrong, f"{most}:\n" + "\n".join(wrong)
    assert set(LONGER) <= set(found), f"no longer needed: {set(LONGER) - set(found)}"


def test_bites_on_long_functions() -> None:
    text = "def draw():\n" + "    x = 1\n" * TASK_LINES
    assert _too_long({"editing/some.py": text, "cli/edits/some.py": text, "cli/some.py": text}) == {
        "editing/some.py:draw": TASK_LINES + 1,
        "cli/edits/some.py:draw": TASK_LINES + 1,
    }


def _recorded(node: ast.stmt) -> bool:
    """A record whose first line is its `kind` tag says which documented thing it stands for."""
    first = node.body[0] if isinstance(node, ast.ClassDef) else None
    return (
        isinstance(first, ast.AnnAssign) and isinstance(first.target, ast.Name) and first.target.id == "kind"
    )


def test_everything_public_says_what_it_is() -> None:
    wrong: list[str] = []
    for file, text in _files().items():
        tree = ast.parse(text)
        if ast.get_docstring(tree) is None:
            wrong.append(f"src/sfumato/{file}: the module")
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                public = not node.name.startswith("_") and not _recorded(node)
                if public and ast.get_docstring(node) is None:
                    wrong.append(f"src/sfumato/{file}:{node.lineno}: {node.name}")
    assert not wrong, "no docstring:\n" + "\n".join(wrong)


def test_the_readme_shows_every_part_of_the_house() -> None:
    tree = (ROOT / "README.md").read_text("utf-8").partition("## What is inside")[2].partition("\n## ")[0]
    parts = {file.split("/")[0] for file in _files()} - {"__init__.py", "__main__.py"}
    shown = {part if part.endswith(".py") else f"{part}/" for part in parts}
    missing = sorted(part for part in shown if part not in tree.split())
    assert not missing, f"README.md, What is inside: {missing} is not there"
    gone = [
        word
        for word in tree.split()
        if word.endswith((".py", "/")) and "." not in word[:-3] and word[0] != "`"
    ]
    gone = [word for word in gone if not (SRC / word).exists() and not (ROOT / word).exists()]
    assert not gone, f"README.md, What is inside: {gone} does not exist"


def test_importing_sfumato_is_light() -> None:
    """Neither the package nor its mathematics brings in what only some commands need."""
    code = (
        "import sys, sfumato\n"
        f"first = [m for m in {sorted(HEAVY)!r} if m in sys.modules and m != 'torch.distributed']\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
        "import sfumato.sampling, sfumato.model, sfumato.training.trainer, sfumato.data.prepare\n"
        "later = ['matplotlib', 'tensorboard', 'wandb', 'diffusers', 'pydantic', 'rich', 'typer']\n"
        "sys.exit(' '.join(first + [m for m in later if m in sys.modules]) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
