"""A run's classifier in its folder: as it was written, and refused whole where anything is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato import files
from sfumato.card import DataSettings, ImageSettings, TrainingSettings
from sfumato.errors import RunError, SettingsError
from sfumato.files import read_json, read_tensors, write_tensors
from sfumato.folders.classifier import READABLE, WEIGHTS, ClassifierCard, open_classifier, save_classifier
from sfumato.networks import Classifier, ClassifierConfig
from sfumato.noise import Noise, seeded

CONFIG = ClassifierConfig(in_channels=1, outputs=3, channels=(8, 16), groups=4, head_channels=8)
IMAGE = ImageSettings(channels=1, height=8, width=8)
KEY = "sfumato.classifier"


def network(seed: int = 0) -> Classifier:
    with seeded(seed, "network"):
        return Classifier(CONFIG).eval()


def card(**changes: Any) -> ClassifierCard:
    said: dict[str, Any] = {
        "data": DataSettings(fingerprint="f", images=90, held_out=10),
        "training": TrainingSettings(images_seen=64, steps=1, seconds=0.5),
        "log_snr": (4.0, -4.0),
        "right": (0.9, 0.4),
    }
    return ClassifierCard.of(CONFIG, ("cat", "dog", "ox"), IMAGE, **said | changes)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_classifier(tmp_path, network(), card())
    return tmp_path


def test_it_comes_back_as_it_was(run: Path) -> None:
    found = open_classifier(run)
    assert found.card == card()
    assert found.card.config() == CONFIG
    x, label = Noise((0, 1)).normal((1, 8, 8), "x"), torch.tensor([0.0, 700.0])
    assert torch.equal(found.network(x, label), network()(x, label))
    assert not found.network.training
    assert not any(p.requires_grad for p in found.network.parameters())
    assert read_json(run / READABLE) == json.loads(read_tensors(run / WEIGHTS)[1][KEY])


def test_a_new_one_replaces_the_old(run: Path) -> None:
    before = open_classifier(run).sha256
    save_classifier(run, network(1), card(right=(0.95, 0.5)))
    after = open_classifier(run)
    assert after.sha256 != before
    assert after.card.right == (0.95, 0.5)
    assert torch.equal(after.network.head.weight, network(1).head.weight)


def test_a_crash_leaves_the_old_one_or_the_new_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one file that is read is replaced in one instant, whatever comes of the other."""
    before = open_classifier(run)

    def full(*given: Any, **more: Any) -> None:
        raise RunError("no space left")

    monkeypatch.setattr("sfumato.folders.classifier.write_tensors", full)
    with pytest.raises(RunError):
        save_classifier(run, network(1), card(right=(0.95, 0.5)))
    assert open_classifier(run).card == before.card
    monkeypatch.setattr("sfumato.folders.classifier.write_tensors", files.write_tensors)
    monkeypatch.setattr("sfumato.folders.classifier.write_json", full)
    with pytest.raises(RunError):
        save_classifier(run, network(1), card(right=(0.95, 0.5)))
    assert open_classifier(run).card.right == (0.95, 0.5)


def told(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """The file again with another card."""

    def write(run: Path) -> None:
        tensors, metadata = read_tensors(run / WEIGHTS)
        said = json.loads(metadata[KEY])
        change(said)
        write_tensors(run / WEIGHTS, tensors, {KEY: json.dumps(said)})

    return write


def held(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    """The file again with other tensors."""

    def write(run: Path) -> None:
        tensors, metadata = read_tensors(run / WEIGHTS)
        change(tensors)
        write_tensors(run / WEIGHTS, tensors, {KEY: metadata[KEY]})

    return write


def outside(run: Path) -> None:
    (run / "elsewhere").mkdir()
    (run / "classifier").rename(run / "elsewhere" / "classifier")
    other = run.parent / f"{run.name}-other"
    (run / "elsewhere").rename(other)
    (run / "classifier").symlink_to(other / "classifier")


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (
        lambda run: (run / WEIGHTS).unlink(),
        "has no classifier: train one with sfumato train-classifier",
    ),
    "cut": (lambda run: (run / WEIGHTS).write_bytes((run / WEIGHTS).read_bytes()[:500]), "classifier"),
    "pickle": (lambda run: (run / WEIGHTS).write_bytes(b"\x80\x04K\x01."), "classifier"),
    "outside": (outside, "outside"),
    "no card": (lambda run: write_tensors(run / WEIGHTS, {"a": torch.zeros(1)}), "does not say what"),
    "version": (told(lambda c: c.update(format=2)), "format"),
    "unknown": (told(lambda c: c.update(colour=1)), "colour"),
    "network": (told(lambda c: c["network"].update(channels=[9, 16])), "multiple of the 4 groups"),
    "huge": (told(lambda c: c["network"].update(channels=[8, 16384])), "not those that its card says"),
    "setting": (told(lambda c: c["network"].update(code="x")), "no setting 'code'"),
    "classes": (told(lambda c: c.update(classes=["a", "b"])), "3 outputs for 2 classes"),
    "channels": (told(lambda c: c["image"].update(channels=3)), "1 channels for images of 3"),
    "levels": (told(lambda c: c.update(right=[0.5])), "1 figures at 2 levels"),
    "share": (told(lambda c: c.update(right=[0.5, 1.5])), "right"),
    "untold": (told(lambda c: c["network"].update(told=False)), "no noise level"),
    "tensor": (held(lambda t: t.pop("head.bias")), "not those that its card says"),
    "shape": (held(lambda t: t.update({"head.bias": torch.zeros(4)})), "not those that its card says"),
    "nan": (held(lambda t: t["head.bias"].fill_(torch.nan)), "holds NaN"),
}


@pytest.mark.parametrize(("spoil", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_with_a_sentence(
    run: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    spoil(run)
    with pytest.raises(RunError, match=sentence) as told:
        open_classifier(run)
    assert "\n" not in str(told.value)


def test_what_does_not_fit_is_not_written() -> None:
    with pytest.raises(SettingsError, match="3 outputs for 2 classes"):
        ClassifierCard.of(CONFIG, ("a", "b"), IMAGE)
