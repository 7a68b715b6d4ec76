"""The folder is the model: whole, the same after a round trip, and hard to fool."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from corpora import small
from sfumato import schedules as s
from sfumato.assembled import build
from sfumato.card import Card, ImageSettings, TrainingSettings, WeightsSettings, parse_card
from sfumato.errors import ModelFileError, RunError, SettingsError, SfumatoError
from sfumato.files import write_json, write_tensors
from sfumato.folders.run import RAW, open_folder, save
from sfumato.level import Level
from sfumato.model import LogSigma, Steps
from sfumato.networks import DiTConfig, to_json
from sfumato.predictions import Clean, Epsilon, Flow, Mean, Prediction, Score, V
from sfumato.records.predictions import describe_prediction, make_prediction
from sfumato.records.schedules import TableNodes, describe_schedule, make_schedule, schedule_hash
from sfumato.runs import Run, load
from sfumato.tables import Table

MINE = Table.from_alpha_bars([0.9, 0.7, 0.35, 0.1, 0.0])
SCHEDULES: list[s.Schedule] = [
    s.RectifiedFlow(),
    s.Cosine(),
    s.Cosine(0.0),
    s.Linear(),
    s.ScaledLinear(0.5, 11.0),
    s.ConstantBeta(7.0),
    s.LinearAlphaBar(0.999),
    s.Sigmoid(-2.0, 3.0, 0.9),
    s.VE(),
    s.Shifted(s.Cosine(), 0.5),
    s.Shifted(s.Shifted(s.RectifiedFlow(), 0.5), 0.25),
    Table.linear(),
    Table.linear(50, 2e-3, 0.4),
    Table.scaled_linear(),
    Table.cosine(),
    Table.cosine(100, largest=1.0),
    Table.constant(0.01, 200),
    Table.linear().zero_terminal_snr(),
    Table.sampled(s.Sigmoid(), 64),
    s.Shifted(Table.linear(), 0.5),
    MINE,
]
PREDICTIONS: list[Prediction] = [
    Epsilon(),
    Clean(),
    Score(),
    Flow(),
    V(),
    V(0.5, -1.0),
    Mean(Table.linear()),
    Mean(MINE),
]


def name(value: object) -> str:
    return type(value).__name__ if not isinstance(value, Table) else f"table{value.steps}"


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_a_schedule_comes_back_with_the_same_levels_bit_for_bit(schedule: s.Schedule) -> None:
    said = small.card(schedule=schedule)
    back = parse_card(json.loads(json.dumps(said.model_dump(mode="json"))), "here")
    assert back == said
    again = make_schedule(back.schedule)
    t = torch.linspace(0, 1, 777, dtype=torch.float64)
    one, two = schedule.level(t), again.level(t)
    if isinstance(schedule, s.Shifted) and isinstance(schedule.base, s.Shifted):  # said as one shift
        torch.testing.assert_close((two.alpha, two.sigma), (one.alpha, one.sigma), rtol=1e-13, atol=1e-13)
    else:
        assert torch.equal(one.alpha, two.alpha)
        assert torch.equal(one.sigma, two.sigma)


def test_named_tables_are_said_by_name_and_others_by_their_numbers() -> None:
    kinds = [describe_schedule(x).kind for x in SCHEDULES]
    assert kinds[11:19] == [
        "table_linear",
        "table_linear",
        "table_scaled_linear",
        "table_cosine",
        "table_cosine",
        "table_constant",
        "table_linear",
        "table",
    ]
    own = describe_schedule(MINE)
    assert isinstance(own, TableNodes)
    assert own.alpha == MINE.alpha


@pytest.mark.parametrize("prediction", PREDICTIONS, ids=name)
def test_a_prediction_comes_back(prediction: Prediction, tmp_path: Path) -> None:
    assert make_prediction(describe_prediction(prediction)) == prediction
    run = small.make(tmp_path / "run", small.card(prediction=prediction, clip=False))
    assert run.model.prediction == prediction


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [(x, V() if float(x.level(torch.ones(1).double()).alpha) == 0 else Epsilon()) for x in SCHEDULES],
    ids=[name(x) for x in SCHEDULES],
)
def test_every_schedule_samples_the_same_after_a_round_trip(
    schedule: s.Schedule, prediction: Prediction, tmp_path: Path
) -> None:
    label = Steps(1000) if not isinstance(schedule, s.VE) else LogSigma()
    said = small.card(schedule=schedule, prediction=prediction, label=label)
    fresh = build(said, 1)
    save(tmp_path / "run", fresh, said)
    back = load(tmp_path / "run", "cpu")
    there = Run(tmp_path, said, fresh.eval(), torch.device("cpu"), "ema", "")
    assert torch.equal(back.sample(2, steps=4), there.sample(2, steps=4))


@pytest.mark.parametrize("kind", ["learned variance", "edm", "dit", "deep range"])
def test_all_that_a_model_is_comes_back(kind: str, tmp_path: Path) -> None:
    extra: dict[str, Any] = {
        "learned variance": {"network": small.unet(1, out_channels=2), "learned_variance": True},
        "edm": {"data_std": 0.5, "prediction": V(0.5, -1.0), "schedule": s.VE(), "label": LogSigma()},
        "dit": {
            "network": DiTConfig(1, 1, heads=2, head_channels=8, layers=2, image_size=8, zero_init=False)
        },
        "deep range": {"image": ImageSettings(channels=1, height=8, width=8, bits=16, low=-2.0, high=3.0)},
    }[kind]
    run = small.make(tmp_path / "run", small.card(**extra))
    said = small.card(**extra)
    assert run.card.but(diffusers=None) == said
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    level = run.model.schedule.level(torch.tensor(0.5, dtype=torch.float64))
    one, two = run.model(x, level), build(said, 1).eval()(x, level)
    assert torch.equal(one.x0, two.x0)
    assert (run.path / ("transformer" if kind == "dit" else "unet") / "config.json").exists()


def test_the_initial_weights_are_a_function_of_the_seed(plain: Run) -> None:
    state = torch.get_rng_state()
    one, two, three = build(plain.card, 5), build(plain.card, 5), build(plain.card, 6)
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(one.state_dict().values(), two.state_dict().values(), three.state_dict().values()))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_loaded_networks_keep_the_layout_that_is_fast(plain: Run) -> None:
    weight = plain.model.network.get_parameter("down_blocks.0.resnets.0.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.requires_grad


# N5: the table of training is the table of sampling


def test_another_schedule_than_the_hash_says_is_refused(plain: Run) -> None:
    path = plain.path / "sfumato.json"
    said = json.loads(path.read_text())
    said["schedule"]["hi"] = 0.0200001
    write_json(path, said)
    with pytest.raises(RunError, match="does not give the levels of the training"):
        load(plain.path)


def test_a_consistent_card_of_another_schedule_is_refused_by_the_weights(plain: Run) -> None:
    path = plain.path / "sfumato.json"
    said = json.loads(path.read_text())
    said["schedule"]["hi"] = 0.03
    said["schedule_hash"] = schedule_hash(Table.linear(hi=0.03))
    write_json(path, said)
    with pytest.raises(RunError, match="trained with another schedule"):
        load(plain.path)


def test_the_hash_sees_a_change_of_one_node_and_not_the_last_bit() -> None:
    table = Table.linear()
    sigma = list(table.sigma)
    sigma[500] *= 1 + 1e-6
    assert schedule_hash(Table(table.alpha, tuple(sigma))) != schedule_hash(table)
    sigma[500] = table.sigma[500] * (1 + 2**-52)
    assert schedule_hash(Table(table.alpha, tuple(sigma))) == schedule_hash(table)
    assert len({schedule_hash(x) for x in SCHEDULES}) == len(SCHEDULES)


# old or new, never a mixture


class Killed(BaseException):
    pass


def test_a_crash_at_any_rename_leaves_the_old_model_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (
        small.card(training=TrainingSettings(images_seen=k), weights=WeightsSettings(kind="ema", horizon=k))
        for k in (100, 200)
    )
    rename = os.replace
    for stop in range(12):
        folder = tmp_path / str(stop)
        save(folder, build(old, 1), old)
        before = load(folder)
        calls = iter(range(100))

        def dying(a: Any, b: Any, calls: Any = calls, stop: int = stop) -> None:
            if next(calls) == stop:
                raise Killed
            rename(a, b)

        monkeypatch.setattr(os, "replace", dying)
        done = False
        try:
            save(folder, build(new, 2), new, keep_raw=True, average=dict(build(new, 3).named_parameters()))
            done = True
        except Killed:
            pass
        monkeypatch.setattr(os, "replace", rename)
        after = load(folder)
        renewed = after.sha256 != before.sha256
        assert after.card.training.images_seen == (200 if renewed else 100)
        assert after.card.weights.horizon == (200 if renewed else 100)
        if done:
            assert renewed
            assert stop > 4
            return
    raise AssertionError("save never ended")


def test_an_unfinished_first_save_is_no_model(tmp_path: Path) -> None:
    run = small.make(tmp_path / "run", small.card())
    (run.path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(RunError, match="there are no weights"):
        load(run.path)


def test_another_model_is_not_written_over_this_one(plain: Run) -> None:
    other = small.card(schedule=Table.cosine())
    with pytest.raises(RunError, match="holds another model"):
        save(plain.path, build(other), other)
    load(plain.path)


def test_raw_and_averaged_weights_are_told_apart(tmp_path: Path) -> None:
    said = small.card(weights=WeightsSettings(kind="ema", horizon=1000.0))
    model, average = build(said, 1), build(said, 2)
    save(tmp_path / "run", model, said, dict(average.named_parameters()), keep_raw=True)
    ema, raw = (load(tmp_path / "run", weights=w) for w in ("ema", "raw"))
    name = "conv_in.weight"
    assert torch.equal(ema.model.network.get_parameter(name), average.network.get_parameter(name))
    assert torch.equal(raw.model.network.get_parameter(name), model.network.get_parameter(name))
    assert (ema.card.weights.kind, ema.card.weights.horizon, raw.card.weights.kind) == ("ema", 1000.0, "raw")
    assert ema.sha256 != raw.sha256
    (tmp_path / "run" / "unet" / RAW).unlink()
    with pytest.raises(RunError, match="raw weights were not kept"):
        load(tmp_path / "run", weights="raw")


def test_weights_that_another_program_saved_are_taken_if_they_fit(plain: Run) -> None:
    path = plain.path / "unet" / "diffusion_pytorch_model.safetensors"
    state = {k: v.half() for k, v in plain.model.network.state_dict().items()}
    write_tensors(path, state)
    back = load(plain.path)
    assert back.sample(1, steps=2).sub(plain.sample(1, steps=2)).abs().max() < 0.05
    state["conv_in.weight"] = state["conv_in.weight"][:4]
    write_tensors(path, state)
    with pytest.raises(RunError, match=r"conv_in\.weight"):
        load(plain.path)
    write_tensors(path, {k: v for k, v in state.items() if k != "conv_out.bias"})
    with pytest.raises(RunError, match=r"lacks tensor 'conv_out\.bias'"):
        load(plain.path)


def test_weights_that_are_not_finite_are_refused(plain: Run) -> None:
    state = dict(plain.model.network.state_dict())
    state["conv_in.bias"] = state["conv_in.bias"] * float("nan")
    write_tensors(plain.path / "unet" / "diffusion_pytorch_model.safetensors", state)
    with pytest.raises(RunError, match="NaN"):
        load(plain.path)


# hostile cards (C5)

HOSTILE: dict[str, Any] = {
    "unknown key": lambda c: c.update(custom_pipeline="evil"),
    "auto_map": lambda c: c.update(auto_map={"AutoModel": "evil.Model"}),
    "unknown kind": lambda c: c["schedule"].update(kind="os.system"),
    "other format": lambda c: c.update(format=2),
    "no format known": lambda c: c.update(format="1"),
    "steps 1e9": lambda c: c["schedule"].update(steps=10**9),
    "steps text": lambda c: c["schedule"].update(steps="1000"),
    "layers 1e9": lambda c: c["network"]["settings"].update(layers=10**9),
    "many blocks": lambda c: c["network"]["settings"].update(
        layers=128, transformer_layers=128, attention=["cross", "cross"], middle="cross", context_dim=8
    ),
    "wide": lambda c: c["network"]["settings"].update(channels=[10**8, 10**8]),
    "unknown network setting": lambda c: c["network"]["settings"].update(trust_remote_code=True),
    "channels text": lambda c: c["network"]["settings"].update(channels="abc"),
    "image 1e10": lambda c: c["image"].update(height=10**10),
    "image negative": lambda c: c["image"].update(width=-8),
    "12 bits": lambda c: c["image"].update(bits=12),
    "class names do not fit": lambda c: c.update(classes=["a", "b"]),
    "classes of dicts": lambda c: c.update(classes=[{}]),
    "guidance 1e300": lambda c: c["sampler"].update(guidance=1e300),
    "sampler steps 0": lambda c: c["sampler"].update(steps=0),
    "hash": lambda c: c.update(schedule_hash="../../etc/passwd"),
    "nested shifts": lambda c: c.update(
        schedule={
            "kind": "shifted",
            "b": 1.0,
            "base": {"kind": "shifted", "b": 1.0, "base": {"kind": "cosine"}},
        }
    ),
    "table that falls": lambda c: c.update(
        schedule={"kind": "table", "alpha": [0.5, 0.9], "sigma": [0.8, 0.4]}
    ),
    "table of two lengths": lambda c: c.update(
        schedule={"kind": "table", "alpha": [0.5], "sigma": [0.8, 0.9]}
    ),
    "mean of a bad table": lambda c: c.update(
        prediction={"kind": "mean", "table": {"kind": "table", "alpha": [0.5, 0.9], "sigma": [0.8, 0.4]}}
    ),
    "mean without a table": lambda c: c.update(prediction={"kind": "mean"}),
    "empty": lambda c: c.clear(),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_card_is_refused_in_one_sentence(what: str, plain: Run) -> None:
    said = json.loads((plain.path / "sfumato.json").read_text())
    HOSTILE[what](said)
    (plain.path / "sfumato.json").write_text(json.dumps(said))
    with pytest.raises(RunError) as found:
        load(plain.path)
    assert "\n" not in str(found.value)
    assert str(plain.path) in str(found.value)
    assert len(str(found.value)) < 700


def test_a_card_of_a_giant_is_refused_by_its_weights_without_allocating_it(plain: Run) -> None:
    said = json.loads((plain.path / "sfumato.json").read_text())
    said["network"]["settings"].update(channels=[16384, 16384], groups=8, head_channels=64)  # 50 GB
    (plain.path / "sfumato.json").write_text(json.dumps(said))
    weights = plain.path / "unet" / "diffusion_pytorch_model.safetensors"
    write_tensors(
        weights, dict(plain.model.network.state_dict())
    )  # without the mark that would refuse it first
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RunError, match="its card"):
        load(plain.path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("value", ["[]", "null", "1", '"x"', "", "{", '{"format": NaN}', '{"format": 1e400}'])
def test_what_is_no_card_at_all_is_refused(value: str, plain: Run) -> None:
    (plain.path / "sfumato.json").write_text(value)
    with pytest.raises(RunError):
        load(plain.path)


def test_program_files_in_a_run_are_never_run(plain: Run) -> None:
    for place in ("sfumato.py", "unet/modeling.py", "__init__.py"):
        (plain.path / place).write_text("raise SystemExit('run')")
    seen: list[str] = []

    def hook(event: str, args: tuple[object, ...]) -> None:
        if seen is not None and event in ("exec", "compile", "os.system", "subprocess.Popen") and on:
            seen.append(event)

    on = True
    sys.addaudithook(hook)
    load(plain.path)
    on = False
    assert seen == []


def test_links_out_of_the_run_are_not_followed(plain: Run, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    inner = plain.path / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.move(inner, outside)
    inner.symlink_to(outside)
    with pytest.raises(ModelFileError, match="outside"):
        load(plain.path)


def test_a_folder_that_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        load(tmp_path / "nothing")
    with pytest.raises(RunError, match="no model here"):
        load(tmp_path)


def test_what_cannot_be_saved_is_refused() -> None:
    class Mine:
        def level(self, t: Tensor) -> Level:
            return Level(1 - t, t)

        def time(self, level: Level) -> Tensor:
            return level.sigma

    with pytest.raises(SettingsError, match="class Mine"):
        small.card(schedule=Mine())
    with pytest.raises(SettingsError, match="does not fit images"):
        small.card(channels=3, network=small.unet(1))


def test_a_card_is_a_value() -> None:
    said = small.card()
    with pytest.raises(ValueError, match="frozen"):
        said.clip = False  # type: ignore[misc]
    assert said.but(clip=False).clip is False
    assert said.but(clip=False).core() == said.core()
    assert said.but(image=ImageSettings(channels=1, height=16, width=8)).core() != said.core()
    with pytest.raises(SettingsError):
        said.but(classes=("a",))
    assert isinstance(said, Card)
    assert to_json(said.config())["channels"] == [16, 32]


def test_every_error_is_ours(tmp_path: Path, plain: Run) -> None:
    for words in ("ema:abc", "ema:9", "ema:0.05", "best", "ema:0.1:2"):
        with pytest.raises(SfumatoError):
            open_folder(plain.path, words)
