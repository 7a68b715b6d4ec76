"""What a clone holds: small, portable, pinned, licensed, and one version everywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import sfumato

ROOT = Path(__file__).parents[1]
MB = 1_000_000

# Written apart, so that this file does not find itself.
PLACES = tuple("/" + name + "/" for name in ("work", "root", "home", "Users", "mnt", "data0", "scratch"))
HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("anaconda", "org"),
        ("download", "pytorch", "org"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("files", "pythonhosted"),
        ("artifactory", "com"),
    )
)
SECRETS = (
    "-----BEGIN [A-Z ]*PRIV" + "ATE KEY",
    r"\bAKIA[0-9A-Z]{16}\b",
    r"\bgh[pousr]_[A-Za-z0-9]{30,}",
    r"\bgithub_pat_[A-Za-z0-9_]{30,}",
    r"\bhf_[A-Za-z0-9]{30,}",
    r"\bsk-[A-Za-z0-9_-]{20,}",
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    r"://[^/\s:@\"']+:[^/\s:@\"']+@",
    r"(?i)\b(api[_-]?key|secret|passw" + r"ord|token)\s*[:=]\s*[\"'][A-Za-z0-9+/_-]{16,}[\"']",
)
BINARY = {".png", ".npz", ".webp", ".gif", ".jpg", ".safetensors", ".ico"}


def tracked() -> list[Path]:
    """The files that git knows; in an unpacked archive, where there is no git, there is nothing to check."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, timeout=60, check=True
    )
    found = [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]
    assert len(found) > 50
    return found


def hidden() -> list[str]:
    """Files of ours that .gitignore keeps out, so that a clone would lack them."""
    ours = ["src", "tests", "docs", "benchmarks"]
    options = ["--others", "--ignored", "--exclude-standard", "-z", "--"]
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", *options, *ours],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    made = ("__pycache__/", ".egg-info/", ".hypothesis/", ".pytest_cache/", ".ruff_cache/")
    return [name for name in done.stdout.split("\0") if name and not any(part in name for part in made)]


def texts() -> dict[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for path in tracked()
        if path.suffix not in BINARY
    }


def places_in(text: str) -> list[str]:
    """Absolute paths of some machine. A word before the slash makes it a part of another path or address."""
    start = r"(?<![\w.~$}\])-])"
    return [m[0] for place in PLACES for m in re.finditer(start + re.escape(place) + r"[\w.-]*", text)]


def secrets_in(text: str) -> list[str]:
    return [m[0][:20] for pattern in SECRETS for m in re.finditer(pattern, text)]


def _name(requirement: str) -> str:
    """ "pyright[nodejs]>=1.1.390" -> "pyright", as package indexes compare names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]).lower()


def _project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def _dependencies(*extras: str) -> list[str]:
    project = _project()
    core, optional = project["dependencies"], project["optional-dependencies"]
    assert isinstance(core, list)
    assert isinstance(optional, dict)
    found = [*core, *(one for extra in extras for one in optional[extra])]
    inner = [e for one in found if _name(one) == "sfumato" for e in re.findall(r"[\w]+(?=[,\]])", one)]
    return [*(one for one in found if _name(one) != "sfumato"), *(one for e in inner for one in optional[e])]


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    kept = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    assert all(line.count("==") == 1 for line in kept), "a constraint pins one version with =="
    return {_name(line): line.partition("==")[2] for line in kept}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def test_a_clone_is_small() -> None:
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in tracked()}
    large = {name: size for name, size in sizes.items() if size > 12 * MB}
    assert not large, f"at most 12 MB a file: {large}"
    assert sum(sizes.values()) < 40 * MB


def test_a_clone_has_everything() -> None:
    assert tracked()
    assert not hidden(), f".gitignore hides {hidden()}"


def test_no_path_of_a_machine() -> None:
    wrong = [f"{name}: {place}" for name, text in texts().items() for place in places_in(text)]
    assert not wrong, "\n".join(wrong)


def test_no_host_of_a_package_registry() -> None:
    wrong = [f"{name}: {host}" for name, text in texts().items() for host in HOSTS if host in text.lower()]
    assert not wrong, "\n".join(wrong)


def test_no_secret() -> None:
    wrong = [f"{name}: {found}..." for name, text in texts().items() for found in secrets_in(text)]
    assert not wrong, "\n".join(wrong)


def test_the_searches_bite() -> None:
    here = "/" + "work/main/x.py"
    assert places_in(f'open("{here}")')
    assert places_in(here)
    assert not places_in("https://example.org" + "/" + "home/page")
    assert not places_in("~" + "/" + "work/photos")
    assert secrets_in("gh" + "p_" + 36 * "a")
    assert secrets_in("https://me:" + "word" + "@example.org")
    assert secrets_in("api_" + 'key = "' + 20 * "a" + '"')
    assert not secrets_in("token = tokens[0]")


def test_every_dependency_is_pinned_within_its_range() -> None:
    pins = _pins()
    for requirement in _dependencies("dev", "track", "wandb", "bench"):
        name, floor = _name(requirement), requirement.partition(">=")[2].partition(",")[0]
        assert floor, f"pyproject.toml: {requirement} has no lower bound"
        assert name in pins, f"constraints.txt does not pin {name}"
        assert _numbers(pins[name]) >= _numbers(floor), f"{name}: {pins[name]} is below {floor}"
    assert pins["torch"] == "2.13.0"


def test_dependencies_that_had_holes_have_their_floors() -> None:
    floors = {_name(one): _numbers(one.partition(">=")[2]) for one in _dependencies()}
    assert floors["torch"] >= (2, 10)
    assert floors["pillow"] >= (12, 2)
    assert floors["safetensors"] >= (0, 8)


def test_one_version_everywhere() -> None:
    cited = re.search(r"^version: *(\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert cited is not None
    assert newest is not None
    assert _project()["version"] == sfumato.__version__ == cited[1] == newest[1]


def test_licence_and_notice_are_there() -> None:
    licence = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert _project()["license"] == "Apache-2.0"
    assert _project()["license-files"] == ["LICENSE", "NOTICE"]
    notice = (ROOT / "NOTICE").read_text("utf-8")
    for path in sorted((ROOT / "src" / "sfumato" / "data" / "bundled").iterdir()):
        assert path.name in notice, f"NOTICE does not say where {path.name} comes from"


def test_ci_runs_the_readme_s_test_command() -> None:
    ci = [line.strip() for line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()]
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "make test" in ci
    assert re.search(r"^make test\b", readme, re.MULTILINE), "README.md does not show `make test`"
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    shown = set(re.findall(r"(?:^|`)make ([a-z]+)\b", readme, re.MULTILINE))
    assert {"demo", "test"} <= shown <= set(targets)
