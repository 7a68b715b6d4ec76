"""Model, walk and guidance: what the network is asked, what a picture depends on, what guidance costs (N11,
N15, N17)."""

import threading

import pytest
import torch
from oracles import exact, f64
from torch import Tensor, nn

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.errors import SettingsError
from sfumato.forward import noised
from sfumato.guidance.bound import Clipped
from sfumato.guidance.mix import classifier_free, mix
from sfumato.level import CLEAN, PURE_NOISE, Level, Levels
from sfumato.model import LogSigma, Model, Steps
from sfumato.noise import Noise, seeded
from sfumato.predictions import Clean, Epsilon, Flow, Prediction, V
from sfumato.samplers import SAMPLERS
from sfumato.sampling import draw, sample, walk
from sfumato.schedules import VE, ConstantBeta, Cosine, Linear, RectifiedFlow, ScaledLinear, Schedule
from sfumato.solvers.multistep import Multistep
from sfumato.tables import Table


class Small(nn.Module):
    """A tiny network that counts its calls and remembers what it was told."""

    def __init__(self, out: int = 3) -> None:
        super().__init__()
        with seeded("small"):
            self.mix = nn.Linear(3 + 1 + 4, 16)
            self.out = nn.Linear(16, out)
            self.classes = nn.Embedding(5, 4)
        self.calls: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        self.calls.append((x, label))
        c = self.classes(classes) if classes is not None else x.new_zeros(len(x), 4)
        return self.out(torch.tanh(self.mix(torch.cat([x, label[:, None].to(x) / 1000, c], 1))))


def batch(n: int = 6) -> Tensor:
    return Noise(tuple(range(n))).normal((3,), "x")


@pytest.mark.parametrize("kind", [V(), Flow(), Clean(), Epsilon()], ids=repr)
def test_a_model_gives_one_answer_on_three_curves(kind: Prediction) -> None:
    model = Model(Small().double(), Linear(), kind)
    vp = Linear().level(torch.linspace(0.05, 0.95, 6, dtype=torch.float64))
    x = batch().double()
    told = model(x, vp)
    for factor in (1 / vp.alpha, 1 / (vp.alpha + vp.sigma)):
        level = vp.scaled(factor)
        z = x * factor[:, None]
        e = model(z, level)
        assert torch.allclose(e.x0, told.x0, atol=1e-12)
        assert torch.allclose(e.eps, told.eps, atol=1e-12)
        alpha, sigma = level.on(z)
        assert torch.allclose(alpha * e.x0 + sigma * e.eps, z, atol=1e-12)


def test_a_table_is_told_whole_numbers_at_its_nodes() -> None:
    net = Small()
    model = Model(net, Table.linear(), Epsilon())
    for j in (0, 1, 499, 999):
        model(batch(), Table.linear().level(torch.tensor((j + 1) / 1000, dtype=torch.float64)))
        assert torch.equal(net.calls[-1][1], torch.full((6,), float(j)))
    assert float(Steps(1000)(CLEAN, f64(0.0004))) == 0


def test_edms_preconditioning_is_the_published_one() -> None:
    net, data, sigma = Small().double(), 0.5, 3.0
    model = Model(net, VE(), V(data, -1.0), LogSigma(), data)
    x = batch().double() * 10
    e = model(x, Level.of(1.0, sigma))
    fed, label = net.calls[-1]
    assert torch.allclose(fed, x / (sigma**2 + data**2) ** 0.5, atol=1e-12)
    assert torch.allclose(label, torch.full_like(label, torch.tensor(sigma).log().item() / 4), atol=1e-6)
    f = net(fed, label)
    skip, out = data**2 / (sigma**2 + data**2), sigma * data / (sigma**2 + data**2) ** 0.5
    assert torch.allclose(e.x0, skip * x + out * f, atol=1e-6)


def test_levels_outside_the_trained_range_are_refused_but_not_the_two_ends() -> None:
    model = Model(Small(), VE(0.002, 80.0), V())
    with pytest.raises(SettingsError, match="not trained at sigma/alpha = 100"):
        model(batch(), Level.of(1.0, 100.0))
    with pytest.raises(SettingsError, match="not trained"):
        model.check(Level.of(1.0, 0.001))
    e = model(batch(), PURE_NOISE)
    assert torch.equal(e.eps, batch())
    e = model(batch(), CLEAN)
    assert torch.equal(e.x0, batch())
    assert bool(torch.isfinite(e.eps).all())


@pytest.mark.parametrize("schedule", [Linear(), ScaledLinear(), ConstantBeta()], ids=repr)
def test_pure_noise_is_the_noisiest_level_of_a_curve_that_never_reaches_it(schedule: Schedule) -> None:
    model = Model(Small(), schedule, V())
    model.check(PURE_NOISE)
    ends = model(batch(), schedule.level(f64(1.0)))
    assert torch.equal(model(batch(), PURE_NOISE).x0, ends.x0)
    plan = plans.descend(plans.trailing(Cosine(), 3))
    assert bool(torch.isfinite(sample(model.given(), (3,), plan)).all())


def test_epsilon_at_zero_terminal_snr_is_refused_when_the_plan_is_made() -> None:  # N3
    net = Small()
    model = Model(net, Table.linear().zero_terminal_snr(), Epsilon())
    plan = plans.descend(plans.trailing(model.schedule, 10))
    with pytest.raises(SettingsError, match="Epsilon prediction says nothing"):
        next(walk(model.given(), batch(), plan))
    assert net.calls == []
    for kind in (V(), Flow(), Clean()):
        model = Model(Small(), Table.linear().zero_terminal_snr(), kind)
        assert bool(torch.isfinite(sample(model.given(), (3,), plan)).all())


def test_learned_variance_is_the_second_half() -> None:
    model = Model(Small(6), Cosine(), V(), learned_variance=True)
    e = model(batch(), Cosine().level(f64(0.5)[0]))
    assert e.x0.shape == (6, 3)
    assert e.spread is not None
    assert e.spread.shape == (6, 3)
    assert e.but(x0=e.x0).spread is e.spread


def test_half_precision_networks_are_walked_in_float32() -> None:
    model = Model(Small().bfloat16(), Cosine(), V())
    steps = list(walk(model.given(), batch().bfloat16(), plans.descend(plans.trailing(Cosine(), 3))))
    assert all(s.x.dtype == torch.float32 for s in steps)
    assert all(s.estimate is not None and s.estimate.x0.dtype == torch.float32 for s in steps)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpmpp-2m-sde", "heun"])
def test_a_picture_depends_on_its_seed_alone(name: str) -> None:  # N17
    model = Model(Small(), Cosine(), V())
    chosen = SAMPLERS[name]
    plan = chosen.plan(Cosine(), 8)
    classes = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    seeds = [5, 3, 9, 100, 2, 7, 1]
    bound = model.given(classes=classes)
    whole = sample(bound, (3,), plan, chosen.solver, seeds, chosen.fresh)
    order = [6, 2, 0]
    part = sample(bound.take(order), (3,), plan, chosen.solver, [seeds[i] for i in order], chosen.fresh)
    assert torch.allclose(part, whole[order], atol=1e-5)
    for size in (1, 2, 3):
        parts = list(draw(bound, (3,), plan, chosen.solver, seeds, chosen.fresh, batch=size))
        assert [len(p) for p in parts] == [min(size, 7 - i) for i in range(0, 7, size)]
        assert torch.allclose(torch.cat(parts), whole, atol=1e-5)
    one = [
        torch.cat(
            list(draw(bound.take(o), (3,), plan, chosen.solver, [seeds[i] for i in o], chosen.fresh, 1))
        )
        for o in ([0, 1, 2], [2, 1, 0])
    ]
    assert torch.equal(one[0], one[1].flip(0))  # to the bit, one by one


def test_two_threads_share_a_model_and_nothing_else() -> None:
    model = Model(Small(), Cosine(), V())
    chosen = SAMPLERS["dpmpp-3m"]
    run = lambda seed: sample(model.given(), (3,), chosen.plan(Cosine(), 30), chosen.solver, [seed])
    alone = {seed: run(seed) for seed in range(4)}
    got: dict[int, Tensor] = {}
    threads = [threading.Thread(target=lambda s=s: got.__setitem__(s, run(s))) for s in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(torch.equal(alone[s], got[s]) for s in alone)


def test_the_walk_is_a_generator_that_can_be_left() -> None:
    net = Small()
    model = Model(net, Cosine(), V())
    for step in walk(model.given(), batch(), plans.descend(plans.trailing(Cosine(), 50))):
        if step.i == 2:
            break
    assert len(net.calls) == 3


def test_a_hook_may_change_x() -> None:
    data = exact(Mixture.gaussian([0.0] * 3, [0.5] * 3))
    plan = plans.descend(plans.trailing(Cosine(), 5))
    for step in walk(data, batch(), plan, after=lambda x, level, i: torch.full_like(x, float(i))):
        assert torch.equal(step.x, torch.full_like(step.x, float(step.i)))


def test_guidance_one_is_the_conditional_to_the_bit_at_half_the_calls() -> None:  # N15
    net = Small()
    model = Model(net, Cosine(), V())
    level = Cosine().level(f64(0.4)[0])
    yes, no = model.given(classes=torch.full((6,), 1)), model.given(classes=torch.full((6,), 4))
    told = yes(batch(), level)
    net.calls.clear()
    one = classifier_free(yes, no, 1.0)(batch(), level)
    assert torch.equal(one.x0, told.x0)
    assert len(net.calls) == 1
    assert len(net.calls[0][0]) == 6
    zero = classifier_free(yes, no, 0.0)(batch(), level)
    assert torch.equal(zero.x0, no(batch(), level).x0)
    net.calls.clear()
    x0 = {w: classifier_free(yes, no, w)(batch(), level).x0 for w in (2.0, 3.0, 4.0)}
    assert len(net.calls) == 3  # two conditions, one batch
    assert all(len(x) == 12 for x, _ in net.calls)
    assert torch.allclose(x0[4.0] - x0[3.0], x0[3.0] - x0[2.0], atol=1e-5)  # linear in the scale
    apart = no(batch(), level).x0 + 3.0 * (told.x0 - no(batch(), level).x0)
    assert torch.allclose(x0[3.0], apart, atol=1e-5)


def test_guidance_mixes_eps_and_x0_alike_and_may_follow_the_level() -> None:
    model = Model(Small().double(), Cosine(), V())
    yes, no = (model.given(classes=torch.full((6,), c)) for c in (1, 4))
    x = batch().double()
    level = Cosine().level(torch.linspace(0.1, 0.9, 6, dtype=torch.float64))
    e = classifier_free(yes, no, 5.0)(x, level)
    eps = no(x, level).eps + 5.0 * (yes(x, level).eps - no(x, level).eps)
    assert torch.allclose(e.eps, eps, atol=1e-9)
    interval = classifier_free(yes, no, lambda level: 3.0 if float(level.sigma.max()) > 0.5 else 1.0)
    low = Cosine().level(f64(0.1)[0])
    assert torch.equal(interval(x, low).x0, yes(x, low).x0)
    high = Cosine().level(f64(0.8)[0])
    assert not torch.allclose(interval(x, high).x0, yes(x, high).x0)
    with pytest.raises(SettingsError, match="add up to 1"):
        mix([(yes, 0.5), (no, 0.6)])(x, low)


def test_guidance_can_be_cut_into_rows_and_mixes_models() -> None:
    a, b = Model(Small(), Cosine(), V()), Model(Small().double().float(), Cosine(), Clean())
    level = Cosine().level(f64(0.4)[0])
    both = mix([(a.given(classes=torch.arange(5).repeat(2)[:6]), 2.0), (b.given(), -1.0)])
    assert torch.allclose(
        both.take([1, 4])(batch()[[1, 4]], level).x0, both(batch(), level).x0[[1, 4]], atol=1e-6
    )
    both.check(level)


def test_clipping_is_a_choice_because_it_changes_unbounded_data() -> None:  # N11
    data = exact(Mixture.gaussian([0.2], [0.7]))
    noise = Noise(tuple(range(4000)))
    plan = plans.descend(plans.log_snr(Linear(), 60))
    ends = []
    for denoise in (data, Clipped(data)):
        x = noise.normal((1,), "start").double()
        for step in walk(denoise, x, plan, Multistep("x0", "log_snr", 2)):
            x = step.x
            e = step.estimate
            assert e is not None
            assert torch.allclose(noised(e.x0, e.eps, e.level), e.x, atol=1e-9)
        ends.append(x)
    assert abs(float(ends[0].std()) - 0.7) < 0.03  # unharmed unless asked
    assert float(ends[1].abs().max()) <= 1
    assert float(ends[1].std()) < 0.62
    Clipped(data).take([0]).check(CLEAN)


def test_a_grid_is_two_vectors() -> None:
    with pytest.raises(ValueError, match="two vectors"):
        Levels(torch.zeros(3), torch.zeros(2))
    grid = plans.trailing(RectifiedFlow(), 4)
    assert [float(level.sigma) for level in grid] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert len(grid.cut(1, 3)) == 2


def test_a_level_broadcasts_from_the_left() -> None:
    x = torch.zeros(2, 3, 4, 4)
    for shape in [(), (2,), (2, 1, 4, 4), (1, 3)]:
        alpha, sigma = Level.of(torch.full(shape, 0.6, dtype=torch.float64), 0.8).on(x)
        assert (alpha * x + sigma).shape == x.shape
        assert alpha.dtype == x.dtype
