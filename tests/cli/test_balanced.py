"""`sfumato sample --balanced`: as many of every class, by seeds that anybody can draw again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from corpora import small
from sfumato import cli
from sfumato.assembled import build
from sfumato.card import ImageSettings
from sfumato.data.bundled import open_source
from sfumato.errors import RunError, SettingsError
from sfumato.evaluation.balanced import SURE, SURPLUS, balanced
from sfumato.folders.classifier import ClassifierCard, open_classifier, save_classifier
from sfumato.guidance.classifier import logits
from sfumato.level import CLEAN
from sfumato.networks import Classifier, ClassifierConfig
from sfumato.noise import seeded
from sfumato.predictions import V
from sfumato.provenance import read_origin
from sfumato.runs import load, save
from sfumato.tables import Table

CONFIG = ClassifierConfig(in_channels=1, outputs=3, channels=(8, 16), groups=4, head_channels=8)
IMAGE = ImageSettings(channels=1, height=8, width=8)
STEPS = 3


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without classes, whose classifier finds the three in unlike shares: its head's offset is the
    median of what it says of the run's first pictures, and less for the third."""
    path = tmp_path_factory.mktemp("balanced") / "plain"
    card = small.card(schedule=Table.cosine(), prediction=V())
    save(path, build(card, 1), card)
    with seeded(0, "classifier"):
        network = Classifier(CONFIG).eval()
    shown = load(path, "cpu").sample(64, steps=STEPS, seed=500)
    head = network.head
    with torch.no_grad():
        head.weight *= 40 / logits(network, shown, CLEAN).std(0).mean()
        head.bias.zero_()
        head.bias -= logits(network, shown, CLEAN).median(0).values
        head.bias[2] -= 15
    save_classifier(path, network, ClassifierCard.of(CONFIG, small.CLASSES, IMAGE))
    return path


def test_every_class_has_as_many_and_each_is_what_it_is_said_to_be(plain: Path) -> None:
    run = load(plain, "cpu")
    found = balanced(run, run.recipe(1, steps=STEPS, seed=3), 4)
    assert found.names == small.CLASSES
    assert found.classes == (0,) * 4 + (1,) * 4 + (2,) * 4
    assert len({*found.recipe.seeds}) == 12
    judge = open_classifier(plain).network
    with torch.no_grad():
        said = logits(judge, run.make(found.recipe), CLEAN).softmax(1).max(1)
    assert tuple(said.indices.tolist()) == found.classes
    assert float(said.values.min()) >= SURE
    assert found.found[2] < max(found.found)
    assert min(found.found) >= 4


def test_the_first_of_each_class_are_kept(plain: Path) -> None:
    """Whatever the batch: the seeds in turn, each judged by itself."""
    run = load(plain, "cpu")
    recipe = run.recipe(1, steps=STEPS, seed=3)
    whole = balanced(run, recipe, 3)
    assert balanced(run, replace(recipe, batch=5), 3).recipe.seeds == whole.recipe.seeds
    drawn = range(3, max(whole.recipe.seeds) + 1)
    with torch.no_grad():
        pictures = run.sample(seeds=drawn, steps=STEPS)
        sure, labels = logits(open_classifier(plain).network, pictures, CLEAN).softmax(1).max(1)
    for label in range(3):
        expected = [
            s for s, p, one in zip(drawn, sure.tolist(), labels.tolist()) if one == label and p >= SURE
        ]
        assert [*whole.recipe.seeds[3 * label : 3 * label + 3]] == expected[:3]


@pytest.mark.slow
def test_the_command_writes_them_and_each_is_made_again(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", str(plain), "--steps", str(STEPS), "-n", "2", "--balanced"]
    assert cli.run([*words, "--out", str(tmp_path / "each")]) == 0
    said = capsys.readouterr()
    assert "kept 2 of each class of" in said.err
    assert "cat" in said.err
    files = sorted((tmp_path / "each").iterdir())
    assert len(files) == 6
    expected = balanced(load(plain, "cpu"), load(plain, "cpu").recipe(1, steps=STEPS), 2).recipe.seeds
    assert tuple(read_origin(file).seeds[i % 6] for i, file in enumerate(files)) == expected
    assert cli.run(["replay", str(files[4])]) == 0
    assert cli.run([*words, "--out", str(tmp_path / "grid.png")]) == 0
    assert read_origin(tmp_path / "grid.png").columns == 2
    assert cli.run(["replay", str(tmp_path / "grid.png")]) == 0
    assert cli.run(words) == 0
    assert "balanced" in capsys.readouterr().out.splitlines()[-1]


def test_what_cannot_be_balanced_is_said(plain: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        ((home / "pets",), "--class all draws as many of each"),
        ((home / "pets", "--class", "none"), "has no classifier"),
        ((plain, "--class", "cat"), "leave --class"),
        ((plain, "--per-class", "3"), "--per-class"),
        ((plain, "--prompt", "a", "--prompt", "b"), "one --prompt at a time"),
        ((plain, "-n", "0"), "-n 0"),
    ):
        assert cli.run(["sample", *map(str, words), "--balanced", "--steps", "2"]) == 1, words
        assert said in capsys.readouterr().err


def test_a_class_that_is_never_drawn_ends_it(plain: Path, tmp_path: Path) -> None:
    run = load(plain, "cpu")
    stored = open_classifier(plain)
    stored.network.head.bias[1] -= 1e6
    save(tmp_path / "run", run.model, run.card)
    save_classifier(tmp_path / "run", stored.network, stored.card)
    never = load(tmp_path / "run", "cpu")
    with pytest.raises(SettingsError, match=f"among {SURPLUS * 3} pictures .* only .*0 of dog"):
        balanced(never, never.recipe(1, steps=2), 1)
    other = ClassifierCard.of(CONFIG, small.CLASSES, ImageSettings(channels=1, height=16, width=16))
    save_classifier(tmp_path / "run", stored.network, other)
    with pytest.raises(RunError, match="judges other pictures"):
        balanced(never, never.recipe(1, steps=2), 1)


def test_a_data_set_has_the_classes_that_the_classifier_gave(plain: Path, tmp_path: Path) -> None:
    """The run itself has none: they are those that were chosen, or those that it was pulled to."""
    words = ["sample", str(plain), "--steps", str(STEPS), "--as-dataset"]
    assert cli.run([*words, str(tmp_path / "chosen"), "--balanced", "-n", "1"]) == 0
    found = open_source(tmp_path / "chosen")
    assert sorted(str(item.label) for item in found.items) == sorted(small.CLASSES)
    pulled = [*words, str(tmp_path / "pulled.npz"), "--classifier-guidance", "2", "--per-class", "2"]
    assert cli.run(pulled) == 0
    with np.load(tmp_path / "pulled.npz") as file:
        assert file["labels"].tolist() == [0, 1, 2, 0, 1, 2]
        assert tuple(file["label_names"]) == small.CLASSES


def test_the_same_data_set_may_be_gone_on_with_from_elsewhere(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weaker run is known by its weights, whatever way leads to it."""
    out = tmp_path / "out"
    for here in (plain, plain.parent):
        monkeypatch.chdir(here)
        weaker = "." if here == plain else "plain"
        words = ["--steps", "1", "-n", "1", "--autoguide", weaker, "--as-dataset", str(out)]
        assert cli.run(["sample", str(plain), *words]) == 0
