"""`sfumato edit cascade`: small pictures are made larger in batches, each an edit that can be done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpora import small
from sfumato import cli
from sfumato.assembled import build
from sfumato.card import ImageSettings
from sfumato.cli.edits import partial
from sfumato.data.decode import decode
from sfumato.predictions import V
from sfumato.runs import Run, save
from sfumato.tables import Table

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that draws 16 x 16."""
    folder = tmp_path_factory.mktemp("large") / "large"
    image = ImageSettings(channels=1, height=16, width=16)
    card = small.card(classes=small.CLASSES, schedule=Table.cosine(), prediction=V(), image=image)
    save(folder, build(card, 2), card)
    return folder


def test_pictures_are_made_larger_in_batches(
    home: Path,
    large: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three in batches of two; alone, each comes again."""
    solve, looks = partial.solve, list[int]()

    def counted(run: Run, recipe: object, *rest: object) -> object:
        looks.append(len(recipe.seeds))  # type: ignore[attr-defined]
        return solve(run, recipe, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(partial, "solve", counted)
    words = ["edit", "cascade", str(home / "pets"), str(large), "--class", "all", "--steps", "2"]
    assert cli.run([*words, "--batch", "2", "--out", str(tmp_path / "out")]) == 0
    assert looks == [2, 1]
    lines = capsys.readouterr().out.splitlines()
    made = [Path(line) for line in lines if Path(line).parent == tmp_path / "out"]
    assert len(made) == 3
    for path in made:
        assert decode(path).array.shape == (16, 16, 1)
        assert cli.run(["replay", str(path)]) == 0


def test_a_cascade_goes_into_a_folder(
    home: Path, large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["edit", "cascade", str(home / "pets"), str(large), "--out", str(tmp_path / "x.png")]
    assert cli.run(words) == 1
    assert "give a folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
