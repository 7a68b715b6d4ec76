"""VDM's learned schedule: its inverse, ends that go where the bound is lower, less variance, its folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sfumato.bound import Bins
from sfumato.data.dataset import Batch, DataSet
from sfumato.errors import SettingsError
from sfumato.learned import Learned
from sfumato.level import Level
from sfumato.model import LogSigma, Model
from sfumato.noise import Noise
from sfumato.predictions import Epsilon, V
from sfumato.records.schedules import describe_schedule, make_schedule, schedule_hash
from sfumato.runs import load
from sfumato.schedules import LogLinear
from sfumato.training.learned_schedule import LearnedSchedule
from sfumato.training.levels import Stratified
from sfumato.training.recipes import pixels
from sfumato.training.run import train_run
from sfumato.training.settings import TrainSettings
from sfumato.training.trainer import Training
from sfumato.training.variational import VariationalBound
from sfumato.training.vault import Memory

pytestmark = pytest.mark.slow

STD = 0.5
BENT = Learned(-9.0, 6.0, (3.0, 40.0, 12.0), (0.1, 0.35, 0.9), (0.5, 2.0, 0.01))


@pytest.mark.parametrize("schedule", [BENT, Learned.straight()])
def test_time_is_the_inverse_of_level(schedule: Learned) -> None:
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    torch.testing.assert_close(schedule.time(schedule.level(t)), t, rtol=0, atol=1e-12)
    gamma, rise = schedule.gamma(t)
    assert bool((gamma.diff() > 0).all())
    assert gamma[[0, -1]].tolist() == pytest.approx([schedule.gamma_min, schedule.gamma_max], abs=1e-12)
    by_difference = (gamma[2:] - gamma[:-2]) / (t[2] - t[0])
    torch.testing.assert_close(rise[1:-1], by_difference, rtol=1e-3, atol=0)
    beyond = LogLinear(-12.0, 9.0).level(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert float(schedule.time(beyond)[1]) > 1
    assert bool((schedule.time(Level.of(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))).abs() > 1).all())


def test_a_straight_one_is_nearly_log_linear_and_kept_exactly() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    apart = Learned.straight().level(t).log_snr - LogLinear().level(t).log_snr
    assert float(apart.abs().max()) < 0.2
    told = describe_schedule(BENT)
    assert make_schedule(told) == BENT
    assert schedule_hash(
        make_schedule(type(told).model_validate_json(told.model_dump_json()))
    ) == schedule_hash(BENT)
    with pytest.raises(SettingsError, match="above 0"):
        Learned(-1.0, 1.0, (0.0,), (0.5,), (1.0,))
    with pytest.raises(SettingsError, match="must rise"):
        Learned(1.0, 1.0, (1.0,), (0.5,), (1.0,))


class Gaussian:
    """A stream of N(0, STD^2), each picture of 16 numbers."""

    def each(self, chunks: Iterable[Sequence[int]], *, workers: int = 0, ahead: int = 4) -> Iterator[Batch]:
        for chunk in chunks:
            x = STD * Noise.of("gaussian", places=chunk).normal((16, 1, 1))
            yield Batch(x, None, None, ("",) * len(chunk), tuple(chunk))


class Exact(nn.Module):
    """Knows the best eps for N(0, STD^2) at log(sigma / alpha) / 4; its one number is of no use."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        snr = torch.exp(-8 * label)
        alpha2, sigma2 = snr / (1 + snr), 1 / (1 + snr)
        gain = sigma2.sqrt() / (STD**2 * alpha2 + sigma2)
        return gain[:, None, None, None] * x + 0 * self.idle


def bound_of(gamma_min: float, gamma_max: float) -> float:
    """The expected bound less L_0, in nats: a closed form for this data and an exact estimate."""
    snr = torch.exp(-torch.tensor([gamma_min, gamma_max], dtype=torch.float64))
    grown = torch.log1p(STD**2 * snr)
    share = snr[1] / (1 + snr[1])
    return float((grown[0] - grown[1]) / 2 + (share * (STD**2 - 1) + torch.log1p(snr[1])) / 2)


WIDE = Bins(2, 0.0, 1e9)
"""A decoder that costs nothing: only the noisy end has something to gain, and the clean one all to lose."""


def trained(schedule: Learned, steps: int, lr: float = 0.02, bins: Bins = WIDE) -> Learned:
    model = Model(Exact(), schedule, Epsilon(), LogSigma())
    settings = TrainSettings(steps=steps, batch=64, weight="bound")
    objective, companion = VariationalBound(bins=bins), LearnedSchedule(bins, lr)
    training = Training(model, Gaussian(), settings, objective=objective, companions=(companion,))
    for _ in training.steps():
        pass
    assert isinstance(model.schedule, Learned)
    return model.schedule


def terms(schedule: Learned | LogLinear, count: int = 20_000) -> Tensor:
    from sfumato.forward import noised
    from sfumato.training.objectives import Trial

    level = Stratified()(schedule, range(count), 7)
    x0 = STD * Noise.of("test", places=range(count)).normal((16, 1, 1))
    eps = Noise.of("eps", places=range(count)).normal((16, 1, 1))
    x = noised(x0, eps, level)
    with torch.no_grad():
        e = Model(Exact(), schedule, Epsilon(), LogSigma())(x, level)
    return VariationalBound(bins=WIDE)(Trial(x0, eps, level, e, schedule)).double()


def test_the_shape_lowers_the_variance_of_the_bound() -> None:
    """With the ends where they are: nearly down to the least that any schedule has, by Cauchy-Schwarz."""
    start = Learned.straight(-8.0, 8.0)
    end = trained(start, 300)
    fixed = replace(end, gamma_min=start.gamma_min, gamma_max=start.gamma_max)
    before, after = terms(start), terms(fixed)
    assert float(after.mean()) == pytest.approx(float(before.mean()), rel=0.02)  # the bound itself stays
    assert float(after.var()) < 0.35 * float(before.var())
    assert float(terms(LogLinear(-8.0, 8.0)).var()) > 2.5 * float(after.var())


def test_the_ends_go_where_the_bound_is_lower() -> None:
    start = Learned.straight(-4.0, 1.0)
    end = trained(start, 60)
    assert end.gamma_max > start.gamma_max + 0.3  # there L_T is still far from 0
    assert end.gamma_min > start.gamma_min + 0.3  # decoding is free
    assert bound_of(end.gamma_min, end.gamma_max) < bound_of(start.gamma_min, start.gamma_max) - 0.1
    dear = trained(start, 60, bins=Bins(256))  # what the steps would save, decoding to bytes costs
    assert abs(dear.gamma_min - start.gamma_min) < 0.1


def test_a_cut_run_goes_on_bit_for_bit_and_parts_agree() -> None:
    def training(vault: Memory | None = None, parts: int = 1) -> Training:
        model = Model(Exact(), Learned.straight(-8.0, 5.0), Epsilon(), LogSigma())
        settings = TrainSettings(steps=110, batch=12, weight="bound", accumulate=parts)
        companions = (LearnedSchedule(),)
        return Training(
            model, Gaussian(), settings, vault=vault, objective=VariationalBound(), companions=companions
        )

    whole = training()
    losses = [s.loss for s in whole.steps()]
    vault = Memory()
    for step in training(vault).steps():
        if step.step == 105:
            break
    again = training(vault)
    assert again.resumed
    assert [s.loss for s in again.steps()] == losses[100:]
    assert again.model.schedule == whole.model.schedule
    assert again.model.schedule != Learned.straight(-8.0, 5.0)
    split = [s.loss for s in training(parts=3).steps()]
    assert split == pytest.approx(losses, rel=1e-5)


def test_a_run_with_a_learned_schedule(data: DataSet, tmp_path: Path) -> None:
    train = {"steps": 4, "batch": 4, "validate": 0}
    settings = pixels(data, model="tiny", schedule="learned", train=train, dropout=0.0)
    assert settings.train.weight == "bound"
    for _ in train_run(data, settings, tmp_path / "run", sample_share=0.0):
        pass
    run = load(tmp_path / "run")
    assert isinstance(run.model.schedule, Learned)
    assert run.model.schedule != Learned.straight()
    assert run.sample(2, steps=3).shape == (2, 1, 8, 8)
    first = run.model.schedule
    list(train_run(data, settings, tmp_path / "run", sample_share=0.0))  # it is complete: nothing moves
    assert load(tmp_path / "run").model.schedule == first


def test_what_cannot_be_learned_is_refused() -> None:
    model = Model(Exact(), LogLinear(), V(), LogSigma())
    with pytest.raises(SettingsError, match="LogLinear schedule has nothing to learn"):
        LearnedSchedule().begin(model, 4, torch.device("cpu"))
