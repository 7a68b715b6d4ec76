"""`sfumato train` with every kind of network: transformers, U-Nets without skips, and gradient checkpointing;
and options that would do nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiTTransformer2DModel

from sfumato.data.dataset import DataSet
from sfumato.errors import SettingsError
from sfumato.networks import MODELS, DiTConfig, UNetConfig
from sfumato.noise import Noise
from sfumato.runs import load
from sfumato.training.recipes import RunSettings, pixels
from sfumato.training.run import train_run
from sfumato.training.settings import TrainSettings

FEW = {"steps": 3, "batch": 4, "averages": 0, "warmup": 0}


def losses(data: DataSet, out: Path, **said: Any) -> list[float]:
    settings = pixels(data, **({"model": "tiny", "train": FEW} | said))
    return [step.loss for step in train_run(data, settings, out, sample_share=0.0)]


def test_a_transformer_is_diffusers_transformer(data: DataSet, tmp_path: Path) -> None:
    losses(data, tmp_path / "run", model="dit-tiny", train=FEW | {"lr": 0.01})
    run = load(tmp_path / "run", "cpu")
    theirs = DiTTransformer2DModel.from_pretrained(tmp_path / "run", subfolder="transformer").eval()
    x = Noise((1, 2, 3, 4)).normal(data.shape, "x")
    label, classes = torch.tensor([0.0, 10.0, 500.0, 999.0]), torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        ours = run.model.network(x, label, classes=classes)
        other = theirs(x, label.long(), class_labels=classes).sample
    assert float(ours.abs().max()) > 0.01
    torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)
    assert run.sample(classes=["a", "c"], guidance=2.0, steps=3).shape == (2, 1, 8, 8)


def test_what_a_transformer_learns_beside(data: DataSet, tmp_path: Path) -> None:
    said = {"model": "dit-tiny", "learned_variance": True, "self_conditioning": True, "task": "upscale:2"}
    losses(data, tmp_path / "run", **said)
    card = load(tmp_path / "run", "cpu").card
    config = card.config()
    assert isinstance(config, DiTConfig)
    assert card.picture is not None
    assert (config.in_channels, config.out_channels, config.dropout) == (2 + card.picture.channels, 2, 0.1)


@pytest.mark.slow
def test_checkpointing_changes_no_number(data: DataSet, tmp_path: Path) -> None:
    for model in ("tiny", "dit-tiny"):
        plain, spared = (
            losses(data, tmp_path / f"{model}-{on}", model=model, checkpointing=on) for on in (False, True)
        )
        assert spared == pytest.approx(plain, rel=1e-6)
        assert load(tmp_path / f"{model}-True", "cpu").card.config().checkpointing


def test_a_network_without_skips(data: DataSet, tmp_path: Path) -> None:
    losses(data, tmp_path / "run", skips=False)
    run = load(tmp_path / "run", "cpu")
    config = run.card.config()
    assert isinstance(config, UNetConfig)
    assert not config.skips
    assert "skip connections" in (run.card.diffusers or "")
    assert run.sample(1, steps=2).isfinite().all()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"text": "own"}, "--text is of U-Nets"),
        ({"attributes": ("age:number",)}, "--attribute is of U-Nets"),
        ({"conditioning": "scale_shift"}, "--conditioning is of U-Nets"),
        ({"class_input": "concat"}, "--class-input is of U-Nets"),
        ({"skips": False}, "--no-skips is of U-Nets"),
    ],
)
def test_what_a_transformer_does_not_have_is_refused(said: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        RunSettings(TrainSettings(steps=1), model="dit-base", **said)
    assert str(refused.value).startswith(why)
    assert "choose tiny, small, base, large" in str(refused.value)


def test_every_network_has_its_defaults(data: DataSet) -> None:
    rates = {model: pixels(data, model=model, train={"batch": 32}).train.lr for model in MODELS}
    assert rates["dit-large"] == pytest.approx(2e-4)
    assert rates["dit-tiny"] == pytest.approx(1e-3 / 2**0.5)
    with pytest.raises(SettingsError, match="dit-tiny, dit-small"):
        pixels(data, model="dit")


@pytest.mark.parametrize(
    ("train", "said", "why"),
    [
        ({"gamma": 3.0}, {}, "--gamma is of --weight min-snr, and this run has v"),
        ({"bias": 1.0, "weight": "p2"}, {}, "--bias is of --weight sigmoid, and this run has p2"),
        ({"temperature": 1e-5}, {}, "--temperature is of --optimiser sgld, and this run has adamw"),
        ({"drop": 0.2}, {"classes": False}, "--drop hides what a model is told"),
        ({}, {"classes": False, "class_input": "concat"}, "--class-input is how a class enters"),
        ({}, {"saturation": 0.1}, "--saturation is of colours"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    data: DataSet, train: dict[str, Any], said: dict[str, Any], why: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        pixels(data, train={"steps": 1} | train, **said)
    assert str(refused.value).startswith(why)
    assert "leave it out" in str(refused.value)


def test_where_they_do_something_they_are_taken(data: DataSet) -> None:
    taken = pixels(data, train={"weight": "min-snr", "gamma": 3.0, "optimiser": "sgld", "temperature": 0.1})
    assert (taken.train.gamma, taken.train.temperature) == (3.0, 0.1)
    assert pixels(data, train={"weight": "sigmoid", "bias": 2.0, "drop": 0.2}).train.drop == 0.2
    assert pixels(data, train={"drop": 0.0}, classes=False).train.drop == 0
