"""`sfumato sample` with conditions: what it takes, what it says, and that its pictures are made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corpora import told
from sfumato.cli import run as command
from sfumato.cli.wishes import also_of, interval_of, scale_of, settings_of
from sfumato.conditions.also import Also, joined
from sfumato.conditions.classes import Classes
from sfumato.conditions.schema import Conditions
from sfumato.errors import SettingsError
from sfumato.files.pictures import read_recipe
from sfumato.provenance import Origin, read_origin
from sfumato.runs import load


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    told.run(folder / "run")
    return folder


def test_it_says_what_is_possible(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["sample", str(home / "run"), "--conditions"]) == 0
    said = capsys.readouterr().out
    for words in (
        "--class NAME: cat, dog, ox",
        "--set age=...: from 0 to 10",
        "any of a, b, c",
        "--prompt TEXT",
    ):
        assert words in said
    example = said.strip().splitlines()[-1].split("sfumato ", 1)[1]
    assert '--set "age=5.0"' in example


def test_pictures_with_conditions_are_made_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        *(
            "--class",
            "cat",
            "--set",
            "age=2",
            "--set",
            "tags=a|c",
            "--prompt",
            "a red cat",
            "--prompt",
            "a blue dog",
        ),
        *("--negative", "two red dogs", "--guidance", "text=3,class=2", "--interval", "0.1,inf"),
        *("--rescale", "0.5", "--threshold", "0.99", "--steps", "3", "-n", "2", "--device", "cpu"),
    ]
    grid, folder = home / "grid.png", home / "each"
    assert command(["sample", str(home / "run"), *asked, "--out", str(grid)]) == 0
    assert command(["sample", str(home / "run"), *asked, "--out", str(folder)]) == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names[0] == "00000-seed0-cat-a_red_cat.png"
    assert names[3] == "00003-seed3-cat-a_blue_dog.png"
    made = read_origin(grid)
    assert (made.prompts, made.prompt_of) == (("a red cat", "a blue dog"), (0, 0, 1, 1))
    assert made.negatives == ("two red dogs",)
    assert made.values == ({"age": 2.0, "tags": ("a", "c")},)
    assert made.scales == {"text": 3.0, "class": 2.0}
    assert made.interval == (0.1, None)
    again = load(home / "run", "cpu").recipe(**made.asked(home))
    assert again.wishes()[3].values == {"age": 2.0, "tags": ("a", "c")}
    capsys.readouterr()
    for path in (grid, folder / names[3]):
        assert command(["replay", str(path), "--device", "cpu"]) == 0
        assert "identical" in capsys.readouterr().out


def test_what_other_programs_show(home: Path) -> None:
    from PIL import Image

    path = home / "one.png"
    asked = ["--prompt", "a red cat", "--negative", "a dog", "--guidance", "2", "--set", "age=2", "-n", "1"]
    assert command(["sample", str(home / "run"), *asked, "--steps", "2", "--out", str(path)]) == 0
    with Image.open(path) as picture:
        lines = str(picture.info["parameters"]).splitlines()
    assert lines[0] == "a red cat, age=2.0"
    assert lines[1] == "Negative prompt: a dog"
    assert "CFG scale: 2" in lines[2]


def test_and_and_not_are_made_again_and_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    path = home / "both.png"
    asked = [
        "--prompt",
        "a red cat AND a dog",
        "--and",
        "two red dogs:1.5",
        "--and",
        "tags=a|c",
        "--not",
        "class=ox",
    ]
    words = ["sample", str(home / "run"), *asked, "--guidance", "2", "--steps", "2", "-n", "1"]
    assert command([*words, "--out", str(path)]) == 0
    with Image.open(path) as picture:
        first = str(picture.info["parameters"]).splitlines()[0]
    assert first == "a red cat AND a dog AND two red dogs :1.5 AND tags=a|c :1 AND class=ox :-1"
    made = read_origin(path)
    recipe = load(home / "run", "cpu").recipe(**made.asked(home))
    assert recipe.prompts == ("a red cat AND a dog",)
    assert recipe.also == (
        Also("text", "two red dogs", 1.5),
        Also("tags", ("a", "c")),
        Also("class", "ox", -1),
    )
    capsys.readouterr()
    assert command(["replay", str(path), "--device", "cpu"]) == 0
    assert "identical" in capsys.readouterr().out


def test_accounts_of_older_pictures_are_read(home: Path) -> None:
    """A picture from before there were such conditions says nothing of them."""
    path = home / "old.png"
    assert command(["sample", str(home / "run"), "-n", "1", "--steps", "2", "--out", str(path)]) == 0
    account = dict(read_recipe(path))
    for name in ("prompts", "negatives", "values", "also", "scales", "interval", "rescale", "threshold"):
        account.pop(name)
    made = Origin.model_validate_json(json.dumps(account), strict=True)
    recipe = load(home / "run", "cpu").recipe(**made.asked(home))
    assert recipe.prompts is None
    assert recipe.rescale == 0


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--class", "cta"], "did you mean cat"),
        (["--set", "age"], "NAME=VALUE"),
        (["--set", "agee=1"], "did you mean age"),
        (["--set", "age=1", "--set", "age=2"], "twice"),
        (["--set", "age=99"], "from 0 to 10"),
        (["--prompt", "x", "--guidance", "strong"], "is a number"),
        (["--prompt", "x", "--guidance", "nan"], "finite"),
        (["--prompt", "x", "--guidance", "txt=2"], "did you mean text"),
        (["--prompt", "x", "--guidance", "2", "--interval", "3"], "two values"),
        (["--prompt", "x", "--negative", "y"], "above 1"),
        (["--prompt", "x", "-n", "0"], "-n 0"),
        (["--and", "x:0"], "above 0"),
        (["--and", "x:inf"], "above 0"),
        (["--not", "txt=x"], "did you mean text"),
        (["--not", "class=cta"], "did you mean cat"),
        (["--and", "class="], "class is empty"),
        (["--and", ""], "text is empty"),
    ],
)
def test_a_wrong_wish_is_one_sentence(
    home: Path, capsys: pytest.CaptureFixture[str], asked: list[str], words: str
) -> None:
    assert command(["sample", str(home / "run"), *asked, "--steps", "2"]) == 1
    said = capsys.readouterr().err.strip()
    assert words in said
    assert said.startswith("error: ")
    assert "\n" not in said


def test_words_of_the_command_line() -> None:
    assert settings_of([]) is None
    assert settings_of(["age=0.7", "tags = a|b"]) == {"age": "0.7", "tags": "a|b"}
    assert scale_of(None) is None
    assert scale_of("2.5") == 2.5
    assert scale_of("text=5, class=2") == {"text": 5.0, "class": 2.0}
    assert interval_of("0.2,5") == (0.2, 5.0)
    assert interval_of(None) is None
    with pytest.raises(SettingsError):
        interval_of("a,b")
    with pytest.raises(SettingsError, match="say NAME=VALUE, of class"):
        joined(Conditions(Classes(("cat", "dog"), null=True)), also_of(["a cat"], []))
    assert also_of(["a cat", "at 7:30", "class = 3:0.5"], ["at 7:30:1"]) == [
        *(Also("text", "a cat"), Also("text", "at 7", 30.0), Also("class", "3", 0.5)),
        Also("text", "at 7:30", -1.0),
    ]
