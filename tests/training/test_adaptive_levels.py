"""Levels drawn by their losses: unbiased, less noisy, the same however the run is cut; schedules fitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from corpora.told import ABC
from sfumato.data.batches import Batches
from sfumato.errors import SettingsError
from sfumato.level import Level
from sfumato.model import Model
from sfumato.predictions import Estimate, V
from sfumato.schedules import Cosine, LogLinear, Schedule
from sfumato.tables import Table
from sfumato.training.adaptive import BINS, Adaptive, MeanLoss, Memory, SecondMoment
from sfumato.training.companion import Companion
from sfumato.training.fitted import fit_schedule
from sfumato.training.levels import Stratified, Uniform, Weighed
from sfumato.training.objectives import Trial
from sfumato.training.settings import TrainSettings
from sfumato.training.trainer import Training
from sfumato.training.validation import buckets
from sfumato.training.vault import Memory as Kept

SCHEDULES: list[Schedule] = [Cosine(), Table.linear(), Table.linear(37, 1e-3, 0.3), Table.linear(250)]


def seen(where: Adaptive, schedule: Schedule, loss: Callable[[Tensor], Tensor], rounds: int = 30) -> None:
    """Teaches it losses that are a function of the time."""
    model = Model(torch.nn.Identity(), schedule, V())
    where.begin(model, 256, torch.device("cpu"))
    for step in range(rounds):
        level = Stratified()(schedule, range(256 * step, 256 * (step + 1)), 5)
        x = torch.zeros(256, 1)
        trial = Trial(x, x, level, Estimate.of(x, level, x0=x), schedule)
        where.watch(trial, loss(schedule.time(level)).float(), range(256))
        where.learn()


def hill(t: Tensor) -> Tensor:
    return 0.1 + 5 * torch.exp(-(((t - 0.3) / 0.1) ** 2))


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES, ids=["cosine", "1000", "37", "250"])
@pytest.mark.parametrize("memory", [SecondMoment, MeanLoss])
def test_the_mean_stays_and_the_variance_falls(schedule: Schedule, memory: Callable[[int], Memory]) -> None:
    where = Adaptive(memory)
    seen(where, schedule, hill, 60)
    count = 60_000
    level = where(schedule, range(count), 1)
    weighed = where.weights(schedule, level) * hill(schedule.time(level))
    even = hill(schedule.time(Uniform()(schedule, range(count), 1)))
    error = float(weighed.std()) / count**0.5
    if isinstance(schedule, Table):
        exact = float(hill(schedule.time(schedule.nodes())).mean())
    else:
        exact = float(hill((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000).mean())
    assert abs(float(weighed.mean()) - exact) < 4 * error
    assert float(weighed.var()) < 0.1 * float(even.var())
    assert float(where.weights(schedule, level).mean()) == pytest.approx(1, abs=0.02)


def test_the_shares_are_the_roots_of_second_moments() -> None:
    where = Adaptive(SecondMoment)
    flip = lambda t: torch.where(t < 0.5, 3.0, torch.where((t * 1e6).long() % 2 == 0, 8.0, 0.0))
    seen(where, Cosine(), flip, 200)
    share = lambda t: float((where._below(t) * torch.tensor([1.0])).sum())
    left = share(torch.tensor([0.5], dtype=torch.float64))
    right = (8**2 / 2) ** 0.5
    assert left == pytest.approx(3 / (3 + right), rel=0.15)


def test_nothing_changes_until_every_bin_has_been_seen() -> None:
    where = Adaptive(SecondMoment)
    seen(where, Cosine(), hill, 2)
    assert isinstance(where, Weighed)
    assert isinstance(where, Companion)
    level, even = where(Cosine(), range(100), 3), Stratified()(Cosine(), range(100), 3)
    torch.testing.assert_close(level.alpha, even.alpha)
    torch.testing.assert_close(where.weights(Cosine(), level), torch.ones(100, dtype=torch.float64))
    full = Adaptive(SecondMoment)
    seen(full, Cosine(), hill)
    assert not torch.allclose(full(Cosine(), range(100), 3).alpha, even.alpha)
    m = Model(torch.nn.Identity(), Cosine(), V())
    assert torch.equal(buckets(m, full, 3).alpha, buckets(m, Stratified(), 3).alpha)


SETTINGS = TrainSettings(steps=260, batch=8, lr=2e-3, warmup=2)


@pytest.mark.slow
@pytest.mark.parametrize("levels", ["importance", "fitted"])
def test_a_cut_run_goes_on_bit_for_bit_and_parts_agree(
    levels: str, model: Callable[..., Model], batches: Batches
) -> None:
    """260 steps: the bins are full after about 130, so that the history decides afterwards."""
    settings = replace(SETTINGS, levels=levels)
    whole = Training(model(), batches, settings, telling=ABC)
    losses = [s.loss for s in whole.steps()]
    assert isinstance(whole.lesson.where, Adaptive)
    assert float(whole.lesson.where._edges.diff().max()) > 1.5 / BINS

    vault, first = Kept(), []
    cut = Training(model(), batches, settings, telling=ABC, vault=vault)
    for step in cut.steps():
        first.append(step.loss)
        if step.step == 200:  # the memory keeps every hundredth
            break
    again = Training(model(), batches, settings, telling=ABC, vault=vault)
    assert again.resumed
    rest = [s.loss for s in again.steps()]
    assert first + rest == losses
    assert torch.equal(again.state.weights.vector, whole.state.weights.vector)

    parts = Training(model(), batches, replace(settings, accumulate=3), telling=ABC)
    for step, loss in zip(parts.steps(), losses[:160], strict=False):
        assert step.loss == pytest.approx(loss, rel=1e-4)


def test_a_flat_loss_fits_a_straight_line() -> None:
    x = torch.tensor([-4.0, 8.0, 2.0])
    table = fit_schedule(x, torch.ones(3), 100)
    expected = Table.sampled(LogLinear(-8.0, 4.0), 100)
    torch.testing.assert_close(table.nodes().log_snr, expected.nodes().log_snr, rtol=0, atol=2e-3)


def test_every_step_of_a_fitted_schedule_has_the_same_loss() -> None:
    x = torch.linspace(-5, 8, 14, dtype=torch.float64)
    losses = 0.05 + torch.exp(-((x - 1) ** 2) / 4)
    table = fit_schedule(x, losses, 400)
    nodes = table.nodes().log_snr
    fine = torch.linspace(8, -5, 200_001, dtype=torch.float64)
    place = (13 - (fine + 5)).clamp(0, 12.999999)  # knots a unit apart, from the right
    low = place.floor().long()
    right = losses.flip(0)
    density = right[low] + (place - low) * (right[low + 1] - right[low])
    mass = torch.cat([density.new_zeros(1), density.cumsum(0)])
    at = (mass[torch.searchsorted(-fine, -nodes)] / mass[-1]).diff()
    torch.testing.assert_close(at, torch.full_like(at, 1 / 400), rtol=0.02, atol=0)
    assert float(nodes[-1]) == pytest.approx(-5, abs=1e-6)


@pytest.mark.parametrize(
    ("x", "y"),
    [([1.0], [1.0]), ([1.0, 1.0], [1.0, 2.0]), ([0.0, 1.0], [0.0, 0.0]), ([0.0, 1.0], [-1.0, 2.0])],
)
def test_what_is_no_density_is_refused(x: list[float], y: list[float]) -> None:
    with pytest.raises(SettingsError, match="a schedule is fitted to losses"):
        fit_schedule(torch.tensor(x), torch.tensor(y))


def test_the_levels_are_asked_at_nodes_only() -> None:
    where = Adaptive(MeanLoss)
    table = Table.linear(37, 1e-3, 0.3)
    seen(where, table, hill)
    level: Level = where(table, range(5000), 2)
    place = table.time(level) * 37
    assert torch.equal(place, place.round())
    assert float(place.min()) >= 1
