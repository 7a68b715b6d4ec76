"""What src/ never does, read from its syntax trees (part E of the reliability plan); draws included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SRC = Path(__file__).parents[1] / "src" / "sfumato"

# (file, text of the line) -> why it may stay. An entry that is not needed any more fails the test.
ALLOWED: dict[tuple[str, str], str] = {}

MODULES = {
    "pickle": "runs code",
    "cPickle": "runs code",
    "_pickle": "runs code",
    "dill": "runs code",
    "cloudpickle": "runs code",
    "joblib": "unpickles",
    "shelve": "unpickles",
    "marshal": "crashes on hostile bytes",
    "yaml": "settings are JSON",
    "random": "draws belong to noise.py",
    "secrets": "draws belong to noise.py",
    "requests": "nothing is fetched",
    "urllib.request": "nothing is fetched",
    "http.client": "nothing is fetched",
    "ftplib": "nothing is fetched",
    "telnetlib": "nothing is fetched",
    "torch.hub": "fetches code",
    "torch.package": "unpickles",
}
CALLS = {
    "torch.load": "unpickles",
    "torch.jit.load": "runs code",
    "torch.save": "pickles",
    "numpy.random": "draws belong to noise.py",
    "eval": "runs code",
    "exec": "runs code",
    "compile": "makes code",
    "__import__": "imports by a text",
    "importlib.import_module": "imports by a text",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "tempfile.mktemp": "can be taken by another",
    "print": "library code returns or logs",
    "torch.manual_seed": "draws belong to noise.py",
    "torch.seed": "draws belong to noise.py",
    "torch.Generator": "draws belong to noise.py",
    "torch.normal": "draws belong to noise.py",
    "torch.bernoulli": "draws belong to noise.py",
    "torch.multinomial": "draws belong to noise.py",
    "torch.poisson": "draws belong to noise.py",
    "torch.dropout": "draws belong to noise.py",
    "torch.nn.Dropout": "noise.Dropout draws from the samples' streams",
    "torch.nn.Dropout2d": "noise.Dropout draws from the samples' streams",
    "torch.nn.Dropout3d": "noise.Dropout draws from the samples' streams",
    "torch.nn.AlphaDropout": "noise.Dropout draws from the samples' streams",
    "torch.nn.functional.dropout": "noise.Dropout draws from the samples' streams",
}
STARTS = {
    "torch.rand": "draws belong to noise.py",
    "torch.distributions": "draws belong to noise.py",
    "numpy.random.": "draws belong to noise.py",
    "os.exec": "runs a program",
    "os.spawn": "runs a program",
}
METHODS = {
    "normal_": "draws belong to noise.py",
    "uniform_": "draws belong to noise.py",
    "random_": "draws belong to noise.py",
    "bernoulli_": "draws belong to noise.py",
    "exponential_": "draws belong to noise.py",
    "log_normal_": "draws belong to noise.py",
    "cauchy_": "draws belong to noise.py",
    "geometric_": "draws belong to noise.py",
    "extractall": "an archive's names can lead outside",
}
PLACES = {  # a thing that belongs to one place only
    "safetensors": ("files/", "model files are opened by files/ alone"),
    "PIL.Image.open": ("data/decode.py", "pictures are opened by data/decode.py alone"),
}
COMMANDS = ("cli/",)  # the command line prints


class Found(NamedTuple):
    line: int
    what: str


def _aliases(tree: ast.AST) -> dict[str, str]:
    """Local name -> dotted name of what was imported, wherever in the file."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                found[name.asname or name.name.split(".")[0]] = (
                    name.name if name.asname else name.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for name in node.names:
                found[name.asname or name.name] = f"{node.module}.{name.name}"
    return found


def _dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    """`np.random.randn` as `numpy.random.randn`; "" for what is no plain name."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value, aliases)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def _imports(node: ast.AST, file: str) -> Iterator[str]:
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [name.name for name in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        names = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
    for name in names:
        for banned, why in MODULES.items():
            if name == banned or name.startswith(banned + "."):
                yield f"import {banned}: {why}"
        if name.split(".")[0] == "safetensors" and not file.startswith(PLACES["safetensors"][0]):
            yield f"import safetensors: {PLACES['safetensors'][1]}"


def _uses(node: ast.AST, file: str, aliases: dict[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
        name = _dotted(node, aliases)
        builtin = isinstance(node, ast.Attribute) or node.id in aliases or name in CALLS
        if name in CALLS and builtin and not (name == "print" and file.startswith(COMMANDS)):
            yield f"{name}: {CALLS[name]}"
        for start, why in STARTS.items():
            if name.startswith(start) and name != "torch.random.fork_rng":
                yield f"{name}: {why}"
        if name == "PIL.Image.open" and file != PLACES[name][0]:
            yield f"{name}: {PLACES[name][1]}"
    if isinstance(node, ast.Attribute) and node.attr in METHODS:
        owner = _dotted(node.value, aliases)
        if not owner.endswith("init"):  # torch.nn.init draws inside noise.seeded
            yield f".{node.attr}: {METHODS[node.attr]}"


def _is(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _options(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg in ("shell", "allow_pickle", "trust_remote_code") and not _is(
                keyword.value, False
            ):
                yield f"{keyword.arg}=: runs code"
            if keyword.arg == "weights_only":
                yield "weights_only=: there is no loading of pickles at all"
            if keyword.arg == "allow_origins" and "*" in ast.unparse(keyword.value):
                yield "allow_origins=*: every web page may call"
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            name = target.attr if isinstance(target, ast.Attribute) else ""
            if name == "MAX_IMAGE_PIXELS" and node.value is not None and _is(node.value, None):
                yield "MAX_IMAGE_PIXELS = None: switches the guard against bombs off"
            if name == "LOAD_TRUNCATED_IMAGES":
                yield "LOAD_TRUNCATED_IMAGES: grey bands become training data"


def _names(cause: ast.expr | None, name: str | None) -> bool:
    return isinstance(cause, ast.Name) and cause.id == name


def _handlers(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Assert):
        yield "assert: gone under -O, and no sentence for the user"
    if isinstance(node, ast.ExceptHandler):
        if node.type is None:
            yield "bare except: hides interrupts"
        types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = any(isinstance(t, ast.Name) and t.id in ("Exception", "BaseException") for t in types)
        last = node.body[-1]
        again = isinstance(last, ast.Raise) and (last.exc is None or _names(last.cause, node.name))
        if broad and not again:
            yield "except Exception that does not raise again: hides what went wrong"


def found_in(text: str, file: str = "some.py") -> list[Found]:
    tree = ast.parse(text)
    aliases = _aliases(tree)
    found: list[Found] = []
    for node in ast.walk(tree):
        whats = [*_imports(node, file), *_uses(node, file, aliases), *_options(node), *_handlers(node)]
        found.extend(Found(getattr(node, "lineno", 0), what) for what in whats)
    if file == "noise.py":
        found = [f for f in found if "noise.py" not in f.what]
    return sorted(set(found))


def test_the_source_does_nothing_of_the_kind() -> None:
    wrong: list[str] = []
    used: set[tuple[str, str]] = set()
    files = sorted(SRC.rglob("*.py"))
    assert len(files) > 10
    for path in files:
        file = path.relative_to(SRC).as_posix()
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        for line, what in found_in(text, file):
            key = (file, lines[line - 1].strip())
            if key in ALLOWED:
                used.add(key)
            else:
                wrong.append(f"src/sfumato/{file}:{line}: {what}")
    assert not wrong, "\n".join(wrong)
    assert used == set(ALLOWED), f"no longer needed: {set(ALLOWED) - used}"


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import _pickle as safe",
        "import torch\ntorch.load('x')",
        "import torch as t\nt.load('x')",
        "from torch import load\nload('x')",
        "from torch import load as l\ng = l",
        "import torch.hub",
        "from torch import hub",
        "import yaml",
        "eval('1')",
        "f = eval",
        "exec('1')",
        "compile('1', '', 'exec')",
        "import importlib\nimportlib.import_module('x')",
        "archive.extractall()",
        "import subprocess\nsubprocess.run('x', shell=True)",
        "import subprocess\nsubprocess.run('x', shell=yes)",
        "import os\nos.system('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "from PIL import Image\nImage.MAX_IMAGE_PIXELS = None",
        "import PIL.Image\nPIL.Image.open('x')",
        "from PIL import Image\nImage.open('x')",
        "from PIL import ImageFile\nImageFile.LOAD_TRUNCATED_IMAGES = True",
        "try:\n    pass\nexcept:\n    pass",
        "try:\n    pass\nexcept Exception:\n    pass",
        "try:\n    pass\nexcept (OSError, Exception) as e:\n    log.info(e)",
        "try:\n    pass\nexcept Exception:\n    raise ValueError('x') from None",
        "assert x",
        "app.add_middleware(CORS, allow_origins=['*'])",
        "load(x, trust_remote_code=True)",
        "load(x, weights_only=True)",
        "import requests",
        "from urllib.request import urlopen",
        "from safetensors.torch import load_file",
        "import torch\ntorch.randn(3)",
        "import torch\ntorch.randn_like(x)",
        "import torch\ntorch.randperm(3)",
        "from torch import randn\nrandn(3)",
        "import torch\ntorch.manual_seed(0)",
        "import torch\ntorch.distributions.Normal(0, 1)",
        "x.normal_()",
        "x.uniform_(0, 1)",
        "from torch import nn\nnn.Dropout(0.1)",
        "import torch.nn.functional as F\nF.dropout(x)",
        "import numpy as np\nnp.random.default_rng(0)",
        "from numpy.random import default_rng\ndefault_rng()",
        "import random",
        "from random import choice",
        "print('x')",
    ],
)
def test_bites(text: str) -> None:
    assert found_in(text)


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("import torch\ntorch.randn(3)", "noise.py"),
        ("from torch import nn\nnn.init.normal_(x)", "networks/unet.py"),
        ("from sfumato.noise import Dropout\nDropout(0.1)", "networks/unet.py"),
        ("noise.normal((3,), 'start')", "sampling.py"),
        ("model.eval()", "sampling.py"),
        ("import re\nre.compile('x')", "some.py"),
        ("from safetensors.torch import load", "files/tensors.py"),
        ("from PIL import Image\nImage.open('x')", "data/decode.py"),
        ("print('x')", "cli/train.py"),
        ("try:\n    pass\nexcept BaseException:\n    clean()\n    raise", "some.py"),
        ("try:\n    pass\nexcept Exception as e:\n    raise ValueError('x') from e", "some.py"),
        ("import numpy as np\nnp.load('x', allow_pickle=False)", "some.py"),
    ],
)
def test_lets_pass_what_is_meant_to_be(text: str, file: str) -> None:
    assert not found_in(text, file)
