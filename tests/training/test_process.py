"""The schedules and predictions that a run can be told by name: what they are, and that runs of them train,
resume to the bit, sample and replay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sfumato.cli import run as command
from sfumato.data.dataset import DataSet
from sfumato.errors import SettingsError, SfumatoError
from sfumato.files import Checkpoints
from sfumato.inside.curves import named_schedule
from sfumato.model import LogSigma, Steps
from sfumato.predictions import Mean, V
from sfumato.runs import load
from sfumato.schedules import Cosine, Schedule, Shifted
from sfumato.tables import Table
from sfumato.training.process import RANGED, SCHEDULES, TABLES, WHOLE, Process, read_table
from sfumato.training.recipes import RunSettings, pixels
from sfumato.training.run import train_run
from sfumato.training.settings import TrainSettings

ENDS = torch.tensor([0.0, 1.0], dtype=torch.float64)
MIDDLE = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
BETAS = [0.01, 0.05, 0.2, 0.4]


@pytest.fixture
def betas(tmp_path: Path) -> Path:
    path = tmp_path / "betas.json"
    path.write_text(json.dumps({"betas": BETAS}))
    return path


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_three_kinds_of_schedules_are_what_they_say(name: str) -> None:
    schedule = Process(name).curve()
    log_snr = schedule.level(ENDS).log_snr
    assert isinstance(schedule, Table) == (name in TABLES)
    if name in WHOLE:
        assert log_snr.isinf().all()
    if name in RANGED:
        assert log_snr.isfinite().all()
    assert bool((schedule.level(MIDDLE).log_snr.diff() < 0).all())


@pytest.mark.parametrize(
    "name", ["cosine", "scaled-linear", "constant", "flow", "sigmoid", "ve", "log-linear"]
)
def test_a_shift_lowers_every_log_snr_by_the_same(name: str) -> None:
    """2 log s (Esser et al. 2024; Hoogeboom et al. 2023, eq. 3), on the nodes of a table."""

    def seen(schedule: Schedule) -> torch.Tensor:
        level = schedule.nodes() if isinstance(schedule, Table) else schedule.level(MIDDLE)
        return level.log_snr

    plain, moved = Process(name).curve(), Process(name, shift=3).curve()
    torch.testing.assert_close(
        seen(moved), seen(plain) - 2 * torch.tensor(3.0).double().log(), rtol=0, atol=1e-9
    )
    assert isinstance(moved, Table | Shifted)


def test_a_shift_of_a_flow_is_stable_diffusion_3s() -> None:
    """t -> s t / (1 + (s - 1) t) (Esser et al. 2024, eq. 23, with s for their root of m / n)."""
    moved = Process("flow", "flow", shift=3).curve().level(MIDDLE)
    torch.testing.assert_close(moved.sigma, 3 * MIDDLE / (1 + 2 * MIDDLE))


def test_plain_names_are_the_plain_formulas() -> None:
    torch.testing.assert_close(
        Process("plain-cosine").curve().level(MIDDLE).alpha, torch.cos(torch.pi / 2 * MIDDLE)
    )
    torch.testing.assert_close(Process("linear-alpha-bar").curve().level(MIDDLE).alpha, (1 - MIDDLE).sqrt())
    constant = Process("constant").curve()
    assert isinstance(constant, Table)
    torch.testing.assert_close(constant.betas, torch.full((1000,), 0.01, dtype=torch.float64))
    ve = Process("ve").curve().level(ENDS)
    assert (ve.alpha.tolist(), ve.sigma.tolist()) == ([1, 1], pytest.approx([0.002, 80]))


def test_zero_snr_ends_at_zero(betas: Path) -> None:
    for name in (*TABLES, str(betas)):
        table = Process(name, zero_snr=True).curve()
        assert isinstance(table, Table)
        assert table.alpha[-1] == 0
        assert Process(name, zero_snr=True, shift=2).curve().level(ENDS).alpha[1] == 0


def test_a_table_of_ones_own(betas: Path, tmp_path: Path) -> None:
    process = Process(str(betas))
    assert process.curve() == named_schedule(str(betas)) == Table.from_betas(BETAS)
    assert process.label() == Steps(4)
    bars = tmp_path / "bars.json"
    bars.write_text(json.dumps({"alpha_bars": [0.9, 0.5, 0.0]}))
    assert read_table(bars) == Table.from_alpha_bars([0.9, 0.5, 0.0])
    there = tmp_path / "elsewhere"
    there.mkdir()
    copy = there / betas.name
    copy.write_bytes(betas.read_bytes())
    assert Process(str(copy)).said == process.said
    copy.write_text(json.dumps({"betas": [*BETAS[:3], 0.3]}))
    assert Process(str(copy)).said != process.said
    now, before = (RunSettings(TrainSettings(steps=1), schedule=str(p)) for p in (copy, betas))
    assert "schedule (betas.json (" in now.differences(before.to_json())[0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[0.1, 0.2]", 'must hold {"betas"'),
        ('{"betas": [0.1], "alpha_bars": [0.9]}', 'must hold {"betas"'),
        ("{}", 'must hold {"betas"'),
        ('{"betas": 0.1}', 'must hold {"betas"'),
        ('{"betas": [0.1, "much"]}', "a list of numbers"),
        ('{"betas": [true]}', "a list of numbers"),
        ('{"betas": [0.1, 1.5]}', "numbers in (0, 1]"),
        ('{"alpha_bars": [0.5, 0.9]}', "noisier at each step"),
        ('{"betas": []}', "at least one"),
        ('{"betas": [0.1', "JSON"),
    ],
)
def test_files_without_a_table_are_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(SfumatoError) as refused:
        read_table(path)
    assert str(refused.value).startswith(str(path))
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(SfumatoError, match="nothing"):
        Process(str(tmp_path / "nothing.json")).curve()


def test_edm_is_karras_networks() -> None:
    """c_skip, c_out, c_in, c_noise and the weight of Karras et al. (2022, table 1)."""
    said = TrainSettings(steps=1, weight="edm", levels="log-normal-sigma")
    process = RunSettings(said, schedule="ve", prediction="edm").process
    assert (process.label(), process.input_std()) == (LogSigma(), 0.5)
    sigma = torch.tensor([0.01, 1.0, 30.0], dtype=torch.float64)[:, None]
    level = process.curve().level(process.curve().time(Process("ve").curve().level(MIDDLE)))
    kind, level = process.kind(), type(level)(torch.ones_like(sigma)[:, 0], sigma[:, 0])
    x, y = torch.full((3, 1), 2.0).double(), torch.full((3, 1), -0.7).double()
    skip, out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / (sigma**2 + 0.25).sqrt()
    torch.testing.assert_close(kind.x0(x, y, level), skip * x + out * y)


def test_defaults_follow_from_the_process(data: DataSet) -> None:
    ve = pixels(data, schedule="ve")
    assert (ve.prediction, ve.train.weight, ve.train.levels) == ("edm", "edm", "log-normal-sigma")
    assert pixels(data, schedule="ve", prediction="v").train.levels == "stratified"
    assert pixels(data, prediction="mean").train.weight == "ddpm"
    assert pixels(data).shift == 1.0
    from sfumato.training import unsaid

    assert unsaid.placed({}, 256, 256)[0]["shift"] == 4.0
    assert unsaid.placed({"schedule": "linear"}, 256, 256)[0]["shift"] == 1.0
    assert unsaid.placed({"shift": 1.0}, 256, 256)[0]["shift"] == 1.0
    assert any("--zero-snr" in reason for reason in pixels(data, schedule="scaled-linear").reasons)
    assert not any("greyer" in r for r in pixels(data, schedule="scaled-linear", zero_snr=True).reasons)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"schedule": "sigmoidal"}, "--schedule is one of"),
        ({"prediction": "noise"}, "--prediction is one of"),
        ({"shift": 0.0}, "--shift is a factor"),
        ({"shift": float("nan")}, "--shift is a factor"),
        ({"schedule": "learned", "shift": 2.0}, "leave out --shift"),
        ({"schedule": "flow", "zero_snr": True}, "its end is 0 already"),
        ({"schedule": "ve", "zero_snr": True}, "choose cosine, linear"),
        ({"zero_snr": True, "prediction": "epsilon"}, "--prediction v, flow or x0"),
        ({"zero_snr": True, "prediction": "score"}, "--prediction v, flow or x0"),
        ({"schedule": "sigmoid", "prediction": "mean"}, "has no steps"),
        ({"schedule": "flow", "prediction": "score"}, "infinite in clean data"),
        ({"prediction": "edm"}, "--schedule ve, log-linear, learned, not cosine"),
        ({"schedule": "flow", "prediction": "edm"}, "must be finite everywhere"),
        ({"prediction": "score", "self_conditioning": True}, "which score cannot tell"),
    ],
)
def test_what_does_not_go_together_is_refused(said: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        RunSettings(TrainSettings(steps=1), **said)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


def test_predictions_and_schedules_are_those_of_the_card(data: DataSet, betas: Path) -> None:
    mean = pixels(data, schedule=str(betas), prediction="mean", train={"steps": 1})
    kind = mean.process.kind()
    assert isinstance(kind, Mean)
    assert kind.table == Table.from_betas(BETAS)
    card = pixels(data, schedule="ve", shift=2, train={"steps": 1}).card(data)
    assert (card.schedule.kind, card.prediction.kind, card.label.kind) == ("shifted", "v", "log_sigma")
    assert card.data_std == 0.5
    assert pixels(data, schedule="plain-cosine").curve() == Cosine(s=0.0)
    assert Process("learned", "edm").kind() == V(0.5, -1.0)


RUNS = [
    {"schedule": "ve"},
    {"schedule": "own", "zero_snr": True, "shift": 2.0},
    {"schedule": "cosine", "model": "dit-tiny"},
    {"schedule": "sigmoid", "shift": 2.0},
    {"schedule": "constant", "prediction": "score"},
    {"schedule": "cosine", "prediction": "mean"},
    {"schedule": "plain-cosine"},
    {"schedule": "linear-alpha-bar"},
    {"schedule": "linear", "zero_snr": True, "prediction": "flow"},
    {"schedule": "ve", "prediction": "score"},
    {"schedule": "log-linear", "prediction": "edm"},
    {"schedule": "learned", "prediction": "edm"},
]


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(s, marks=[pytest.mark.slow] if i else [], id=" ".join(map(str, s.values())))
        for i, s in enumerate(RUNS)
    ],
)
def test_a_run_trains_resumes_samples_and_replays(
    said: dict[str, Any], data: DataSet, betas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if said["schedule"] == "own":
        said = said | {"schedule": str(betas)}
    settings = pixels(data, train={"steps": 4, "batch": 4, "averages": 0}, **said)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert len(list(train_run(data, settings, whole, sample_share=0.0))) == 4
    seen = 0

    def stop() -> bool:
        return seen == 2

    for step in train_run(data, settings, cut, sample_share=0.0, stop=stop):
        seen = step.step
    assert seen == 2
    *_, last = train_run(data, settings, cut, sample_share=0.0)
    assert last.step == 4
    one, other = (Checkpoints(folder / "checkpoints") for folder in (whole, cut))
    ends = [kept.load(kept.latest() or pytest.fail("no checkpoint"))[0] for kept in (one, other)]
    for group, tensors in ends[0].items():
        for name, value in tensors.items():
            assert torch.equal(value, ends[1][group][name]), (group, name)
    assert load(cut, "cpu").model.prediction == settings.process.kind()
    words = [
        "sample",
        cut,
        "-n",
        "1",
        "--class",
        "a",
        "--steps",
        "4",
        "--device",
        "cpu",
        "--out",
        tmp_path / "x.png",
    ]
    assert command([str(word) for word in words]) == 0
    assert command(["replay", str(tmp_path / "x.png"), "--device", "cpu"]) == 0
    assert "identical" in capsys.readouterr().out
