"""A model's text encoder and tokenizer in its folder: whole, the right pair, and old folders as they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from corpora import small, told
from sfumato.card import CARD, Card, WeightsSettings, parse_card
from sfumato.conditions import tokens
from sfumato.conditions.encoder import WEIGHTS, load_encoder
from sfumato.errors import RunError, SettingsError
from sfumato.folders import text as text_folder
from sfumato.folders.run import open_folder, save
from sfumato.model import Model
from sfumato.networks import to_json
from sfumato.predictions import V
from sfumato.runs import load
from sfumato.tables import Table


def same(a: Model, b: Model) -> bool:
    mine, theirs = a.weights(), b.weights()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_folder_gives_back_what_it_was_given(tmp_path: Path) -> None:
    said = told.card()
    model = told.model(said)
    with pytest.raises(SettingsError, match="give save"):
        save(tmp_path / "mute", model, said)
    save(tmp_path / "run", model, said, text=told.tokenizer())
    run = load(tmp_path / "run", "cpu")
    assert same(run.model, model)
    assert run.card.but(diffusers=None) == said.but(diffusers=None)
    assert run.conditions.attributes == told.ATTRIBUTES
    assert isinstance(run.text, type(told.tokenizer()))
    assert torch.equal(run.text.rows(told.CAPTIONS), told.tokenizer().rows(told.CAPTIONS))
    encoder = load_encoder(tmp_path / "run" / "text_encoder")  # as transformers would read it
    rows = told.tokenizer().rows(told.CAPTIONS)
    assert model.text is not None
    assert torch.equal(encoder(rows).states, model.text(rows).states)
    moved = shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    assert same(load(moved, "cpu").model, model)


def test_a_crash_between_the_two_files_leaves_the_old_model(tmp_path: Path) -> None:
    """The text weights are new, the network's are not yet: once, and again, and then all of it."""
    said, folder = told.card(), tmp_path / "run"
    first, second, third = (told.model(said, seed) for seed in (1, 2, 3))
    save(folder, first, said, text=told.tokenizer())
    assert isinstance(said.text, text_folder.OwnText)
    for model in (second, third):
        now = open_folder(folder)
        assert same(now.model, first)
        before = text_folder.hash_file(folder / "text_encoder" / WEIGHTS)[0]
        kept = folder / "text_encoder" / text_folder.PREVIOUS
        if kept.exists():
            before = text_folder.hash_file(kept)[0]
        _, text = text_folder.parted(model.weights())
        text_folder.write_text(folder, said.text, text, before)
    assert same(open_folder(folder).model, first)
    save(folder, third, said)
    assert same(open_folder(folder).model, third)
    assert not (folder / "text_encoder" / text_folder.PREVIOUS).exists()


def test_a_tokenizer_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(tokens, "write_atomic", _refuse)  # the second of its files
        with pytest.raises(RunError, match="disk full"):
            text_folder.keep_reader(tmp_path, told.tokenizer())
    assert not list(tmp_path.iterdir())
    text_folder.keep_reader(tmp_path, told.tokenizer())
    again = tokens.load_tokenizer(tmp_path / "tokenizer")
    assert torch.equal(again.rows(told.CAPTIONS), told.tokenizer().rows(told.CAPTIONS))


def _refuse(*_: object) -> None:
    raise OSError(28, "disk full")


def test_weights_of_another_pair_are_refused(tmp_path: Path) -> None:
    said = told.card()
    for seed, name in ((1, "a"), (2, "b")):
        save(tmp_path / name, told.model(said, seed), said, text=told.tokenizer())
    shutil.copy(tmp_path / "b" / "text_encoder" / WEIGHTS, tmp_path / "a" / "text_encoder" / WEIGHTS)
    with pytest.raises(RunError, match="not those that the network's belong to"):
        load(tmp_path / "a", "cpu")
    other = told.train_tokenizer(["quite other words", "quite other words again"], 600)
    other.save(tmp_path / "b" / "tokenizer")
    with pytest.raises(RunError, match="not the tokenizer"):
        load(tmp_path / "b", "cpu")
    shutil.rmtree(tmp_path / "b" / "tokenizer")
    with pytest.raises(RunError, match="captions cannot be read"):
        load(tmp_path / "b", "cpu")


def test_raw_weights_are_kept_beside_the_average(tmp_path: Path) -> None:
    said = told.card().but(weights=WeightsSettings(kind="ema", horizon=100.0))
    raw, average = told.model(said, 1), told.model(said, 2)
    named = {n if n.startswith("text.") else f"network.{n}": t for n, t in average.weights().items()}
    save(tmp_path, raw, said, named, keep_raw=True, text=told.tokenizer())
    assert same(open_folder(tmp_path).model, average)
    assert same(open_folder(tmp_path, "raw").model, raw)


def test_old_cards_are_as_they_were(tmp_path: Path) -> None:
    """A card without the new conditions says nothing of them and has the hash that it always had."""
    said = small.card(classes=small.CLASSES, schedule=Table.cosine(), prediction=V())
    assert not {"attributes", "text", "picture"} & said.to_json().keys()
    assert "vector" not in to_json(said.config())
    assert said.core().startswith("fb90b7c181d23e14")  # as before there were such conditions
    assert small.card().core().startswith("419d0346c46c7640")
    assert parse_card(said.to_json(), "here") == said
    run = small.make(tmp_path / "run", said)
    old = json.loads((tmp_path / "run" / CARD).read_text())
    assert old == said.but(diffusers=run.card.diffusers).to_json()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attributes": None}, "0 features"),
        ({"text": None}, None),
        ({"classes": ("a",)}, "class names"),
    ],
)
def test_a_card_whose_conditions_do_not_fit_is_refused(change: dict[str, object], words: str | None) -> None:
    said: Card = told.card()
    if words is None:  # a network that looks at a context of the user's own
        assert said.but(**change).text is None
        return
    with pytest.raises(SettingsError, match=words):
        said.but(**change)
