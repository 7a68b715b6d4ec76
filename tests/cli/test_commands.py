"""The commands: what they write, that it can be made again, and one sentence for each mistake."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato import cli
from sfumato.assembled import build
from sfumato.data.decode import decode
from sfumato.files.pictures import grid, read_recipe, to_bytes, write_png
from sfumato.files.png import SOURCE
from sfumato.folders.run import WEIGHTS, save
from sfumato.provenance import read_origin
from sfumato.runs import load

COMMANDS = ("train", "train-classifier", "sample", "samplers", "replay", "inspect", "evaluate", "demo")


def says(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str], str]:
    """Exit code, lines, and what went to the error stream."""
    code = cli.run([str(word) for word in words])
    out = capsys.readouterr()
    return code, out.out.splitlines(), out.err


# help


def test_help_loads_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "PIL", "matplotlib", "rich")  # typer itself takes pydantic where it is there
    code = (
        "import sys; from sfumato import cli\n"
        f"for words in ([], *([c] for c in {COMMANDS!r})):\n"
        "    assert cli.run([*words, '--help']) == 0\n"
        f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stderr.strip() == "[]"
    assert all(f"Usage: sfumato {command} " in found.stdout for command in COMMANDS)


def test_help_takes_less_than_half_a_second() -> None:
    """Of the processor's time, since other tests run beside this one."""
    code = "from sfumato.cli import main; import sys; sys.argv = ['sfumato', '--help']; main()"
    spent: list[float] = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.5
    assert all(f"\n  {command} " in found.stdout for command in COMMANDS)


def test_the_package_loads_nothing_before_it_is_asked() -> None:
    code = (
        "import sys, sfumato; print('torch' in sys.modules, 'pydantic' in sys.modules, sfumato.__version__)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split()[:2] == ["False", "False"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from sfumato import __version__

    assert says(capsys, "--version") == (0, [f"sfumato {__version__}"], "")


# sample and replay


def test_a_grid_is_what_the_api_gives(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "grid.png"
    words = ("sample", home / "pets", "--class", "all", "-n", 3, "--steps", 4, "--guidance", 2, "--seed", 5)
    assert says(capsys, *words, "--out", out) == (0, [str(out)], "")
    classes = [name for name in ("cat", "dog", "ox") for _ in range(3)]
    pictures = load(home / "pets", "cpu").sample(classes=classes, steps=4, guidance=2, seed=5)
    expected = grid([to_bytes(picture) for picture in pictures], 3)
    assert np.array_equal(decode(out).array[:, :, 0], expected)


def test_a_folder_gets_one_file_a_picture(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("sample", home / "pets", "--class", "dog,ox", "-n", 2, "--steps", 3, "--batch", 3)
    code, lines, _ = says(capsys, *words, "--out", tmp_path / "many")
    assert code == 0
    names = [Path(line).name for line in lines]
    assert names == [
        "00000-seed0-dog.png",
        "00001-seed1-dog.png",
        "00002-seed2-ox.png",
        "00003-seed3-ox.png",
    ]
    pictures = load(home / "pets", "cpu").sample(classes=["dog", "dog", "ox", "ox"], steps=3, batch=3)
    for line, picture in zip(lines, pictures):
        assert np.array_equal(decode(Path(line)).array[:, :, 0], to_bytes(picture))


def test_without_words_the_classes_take_turns_and_files_go_into_the_run(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines, _ = says(capsys, "sample", home / "pets", "-n", 5, "--steps", 2)
    assert code == 0
    path = Path(lines[0])
    assert path.parent == home / "pets" / "samples"
    made = read_origin(path)
    assert made.classes == (0, 1, 2, 0, 1)
    assert made.columns == 3
    assert says(capsys, "sample", home / "pets", "-n", 1, "--class", "none", "--steps", 2)[0] == 0


@pytest.mark.parametrize("kind", ["grid", "one of a batch", "one by one", "deep", "ddpm", "eta", "raw"])
def test_replay_gives_the_identical_picture(
    kind: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = home / ("deep" if kind == "deep" else "pets")
    words: dict[str, tuple[object, ...]] = {
        "grid": ("--class", "all", "-n", 2, "--out", tmp_path / "x.png"),
        "one of a batch": ("-n", 5, "--guidance", 3, "--out", tmp_path / "x"),
        "one by one": ("-n", 3, "--one-by-one", "--out", tmp_path / "x"),
        "deep": ("-n", 1, "--out", tmp_path / "x.png"),
        "ddpm": ("-n", 4, "--sampler", "ddpm", "--out", tmp_path / "x.png"),
        "eta": ("-n", 4, "--eta", 0.5, "--no-clip", "--out", tmp_path / "x.png"),
        "raw": ("-n", 1, "--weights", "raw", "--out", tmp_path / "x.png"),
    }
    code, lines, err = says(capsys, "sample", run, "--steps", 5, "--seed", 3, *words[kind])
    assert (code, err) == (0, "")
    code, told, _ = says(capsys, "replay", lines[-1])
    assert (code, told) == (0, [f"{lines[-1]}: identical"])


def test_replay_writes_the_new_picture_too(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    says(capsys, "sample", home / "pets", "-n", 2, "--steps", 3, "--out", one)
    code, _, _ = says(capsys, "replay", one, "--out", two)
    assert code == 0
    assert np.array_equal(decode(one).array, decode(two).array)
    assert says(capsys, "replay", two)[1] == [f"{two}: identical"]


def test_replay_finds_a_run_that_moved_with_its_pictures(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    shutil.copytree(home / "pets", tmp_path / "here" / "pets")
    _, lines, _ = says(capsys, "sample", tmp_path / "here" / "pets", "-n", 1, "--steps", 3)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = Path(lines[0].replace("here", "there"))
    assert says(capsys, "replay", moved)[0] == 0
    alone = tmp_path / "alone.png"
    shutil.copy(moved, alone)
    code, _, err = says(capsys, "replay", alone)
    assert (code, "--run RUN" in err) == (1, True)
    assert says(capsys, "replay", alone, "--run", home / "pets")[0] == 0


def test_replay_says_what_differs(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "pets"
    card = load(home / "pets", "cpu").card
    save(run, build(card, 1), card)
    _, lines, _ = says(capsys, "sample", run, "-n", 1, "--steps", 3)
    save(run, build(card, 2), card)
    code, told, _ = says(capsys, "replay", lines[0])
    assert code == 1
    assert "different" in told[0]
    assert "PSNR" in told[0]
    assert "weights" in told[1]
    assert len(told) == 2


def test_rounding_alone_is_said_as_such(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.png"
    says(capsys, "sample", home / "pets", "-n", 1, "--steps", 3, "--out", path)
    pixels, recipe = decode(path).array.copy(), read_recipe(path)
    pixels[0, 0] = pixels[0, 0] - 1 if pixels[0, 0] else 1
    recipe["torch"] = "1.0"
    write_png(path, pixels, parameters="", recipe=recipe)
    code, told, _ = says(capsys, "replay", path)
    assert code == 0
    assert "the same but for rounding: largest difference 1 of 255" in told[0]
    assert told[1].strip() == f"torch: 1.0 then, {torch.__version__} now"


def test_a_picture_tells_how_it_was_made(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.png"
    says(
        capsys,
        "sample",
        home / "pets",
        "-n",
        1,
        "--class",
        "ox",
        "--steps",
        3,
        "--guidance",
        2,
        "--out",
        path,
    )
    with Image.open(path) as image:
        image.load()
        texts = image.text  # type: ignore[attr-defined]
    lines = texts["parameters"].splitlines()
    assert lines[0] == "ox"
    sha = load(home / "pets", "cpu").sha256
    assert lines[1].startswith("Steps: 3, Sampler: vab, CFG scale: 2, Seed: 0, Size: 8x8, Model hash: ")
    assert sha[:10] in lines[1]
    assert SOURCE in texts["XML:com.adobe.xmp"]
    said = json.loads(texts["sfumato"])
    assert said["made_by_a_model"] is True
    assert said["weights_sha256"] == sha
    assert said["noise_stream"] == 1
    assert (
        str(home.resolve()) not in said["run"].replace("../", "/")[1:] or not Path(said["run"]).is_absolute()
    )


@pytest.mark.parametrize("ending", ["webp", "gif", "png"])
def test_a_film_shows_noise_becoming_pictures(
    ending: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film, out = tmp_path / f"film.{ending}", tmp_path / "x.png"
    of = "x0" if ending == "gif" else "x"
    words = ("sample", home / "pets", "-n", 4, "--steps", 6, "--batch", 3, "--out", out, "--film", film)
    code, lines, _ = says(capsys, *words, "--film-of", of)
    assert (code, lines) == (0, [str(out), str(film)])
    with Image.open(film) as image:
        assert image.n_frames >= 7 if ending != "gif" else image.n_frames >= 2  # equal frames may be joined
        image.seek(0)
        first = np.asarray(image.convert("L"), dtype=float)
        image.seek(image.n_frames - 1)
        last = np.asarray(image.convert("L"), dtype=float)
    assert np.abs(last - decode(out).array[:, :, 0]).max() <= (8 if ending == "gif" else 0)
    assert np.abs(first - last).mean() > 5


# mistakes

RUN = "{home}/pets"
MISTAKES: dict[str, tuple[list[str], str]] = {
    "no run": (["sample", "{home}/nothing"], "no such folder"),
    "no model": (["sample", "{home}"], "no model here"),
    "class": (["sample", RUN, "--class", "catt"], "did you mean cat"),
    "class number": (["sample", RUN, "--class", "9"], "no class 9"),
    "empty class": (["sample", RUN, "--class", ","], "names no class"),
    "classes of none": (["sample", "{home}/deep", "--class", "1"], "without classes"),
    "guidance of none": (["sample", "{home}/deep", "--guidance", "2"], "without them"),
    "guidance nan": (["sample", RUN, "--guidance", "nan"], "finite"),
    "sampler": (["sample", RUN, "--sampler", "dimm"], "ddim"),
    "steps": (["sample", RUN, "--steps", "0"], "steps cannot be 0"),
    "eta": (["sample", RUN, "--eta", "3"], "eta"),
    "number": (["sample", RUN, "-n", "0"], "-n 0"),
    "number of many": (["sample", RUN, "-n", "999999999", "--class", "all"], "-n 999999999"),
    "too many for a grid": (["sample", RUN, "-n", "2000", "--out", "{tmp}/x.png"], "--out folder/"),
    "batch": (["sample", RUN, "--batch", "0"], "batch cannot be 0"),
    "seed": (["sample", RUN, "--seed", "99999999999999999999"], "63 bits"),
    "out": (["sample", RUN, "--out", "x.jpg"], "written as PNG"),
    "film": (["sample", RUN, "--film", "x.mp4"], ".webp"),
    "film of": (["sample", RUN, "--film", "x.gif", "--film-of", "eps"], "choose x"),
    "device": (["sample", RUN, "--device", "tpu"], "--device"),
    "weights": (["sample", RUN, "--weights", "best"], "choose ema"),
    "no such width": (["sample", RUN, "--weights", "ema:0.05"], "averages"),
    "raw of plain": (["sample", RUN, "--weights", "ema:x"], "give a number"),
    "replay nothing": (["replay", "{tmp}/nothing.png"], "nothing.png"),
    "replay a text": (["replay", "{tmp}/text.png"], "not a PNG"),
    "replay another's": (["replay", "{tmp}/plain.png"], "no recipe"),
    "replay damaged": (["replay", "{tmp}/damaged.png"], "damaged"),
    "replay of another run": (["replay", "{tmp}/x.png", "--run", "{home}/deep"], "another's"),
    "replay without run": (["replay", "{tmp}/x.png", "--run", "{home}/nothing"], "no such folder"),
}


@pytest.fixture(scope="module")
def shelf(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures to replay, most of them wrong."""
    folder = tmp_path_factory.mktemp("shelf")
    assert (
        cli.run(["sample", str(home / "pets"), "-n", "2", "--steps", "2", "--out", str(folder / "x.png")])
        == 0
    )
    (folder / "text.png").write_text("no picture")
    Image.new("L", (8, 8)).save(folder / "plain.png")
    pixels, recipe = decode(folder / "x.png").array, read_recipe(folder / "x.png")
    write_png(folder / "damaged.png", pixels, parameters="", recipe={**recipe, "steps": -1})
    return folder


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_1(
    what: str, home: Path, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, expected = MISTAKES[what]
    code, out, err = says(
        capsys, *(w.replace("{home}", str(home)).replace("{tmp}", str(shelf)) for w in words)
    )
    assert (code, out) == (1, [])
    assert err.startswith("error: ")
    assert expected in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "words", [["sample"], ["sample", "x", "--nothing"], ["dance"], ["sample", "x", "-n", "many"], []]
)
def test_a_wrong_use_is_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = says(capsys, *words)
    assert code == 2
    assert "Traceback" not in err


LIES: list[dict[str, object]] = [
    {"seeds": []},
    {"seeds": [2**80, 1]},
    {"index": 9},
    {"columns": None, "index": None},
    {"columns": 0},
    {"classes": [0]},
    {"classes": [7, 7]},
    {"sampler": "../../x"},
    {"steps": 10**9},
    {"guidance": "1"},
    {"evil": 1},
]


@pytest.mark.parametrize("lie", LIES, ids=[next(iter(lie)) for lie in LIES])
def test_what_a_picture_says_is_judged(
    lie: dict[str, object], home: Path, shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {**read_recipe(shelf / "x.png"), **lie}
    write_png(tmp_path / "lie.png", decode(shelf / "x.png").array, parameters="", recipe=recipe)
    code, out, err = says(capsys, "replay", tmp_path / "lie.png", "--run", home / "pets")
    assert (code, out) == (1, [])
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_what_the_system_refuses_is_one_sentence(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "x.png"
    code, _, err = says(capsys, "sample", home / "pets", "-n", 1, "--steps", 1, "--out", out)
    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_ctrl_c_is_130(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sfumato.runs import Run

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "walk", stop)
    code, _, err = says(capsys, "sample", home / "pets", "-n", 1)
    assert code == 130
    assert "Traceback" not in err


def test_the_console_command_ends_with_the_code(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['sfumato', 'sample', sys.argv[1]]; from sfumato.cli import main; main()"
    found = subprocess.run([sys.executable, "-c", code, tmp_path / "nothing"], capture_output=True, text=True)
    assert found.returncode == 1
    assert found.stderr == f"error: {tmp_path / 'nothing'}: no such folder: give the folder of a run\n"
    assert WEIGHTS.endswith(".safetensors")
