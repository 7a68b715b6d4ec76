"""What cannot be is told before the work, in a sentence: too much for a file, or for the memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from corpora import told
from sfumato import cli, runs
from sfumato.cli.drawing import place
from sfumato.cli.edits import results
from sfumato.cli.edits.easel import wanted
from sfumato.cli.edits.options import Asked
from sfumato.errors import SettingsError
from sfumato.files.pictures import read_recipe
from sfumato.provenance import parse_origin
from sfumato.runs import Run, load

pytestmark = pytest.mark.slow


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one sentence of a command that fails."""
    assert cli.run([str(word) for word in words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is looked at."""

    def looked(*_: object, **__: object) -> None:
        raise AssertionError("a model was looked at before the mistake was told")

    monkeypatch.setattr(Run, "denoiser", looked)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_a_lack_of_memory_is_a_sentence(
    error: Exception, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(runs, "load", full)
    assert "--batch" in refused(capsys, "sample", home / "pets")


def test_another_runtime_error_is_not_taken_for_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(runs, "load", wrong)
    with pytest.raises(RuntimeError, match="mat1"):
        cli.run(["sample", str(home / "pets")])


@pytest.mark.usefixtures("untouched")
def test_what_no_file_can_say_is_told_before_the_drawing(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "x.png")
    assert "guidance" in refused(capsys, "sample", home / "pets", "--class", "cat", "--guidance", "1e7", *out)
    assert "steps" in refused(capsys, "sample", home / "pets", "--steps", 100_001, *out)
    told.run(tmp_path / "told")
    prompts = [word for i in range(40) for word in ("--prompt", f"a red cat {i} " * 140)]
    assert "shorter prompts" in refused(capsys, "sample", tmp_path / "told", "-n", 1, *prompts, *out)


def test_each_prompt_is_written_once_and_whose_it_is(tmp_path: Path) -> None:
    """64 pictures of two long prompts in one grid: too much if each were written with every picture. A
    picture of before, with a prompt for each, is read as it was."""
    told.run(tmp_path / "told")
    prompts, out = ["a red cat " * 100, "a blue dog " * 100], tmp_path / "x.png"
    words = ["sample", str(tmp_path / "told"), "-n", "32", "--prompt", prompts[0], "--prompt", prompts[1]]
    assert cli.run([*words, "--steps", "1", "--sampler", "ddim", "--out", str(out)]) == 0
    account = read_recipe(out)
    assert (account["prompts"], account["prompt_of"]) == (prompts, [0] * 32 + [1] * 32)
    each = tuple(prompts[i // 32] for i in range(64))
    before = {**account, "prompts": list(each)}
    del before["prompt_of"]
    for said in (account, before):
        assert parse_origin(said, out).asked(tmp_path)["prompt"] == each
    assert cli.run(["replay", str(out)]) == 0


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("img2img", "{run}", "{x}", "--out", "{x}"), "made from"),
        (("img2img", "{run}", "{x}", "-n", 1100, "--out", "{out}"), "one grid of 1,024"),
        (("directions", "{run}", "--count", 9, "--pictures", 8), "--count 9: give 1 to 7 or more --pictures"),
        (
            ("change", "{run}", "{x}", "--class", "cat", "--and", "class=ox", "--keep-rest", 0.3),
            "leave --and",
        ),
        (("change", "{run}", "{x}", "--class", "cat", "--keep-words", 0.5), "words of a --prompt"),
        (("change", "{run}", "{x}", "--class", "cat", "--keep-words", 2), "--keep-words 2: give a share"),
        (("change", "{run}", "{x}", "--class", "cat", "--weigh", "red"), "as in red=2"),
        (("change", "{run}", "{x}", "--class", "cat", "--weigh", "red=2,3"), "as in red=2"),
        (("style", "{run}", "{x}", "--class", "cat", "--structure", 3), "divisor"),
        (("upscale", "{run}", "{s}", "--factor", 2), "smaller than the model's 8 x 8: give 3 or more"),
        (("style", "{run}", "{x}", "--class", "cat", "--weight", 0.9), "--weight is of a --reference"),
        (("style", "{run}", "{x}", "--class", "cat", "--until", 0.9), "or of --structure"),
        (
            ("style", "{run}", "{x}", "--class", "cat", "--structure", 2, "--until", 2),
            "--until 2: give a share",
        ),
        (("interpolate", "{run}", "{x}", "{x}", "--frames", 2, "--seeds", "1,2"), "--frames 2: give 4"),
        (("interpolate", "{run}", "--sheet", "--seeds", "1,2,3,4,5"), "four corners"),
    ],
)
def test_an_edit_that_cannot_be_is_told_before_the_first_look(
    words: tuple[object, ...], said: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "x.png")
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "s.png")
    places = {
        "{s}": tmp_path / "s.png",
        "{run}": home / "pets",
        "{x}": tmp_path / "x.png",
        "{out}": tmp_path / "out.png",
    }
    assert said in refused(capsys, "edit", *(places.get(str(word), word) for word in words))


@pytest.mark.parametrize("task", ["interpolate", "slide", "directions", "invert"])
def test_what_means_nothing_to_a_task_is_refused_by_its_own_name(
    task: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in ("-n", "--ensemble"):
        assert cli.run(["edit", task, str(home / "pets"), option, "4"]) == 2
        assert f"No such option: {option}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is told classes and captions, and shown pictures."""
    folder = tmp_path_factory.mktemp("shown") / "shown"
    told.run(folder, picture=1)
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--clip-guidance", 3), "--clip-model"),
        (("--cutouts", 4), "--clip-model"),
        (("--autoguide-scale", 3), "--autoguide"),
        (("--film-of", "x0"), "--film"),
        (("--film-of", "banana"), "--film"),
        (("--class", "cat", "--guidance", "text=5"), "guidance of text: nothing is told of it"),
        (("--guidance", "picture=3"), "none is shown"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    words: tuple[object, ...], said: str, shown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--steps", 1, "--sampler", "ddim", "-n", 1, "--out", tmp_path / "x.png")
    assert said in refused(capsys, "sample", shown, *words, *out)
    assert not (tmp_path / "x.png").exists()


def test_the_steps_of_dps_are_a_hundred_unless_they_are_said(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For it, and for no other method."""
    asked: list[int | None] = []

    def enough(*_: object) -> None:
        raise SettingsError("enough")

    def heard(run: Run, wishes: Asked) -> object:
        asked.append(wishes.steps)
        return wanted(run, wishes)

    monkeypatch.setattr(results, "wanted", heard)
    monkeypatch.setattr(Run, "denoiser", enough)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "x.png")
    words = ["edit", "upscale", str(home / "pets"), str(tmp_path / "x.png")]
    for more in (["--method", "dps"], ["--method", "dps", "--steps", "7"], []):
        assert cli.run([*words, *more]) == 1
    assert asked == [100, 7, None]


def test_samples_of_other_settings_have_other_names(home: Path, tmp_path: Path) -> None:
    """Also of settings that no word of the name tells, and of long names."""
    run = load(home / "pets", "cpu")
    others = [{}, {"threshold": 0.9}, {"threshold": 0.8}, {"clip": False}, {"rescale": 0.5}]
    recipes = [run.recipe(2, classes="cat", guidance=2, **more) for more in others]  # type: ignore[arg-type]
    names = [place(run, recipe, ["cat" * 50]).name for recipe in recipes]
    assert len({*names}) == len(others)
    assert max(map(len, names)) < 128
    assert names[0] == place(run, run.recipe(2, classes="cat", guidance=2, batch=1), ["cat" * 50]).name
