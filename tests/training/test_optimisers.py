from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato.errors import SettingsError
from sfumato.training.optimisers import Sgld, adamw, restore_state, set_rate, state_tensors
from sfumato.training.pace import Budget, Pace
from sfumato.training.settings import Habits, TrainSettings


def test_sgld_samples_the_density_it_should() -> None:
    """On U = a (w - m)^2 / 2 the chain is linear: its variance settles at T / (a (1 - lr a / 2)) exactly."""
    a, m, lr, temperature = 2.0, 1.5, 0.1, 0.3
    w = nn.Parameter(torch.zeros(2000))
    optimiser = Sgld([w], lr=lr, seed=4, temperature=temperature)
    means, variances = [], []
    for step in range(300):
        w.grad = a * (w.detach() - m)
        optimiser.step()
        if step >= 60 and step % 20 == 0:  # (1 - lr a)^20 = 0.01: nearly independent looks
            means.append(float(w.detach().mean()))
            variances.append(float(w.detach().var()))
    n = 2000 * len(means)
    variance = temperature / (a * (1 - lr * a / 2))
    assert abs(sum(means) / len(means) - m) < 4 * (variance / n) ** 0.5
    assert abs(sum(variances) / len(variances) / variance - 1) < 4 * (2 / n) ** 0.5


def test_sgld_draws_by_key() -> None:
    def run(split: int) -> torch.Tensor:
        w = nn.Parameter(torch.ones(5))
        optimiser = Sgld([w], lr=0.1, seed=1, temperature=1.0)
        for _ in range(split):
            w.grad = torch.zeros(5)
            optimiser.step()
        kept = {k: v.clone() for k, v in state_tensors(optimiser, {w: "w"}).items()}
        again = Sgld([w], lr=0.1, seed=1, temperature=1.0)
        restore_state(again, {w: "w"}, kept)
        for _ in range(6 - split):
            w.grad = torch.zeros(5)
            again.step()
        return w.detach().clone()

    assert torch.equal(run(6), run(2))
    assert torch.equal(run(6), run(0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_fused_state_from_a_file_goes_on_where_its_parameters_are() -> None:
    def run(split: int) -> torch.Tensor:
        w = nn.Parameter(torch.ones(5, device="cuda"))
        optimiser = adamw([w], lr=0.1)
        for step in range(6):
            if step == split:
                kept = {k: v.cpu() for k, v in state_tensors(optimiser, {w: "w"}).items()}
                optimiser = adamw([w], lr=0.1)
                restore_state(optimiser, {w: "w"}, kept)
            w.grad = torch.full_like(w, step - 2.5)
            optimiser.step()
        return w.detach().cpu()

    assert torch.equal(run(3), run(6))


def test_weight_decay_spares_biases_and_norms() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4))
    for p in net.parameters():
        p.data.fill_(1.0)
        p.grad = torch.zeros_like(p)
    optimiser = adamw(net.parameters(), lr=0.1, weight_decay=0.5)
    optimiser.step()
    assert {round(float(p.detach().mean()), 6) for p in net.parameters() if p.ndim > 1} == {0.95}
    assert {float(p.detach().mean()) for p in net.parameters() if p.ndim == 1} == {1.0}
    set_rate(optimiser, 0.25)
    assert {g["lr"] for g in optimiser.param_groups} == {0.25}


def test_rate_rises_and_falls() -> None:
    pace = Pace(1.0, warmup=3, floor=0.1)
    assert [pace.rate(s, 0.0) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert pace.rate(100, 0.5) == pytest.approx(0.55)
    assert pace.rate(100, 1.0) == pytest.approx(0.1)


def test_a_warm_up_of_no_number_of_steps_is_a_twentieth_of_the_run_or_100_steps() -> None:
    pace = Pace(1.0, floor=1.0)
    assert pace.rate(0, 0.0) == pytest.approx(1 / 101)
    assert pace.rate(10, 0.025) == pytest.approx(0.5)
    assert pace.rate(3, 0.05) == pace.rate(100, 0.0) == pace.rate(50_000, 0.9) == 1.0


def test_budget() -> None:
    assert Budget(steps=10).share(5, 0, 0.0) == 0.5
    assert Budget(images=100).share(0, 250, 0.0) == 1.0
    assert Budget(minutes=2.0).share(0, 0, 30.0) == 0.25
    for wrong in ({}, {"steps": 1, "images": 1}, {"steps": 0}):
        with pytest.raises(SettingsError, match="one of --steps, --images or --minutes"):
            Budget(**wrong)


def test_settings_round_trip_and_refuse() -> None:
    settings = TrainSettings(steps=10, lr=1e-3, weight="min-snr")
    assert TrainSettings.from_json(settings.to_json()) == settings
    assert TrainSettings(steps=10).differences(TrainSettings(steps=10, batch=32)) == ["batch (64, now 32)"]
    with pytest.raises(SettingsError, match="did you mean 'batch'"):
        TrainSettings.from_json({"steps": 10, "batchs": 3})
    with pytest.raises(SettingsError, match="takes int"):
        TrainSettings.from_json({"steps": 10, "batch": "3"})
    for wrong, words in (
        ({"batch": 0}, "--batch"),
        ({"drop": 1.0}, "--drop"),
        ({"weight": "other"}, "--weight is one of"),
        ({"patience": 3}, "--validate"),
        ({"batch": 2, "accumulate": 4}, "4 parts"),
        ({"lr": 0.0}, "learning rate"),
        ({"weight_decay": float("nan")}, "--weight-decay"),
    ):
        with pytest.raises(SettingsError, match=words):
            TrainSettings(steps=10, **wrong)
    with pytest.raises(SettingsError, match="--keep"):
        Habits(keep=0)
