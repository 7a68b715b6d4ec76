"""N21: averages against their closed forms, any width rebuilt afterwards, swapping restores every bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sfumato.errors import RunError, SettingsError
from sfumato.model import Model
from sfumato.training.average import Ema, FlatWeights, PowerAverage, Snapshot, mixing, reconstruct
from sfumato.training.snapshots import read_snapshots, rebuild, write_snapshot

F64 = torch.float64


def test_ema_of_constant_weights_is_constant_and_forgets_its_start() -> None:
    ema, average, weights = Ema(0.99), torch.zeros(3, dtype=F64), torch.full((3,), 2.0, dtype=F64)
    left = 1.0
    for n in range(500):
        ema.follow(average, weights, n)
        left *= ema.decay_at(n)
    torch.testing.assert_close(average, weights * (1 - left), rtol=1e-12, atol=0)


def test_ema_lags_linear_weights_by_its_horizon() -> None:
    """Weights w_n = n, long after the warm-up: the average is n - decay / (1 - decay)."""
    ema, average = Ema(0.9), torch.zeros(1, dtype=F64)
    for n in range(2000):
        ema.follow(average, torch.full((1,), float(n), dtype=F64), n)
    assert float(average) == pytest.approx(1999 - 0.9 / 0.1, rel=1e-9)
    assert ema.horizon == pytest.approx(10)


def test_warm_up() -> None:
    ema = Ema(0.9999)
    assert [ema.decay_at(n) for n in (0, 1, 8)] == pytest.approx([0.1, 2 / 11, 0.5])
    assert ema.decay_at(10**6) == 0.9999
    with pytest.raises(SettingsError, match="decay"):
        Ema(1.0)


@pytest.mark.parametrize("width", [0.05, 0.10, 0.2])
def test_power_average_has_its_width_and_closed_forms(width: float) -> None:
    power = PowerAverage(width)
    g = power.gamma
    assert math.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3))) == pytest.approx(width, rel=1e-12)
    constant, linear = torch.zeros(1, dtype=F64), torch.zeros(1, dtype=F64)
    steps = 4000
    for n in range(1, steps + 1):
        power.follow(constant, torch.ones(1, dtype=F64), n)
        power.follow(linear, torch.full((1,), float(n), dtype=F64), n)
    assert float(constant) == pytest.approx(1.0, rel=1e-12)
    share = power.profile(steps, torch.arange(1, steps + 1, dtype=F64))
    assert float(share.sum()) == pytest.approx(1.0, rel=1e-12)
    assert float(linear) == pytest.approx(float(share @ torch.arange(1, steps + 1, dtype=F64)), rel=1e-10)
    assert float(linear) / steps == pytest.approx(
        (g + 1) / (g + 2), rel=1e-3
    )  # the mean of t^gamma on [0, 1]
    spread = float(share @ (torch.arange(1, steps + 1, dtype=F64) - linear) ** 2) ** 0.5 / steps
    assert spread == pytest.approx(width, rel=1e-3)


def path_of_weights(n: int) -> Tensor:
    """A training-like path: a fast approach, a slow drift, a wobble."""
    t = n / 600
    return torch.tensor([math.exp(-6 * t), t, t**2, math.sin(9 * t), 1.0], dtype=F64)


def tracked(kept_every: int, steps: int = 600) -> tuple[list[Snapshot], dict[float, Tensor]]:
    widths = (0.05, 0.10)
    direct = {w: torch.zeros(5, dtype=F64) for w in (0.05, 0.07, 0.10, 0.15)}
    snapshots = []
    for n in range(1, steps + 1):
        for w, average in direct.items():
            PowerAverage(w).follow(average, path_of_weights(n), n)
        if n % kept_every == 0:
            snapshots += [Snapshot(n, w, {"w": direct[w].clone()}) for w in widths]
    return snapshots, direct


def test_any_width_is_rebuilt_from_snapshots_of_two() -> None:
    snapshots, direct = tracked(kept_every=20)
    for width, expected in direct.items():
        rebuilt = reconstruct(snapshots, width)["w"].double()
        assert float((rebuilt - expected).abs().max()) < 1e-4, width
    one = [s for s in snapshots if s.step == 600 and s.sigma_rel == 0.05]  # bites: one snapshot is not enough
    assert float((reconstruct(one, 0.15)["w"].double() - direct[0.15]).abs().max()) > 1e-2


def test_mixing_says_how_well_it_can_do() -> None:
    mix, left = mixing([(600, 0.05)], 0.05, 600)
    assert mix.tolist() == pytest.approx([1.0])
    assert left < 1e-6
    assert mixing([(600, 0.05)], 0.2, 600)[1] > 0.3


def test_snapshots_on_disk(tmp_path: Path) -> None:
    snapshots, direct = tracked(kept_every=100)
    for s in snapshots:
        write_snapshot(tmp_path, Snapshot(s.step, s.sigma_rel, {"w": s.weights["w"].float()}))
    assert [(s.step, s.sigma_rel) for s in read_snapshots(tmp_path)] == sorted(
        (s.step, s.sigma_rel) for s in snapshots
    )
    assert float((rebuild(tmp_path, 0.07)["w"].double() - direct[0.07]).abs().max()) < 5e-3
    with pytest.raises(RunError, match="kept no averages"):
        rebuild(tmp_path / "none", 0.07)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "averages").write_text("no folder")
    with pytest.raises(RunError, match="averages: making failed"):
        write_snapshot(tmp_path / "taken", snapshots[0])


def test_swapping_restores_every_bit_and_views_stay(model: Callable[..., Model]) -> None:
    m = model()
    m.network.first.to(memory_format=torch.channels_last)
    before = {k: v.clone() for k, v in m.state_dict().items()}
    strides = {k: p.stride() for k, p in m.named_parameters()}
    weights = FlatWeights(m)
    assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())
    assert {k: p.stride() for k, p in m.named_parameters()} == strides
    with weights.swapped(torch.ones_like(weights.vector)):
        assert all(bool((p == 1).all()) for p in m.parameters())
    assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())
    m.network.second.weight.data.zero_()  # the vector is the parameter
    assert bool((weights.view(weights.vector, "network.second.weight") == 0).all())
    with pytest.raises(SettingsError, match="another network"):
        weights.put(weights.vector, {"other": torch.zeros(1)})
