"""Training as a whole, on a small network: it learns, skips what is not finite, stops early."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from corpora.told import ABC
from sfumato.data.batches import Batches
from sfumato.data.dataset import Batch, DataSet
from sfumato.data.toy import Mixture
from sfumato.errors import RunError, SettingsError
from sfumato.model import Model
from sfumato.noise import Noise, seeded
from sfumato.predictions import Clean, V
from sfumato.schedules import Cosine
from sfumato.training.crew import Crew
from sfumato.training.errors import TrainingError
from sfumato.training.levels import Stratified
from sfumato.training.settings import Habits, TrainSettings
from sfumato.training.state import State
from sfumato.training.step import TrainStep
from sfumato.training.trainer import Training, fit
from sfumato.training.validation import HeldOut, Trend, buckets
from sfumato.training.vault import Memory

SETTINGS = TrainSettings(steps=12, batch=8, lr=2e-3, warmup=2, validate=4)


def held(data: DataSet) -> HeldOut:
    batch = data.held_out()
    return HeldOut(batch.images, ABC.told(batch, 0))


def run(
    model: Model, batches: Batches, settings: TrainSettings, **more: object
) -> tuple[Training, list[TrainStep]]:
    training = Training(model, batches, settings, telling=ABC, **more)  # pyright: ignore[reportArgumentType]
    return training, list(training.steps())


def test_it_learns_and_says_how(model: Callable[..., Model], batches: Batches, data: DataSet) -> None:
    settings = replace(SETTINGS, steps=150, validate=50, lr=1e-2)
    _, steps = run(model(0.0), batches, settings, held=held(data))
    assert [s.step for s in steps] == list(range(1, 151))
    assert [s.images for s in steps] == [8 * (i + 1) for i in range(150)]
    first, last = (sum(s.loss for s in part) / 20 for part in (steps[:20], steps[-20:]))
    assert last < 0.7 * first
    looks = [s.validation for s in steps if s.validation is not None]
    assert len(looks) == 3
    assert looks[0].loss > looks[1].loss > looks[2].loss
    assert len(looks[0].per_level) == 8
    assert list(looks[0].log_snr) == sorted(looks[0].log_snr, reverse=True)
    assert steps[-1].last
    assert steps[-1].share == 1
    assert steps[-1].saved
    assert steps[-1].lr < 0.05 * settings.lr


def test_the_average_differs_from_the_weights_and_fit_leaves_it(
    model: Callable[..., Model], batches: Batches
) -> None:
    training, _ = run(model(), batches, SETTINGS)
    state = training.state
    apart = float((state.average - state.weights.vector).abs().max())
    assert 1e-5 < apart < 1
    again = model()
    list(fit(again, batches, SETTINGS, telling=ABC))
    named = dict(again.named_parameters())
    for name, value in state.weights.named(state.average).items():
        assert torch.equal(named[name], value)
    assert not again.training


def test_accumulation_agrees_with_one_batch(model: Callable[..., Model], batches: Batches) -> None:
    """Levels, noise, masks and hidden classes are the samples' own: only the order of summation differs."""
    whole, steps = run(model(), batches, SETTINGS)
    for parts in (2, 3):
        split, others = run(model(), batches, replace(SETTINGS, accumulate=parts))
        for a, b in zip(steps, others, strict=True):
            assert b.loss == pytest.approx(a.loss, rel=1e-6)
            assert b.grad_norm == pytest.approx(a.grad_norm, rel=1e-5)
        difference = (whole.state.weights.vector - split.state.weights.vector).norm()
        assert float(difference / whole.state.weights.vector.norm()) < 1e-5


def test_every_setting_of_the_loss_changes_it(model: Callable[..., Model], batches: Batches) -> None:
    _, plain = run(model(), batches, replace(SETTINGS, steps=3))
    changes = [{"weight": "v"}, {"weight": "min-snr"}, {"levels": "uniform"}, {"seed": 1}, {"drop": 0.9}]
    for change in changes:
        _, other = run(model(), batches, replace(SETTINGS, steps=3, **change))
        assert other[2].loss != plain[2].loss, change
    for change in (
        {"clip": 1e-3},
        {"weight_decay": 10.0},
        {"lr": 1e-2},
        {"warmup": 0},
        {"optimiser": "sgld"},
    ):
        _, other = run(model(), batches, replace(SETTINGS, steps=3, **change))
        assert other[0].loss == plain[0].loss, change
        assert other[2].loss != plain[2].loss, change


class Poisoned:
    """A stream in which some samples are not a number."""

    def __init__(self, batches: Batches, bad: Callable[[int], bool]) -> None:
        self.batches, self.bad = batches, bad

    def each(self, chunks: Iterable[Sequence[int]], *, workers: int = 0, ahead: int = 4) -> Iterator[Batch]:
        for batch in self.batches.each(chunks, workers=workers, ahead=ahead):
            for row, position in enumerate(batch.positions):
                if self.bad(position):
                    batch.images[row] = float("nan")
            yield batch


def test_a_step_that_is_not_finite_is_left_out_and_its_pictures_named(
    model: Callable[..., Model], batches: Batches
) -> None:
    stream = Poisoned(batches, lambda p: p == 19)
    training, steps = run(model(), stream, SETTINGS)  # pyright: ignore[reportArgumentType]
    assert [s.skipped for s in steps[:4]] == [False, False, True, False]
    assert [s.step for s in steps[:4]] == [1, 2, 2, 3]
    assert training.counters.skipped == 1
    name = batches.batch([16]).names[0]
    assert "step 3 was left out" in steps[2].notices[0]
    assert name in steps[2].notices[0]
    assert bool(torch.isfinite(training.state.weights.vector).all())
    assert bool(torch.isfinite(training.state.average).all())
    assert training.counters.step == 12


def test_several_in_a_row_roll_back_and_a_second_time_stops(
    model: Callable[..., Model], batches: Batches
) -> None:
    stream = Poisoned(batches, lambda p: 24 <= p < 64)
    training, steps = run(model(), stream, SETTINGS)  # pyright: ignore[reportArgumentType]
    assert sum(s.skipped for s in steps) == 5
    assert any("back to the state of step 0" in n for s in steps for n in s.notices)
    assert training.counters.position == 8 * (12 + 3 + 5)  # 3 steps lost, 5 left out: the stream went on
    with pytest.raises(TrainingError, match=r"not finite for 5 steps in a row, again .* pictures: "):
        run(model(), Poisoned(batches, lambda p: p >= 24), SETTINGS)  # pyright: ignore[reportArgumentType]


def test_a_full_disk_does_not_end_a_run(model: Callable[..., Model], batches: Batches) -> None:
    class Full(Memory):
        """No room from the second save to the fourth."""

        count = 0

        def save(self, state: State) -> None:
            self.count += 1
            if 2 <= self.count <= 4:
                raise RunError("needs 2 MB, has 1 MB free at runs/x")
            super().save(state)

    vault = Full()
    steps = list(
        fit(
            model(), batches, replace(SETTINGS, validate=2), telling=ABC, vault=vault, held=held(batches.data)
        )
    )
    told = [n for s in steps for n in s.notices if n.startswith("not saved: needs 2 MB")]
    assert len(told) == 3
    assert steps[-1].saved
    with pytest.raises(
        RunError, match="needs 2 MB"
    ):  # but a run that could not save its end does not look done
        list(fit(model(), batches, replace(SETTINGS, steps=1, validate=0), telling=ABC, vault=Full()))


def test_averages_that_cannot_be_kept_cost_no_checkpoint(
    model: Callable[..., Model], batches: Batches
) -> None:
    class Narrow(Memory):
        saves = tries = 0

        def save(self, state: State) -> None:
            self.saves += 1
            super().save(state)

        def keep_averages(self, state: State) -> None:
            self.tries += 1
            raise RunError("no room for averages")

    vault = Narrow()
    wanted = replace(SETTINGS, validate=0, averages=SETTINGS.steps)
    with pytest.raises(RunError, match="no room"):  # the end is not whole without them
        list(fit(model(), batches, wanted, telling=ABC, vault=vault))
    assert vault.tries == 2  # at the first step and, since one failure is left alone for a while, the last
    assert vault.saves == 2  # before the first step and, all the same, at the last


def test_every_process_decides_by_the_leaders_held_out_loss(
    model: Callable[..., Model], batches: Batches
) -> None:
    class Follower(Crew):
        def sum(self, tensors: Sequence[Tensor]) -> None:
            for tensor in tensors:
                tensor += 5.0  # what the leader saw

    training = Training(model(), batches, SETTINGS, telling=ABC, held=held(batches.data))
    sight = replace(training.looking, crew=Follower(1, 2)).after(over=True)
    assert sight is not None
    assert sight.validation is not None
    assert sight.validation.loss == 5.0
    assert training.counters.trend.best == 5.0


def test_early_stopping_on_pictures_learned_by_heart() -> None:
    """Three pictures of noise: what is learned of them is wrong for others."""
    noise = Noise.of("by heart", places=range(20)).normal((1, 4, 4))

    class Few:
        def each(
            self, chunks: Iterable[Sequence[int]], *, workers: int = 0, ahead: int = 4
        ) -> Iterator[Batch]:
            for chunk in chunks:
                rows = [p % 3 for p in chunk]
                yield Batch(noise[rows], None, None, tuple(str(r) for r in rows), tuple(chunk))

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(17, 256), nn.SiLU(), nn.Linear(256, 16))

        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            return self.layers(torch.cat([x.flatten(1), label[:, None] / 1000], 1)).view_as(x)

    with seeded(0, "weights"):
        model = Model(Wide(), Cosine(), V())
    settings = TrainSettings(
        steps=3000, batch=24, lr=3e-3, warmup=0, ema=0.9, validate=20, patience=6, clip=0
    )
    steps = list(fit(model, Few(), settings, held=HeldOut(noise[3:])))
    assert steps[-1].step < 2000
    assert steps[-1].last
    told = [n for s in steps for n in s.notices]
    best = min((s for s in steps if s.validation), key=lambda s: s.validation.loss)  # pyright: ignore
    assert f"held-out loss has risen since step {best.step}: overfitting" in told
    assert f"no better held-out loss since step {best.step}: stopping early" in told


def test_a_budget_in_minutes_follows_the_clock(model: Callable[..., Model], batches: Batches) -> None:
    training, steps = run(model(), batches, replace(SETTINGS, steps=None, minutes=0.01, validate=0))
    shares = [s.share for s in steps]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert training.counters.seconds >= 0.6
    assert steps[-1].lr < steps[len(steps) // 2].lr


def test_trend_waits_for_a_real_rise() -> None:
    trend = Trend()
    for step, loss in enumerate((1.0, 0.9, 0.901, 0.902, 0.903)):
        trend.see(step, loss)
    assert (trend.best_step, trend.since, trend.told) == (1, 3, False)
    trend.see(5, 0.95)
    assert trend.told
    trend.see(6, float("nan"))
    trend.see(6, 0.8)
    assert (trend.best_step, trend.since, trend.told) == (6, 0, False)


@pytest.mark.slow
def test_a_gaussian_is_learned_to_its_optimum() -> None:
    """N22: on N(m, s^2) the best loss is known at every level: mistakes of range, sign or level show."""
    mixture = Mixture.gaussian([0.6, -0.4], [0.5, 0.8])

    class Normal:
        def each(
            self, chunks: Iterable[Sequence[int]], *, workers: int = 0, ahead: int = 4
        ) -> Iterator[Batch]:
            for chunk in chunks:
                x = mixture.sample(Noise.of("gaussian", places=chunk)).float()[:, :, None, None]
                yield Batch(x, None, None, ("",) * len(chunk), tuple(chunk))

    class Affine(nn.Module):
        """Affine in x with gains of the level: can say the best answer."""

        def __init__(self) -> None:
            super().__init__()
            self.of = nn.Sequential(
                nn.Linear(9, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 4)
            )

        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            t = (label[:, None] + 1) / 1000
            waves = [f(t * 3.14159 * k / 2) for k in range(1, 5) for f in (torch.sin, torch.cos)]
            gain, shift = self.of(torch.cat([t, *waves], 1)).chunk(2, 1)
            return gain[..., None, None] * x + shift[..., None, None]

    with seeded(1, "weights"):
        model = Model(Affine(), Cosine(), V())
    settings = TrainSettings(steps=600, batch=128, lr=1e-2, warmup=10, ema=0.99, weight_decay=0.0, weight="v")
    steps = list(fit(model, Normal(), settings, habits=Habits(workers=0)))
    assert steps[-1].loss < steps[0].loss

    level = Stratified()(Cosine(), range(4096), 99)
    x0 = mixture.sample(Noise.of("test", places=range(4096))).float()[:, :, None, None]
    eps = Noise.of("test eps", places=range(4096)).normal((2, 1, 1))
    alpha, sigma = level.on(x0)
    x = alpha * x0 + sigma * eps
    best = mixture.posterior_mean(x, level.alpha, level.sigma)
    with torch.no_grad():
        said = model(x, level).x0
    weight = 1 / level.sigma**2  # |dv|^2 for |dx0|^2
    loss, optimum = (
        float((weight * ((a - x0) ** 2).flatten(1).mean(1)).mean()) for a in (said, best)
    )  # fmt: skip
    exact = mixture.posterior_variance(x, level.alpha, level.sigma)
    closed_form = float((weight * exact.flatten(1).mean(1)).mean())
    assert optimum == pytest.approx(closed_form, rel=0.05)
    assert loss < 1.05 * optimum


def test_what_cannot_be_trained_is_refused_before_anything_is_done(
    model: Callable[..., Model], batches: Batches
) -> None:
    m = model()
    wrong = Model(m.network, Cosine(), Clean())
    with pytest.raises(SettingsError, match=r"Clean prediction .* sigma = 0"):
        Training(wrong, batches, SETTINGS)


@pytest.mark.parametrize("count", [1, 3, 8, 100])
def test_a_look_asks_every_picture_and_every_level(
    model: Callable[..., Model], batches: Batches, count: int
) -> None:
    m = model()
    training = Training(m, batches, SETTINGS, telling=ABC)
    images = torch.zeros(count, 1, 8, 8)
    first = HeldOut(images).look(training.lesson, 16)
    assert all(loss > 0 for loss in first.per_level)
    assert first == HeldOut(images).look(training.lesson, 16)
    assert m.training


def test_buckets_are_quantiles_of_the_training_levels(model: Callable[..., Model]) -> None:
    m = model()
    nodes = (m.schedule.time(buckets(m, Stratified(), 0)) * 1000).round()
    assert torch.allclose(
        nodes, torch.tensor([62.5 + 125 * i for i in range(8)], dtype=torch.float64), atol=2
    )
