"""Steering by gradients, against Bayes' rule on mixtures and Gaussians whose posteriors are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from oracles import MIXTURE, exact, f64
from torch import Tensor, nn

from sfumato.data.toy import Mixture
from sfumato.denoiser import Denoiser, Exact
from sfumato.errors import SettingsError
from sfumato.guidance.bound import Clipped, Thresholded
from sfumato.guidance.classifier import LogClass, classifier_guided, logits
from sfumato.guidance.mix import classifier_free, mix
from sfumato.guidance.rescale import rescaled
from sfumato.guidance.scales import between
from sfumato.guidance.steer import LogProb, Steered, steered
from sfumato.level import CLEAN, PURE_NOISE, Level, spread_on
from sfumato.model import Model
from sfumato.networks import Classifier, ClassifierConfig, UNet, UNetConfig
from sfumato.noise import Noise, seeded
from sfumato.predictions import Estimate, V
from sfumato.samplers import SAMPLERS
from sfumato.sampling import prior, walk
from sfumato.schedules import VE, Cosine, RectifiedFlow

LEVELS = {
    "nearly clean": Level.of(0.999, 0.0447),
    "middle": Level.of(0.8, 0.6),
    "flow": Level.of(0.3, 0.7),
    "exploding": Level.of(1.0, 7.0),
    "nearly noise": Level.of(0.01, 0.99995),
    "one a row": Level(f64(0.99, 0.8, 0.5, 0.1, 1.0), f64(0.1, 0.6, 0.8, 1.0, 3.0)),
}
CLASSES = ((0, 1), (2,))
"""The components of each class."""


def of(which: int) -> Mixture:
    """What a class looks like."""
    rows = list(CLASSES[which])
    return Mixture(MIXTURE.weights[rows], MIXTURE.means[rows], MIXTURE.stds[rows])


def points(level: Level, n: int = 5) -> Tensor:
    return Noise(tuple(range(n))).normal((2,), "x").double() * 1.5 * level.norm.reshape(-1, 1)


def log_classes(x: Tensor, level: Level) -> Tensor:
    """log p(class | x) of both classes, exactly: (B, 2)."""
    log = [
        math.log(float(MIXTURE.weights[list(rows)].sum())) + of(k).log_prob(x, level.alpha, level.sigma)
        for k, rows in enumerate(CLASSES)
    ]
    return torch.stack(log, 1) - MIXTURE.log_prob(x, level.alpha, level.sigma)[:, None]


@dataclass(frozen=True)
class ExactClass:
    """log p(class | x) of each row's class."""

    classes: tuple[int, ...]

    def __call__(self, estimate: Estimate) -> Tensor:
        log = log_classes(estimate.x, estimate.level)
        return log.gather(1, torch.tensor(self.classes)[:, None])[:, 0]

    def take(self, rows: Sequence[int]) -> ExactClass:
        return ExactClass(tuple(self.classes[row] for row in rows))


@pytest.mark.parametrize("through", [True, False])
@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_the_exact_classifier_makes_the_conditional_model(level: Level, through: bool) -> None:
    x = points(level)
    scale = 1 + float((level.sigma**2 / level.alpha).max())
    for k in (0, 1):
        found = steered(exact(MIXTURE), ExactClass((k,) * 5), through=through)(x, level)
        assert torch.allclose(found.x0, exact(of(k))(x, level).x0, atol=1e-13 * scale)
        alpha, sigma = level.on(x)
        assert torch.allclose(alpha * found.x0 + sigma * found.eps, x, atol=1e-12 * scale)


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_classifier_and_classifier_free_guidance_are_one(level: Level) -> None:
    x = points(level)
    tolerance = 1e-12 * (1 + float((level.sigma**2 / level.alpha).max()))
    wanted = classifier_free(exact(of(1)), exact(MIXTURE), 3.0)(x, level).x0
    for base, scale in ((MIXTURE, 3.0), (of(1), 2.0)):
        found = steered(exact(base), ExactClass((1,) * 5), scale, through=False)(x, level).x0
        assert torch.allclose(found, wanted, atol=tolerance)


def test_a_walk_steered_by_bayes_is_the_conditional_walk() -> None:
    how, noise, classes = SAMPLERS["dpmpp-2m"], Noise(tuple(range(40))), (0, 1) * 20
    plan = how.plan(Cosine(), 15)
    x = prior(plan[0].here, (2,), noise).double()
    end = lambda denoise: [step.x for step in walk(denoise, x, plan, how.solver, noise)][-1]
    found = end(steered(exact(MIXTURE), ExactClass(classes), through=False))
    assert not found.requires_grad
    for k in (0, 1):
        assert torch.allclose(found[k::2], end(exact(of(k)))[k::2], atol=1e-8)
    free = end(exact(MIXTURE))
    assert float((log_classes(found, CLEAN)[torch.arange(40), torch.tensor(classes)]).mean()) > -0.2
    assert float((log_classes(free, CLEAN)[torch.arange(40), torch.tensor(classes)]).mean()) < -1.0


@pytest.mark.parametrize("level", [LEVELS["middle"], LEVELS["exploding"], LEVELS["nearly noise"]])
def test_a_measurement_of_x0_makes_the_posterior(level: Level) -> None:
    """x0 ~ N(m, s^2) seen as y = x0 + r z: p(y | x) = N(y; E[x0 | x], Var[x0 | x] + r^2), and with its
    gradient through the denoiser E[x0 | x] becomes E[x0 | x, y]."""
    m, s, r = 0.4, 0.7, 0.2
    y = f64(1.0, -0.5)
    data = Mixture.gaussian([m, m], [s, s])
    alpha, sigma = float(level.alpha), float(level.sigma)
    known = 1 / (1 / s**2 + (alpha / sigma) ** 2)
    log = lambda e: -((y - e.x0) ** 2).sum(1) / (2 * (known + r**2))
    x = points(level)
    found = steered(exact(data), log)(x, level).x0
    precision = 1 / s**2 + (alpha / sigma) ** 2 + 1 / r**2
    wanted = (m / s**2 + alpha * x / sigma**2 + y / r**2) / precision
    assert torch.allclose(found, wanted, atol=1e-12 * (1 + sigma**2 / alpha))


# A judge


class ExactJudge:
    """The exact classifier as `logits` asks one: alpha x on the curve of unit norm, and a label for its
    angle."""

    def __call__(self, x: Tensor, label: Tensor) -> Tensor:
        angle = label.double() * (math.pi / 2000)
        return (
            log_classes(x / angle.cos()[:, None], Level(angle.cos(), angle.sin())) + 5.0
        )  # logits are free up to a constant


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_a_judge_is_asked_alike_on_every_curve(level: Level) -> None:
    x = points(level)
    found = classifier_guided(exact(MIXTURE), ExactJudge(), torch.tensor([0, 1, 1, 0, 1]))(x, level).x0
    wanted = steered(exact(MIXTURE), ExactClass((0, 1, 1, 0, 1)))(x, level).x0
    assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-4)  # its label is a float32
    said = logits(ExactJudge(), x, level)
    assert torch.allclose(said.log_softmax(1), log_classes(x, level), atol=1e-3)


def test_a_judge_cannot_push_far_where_x_says_nothing() -> None:
    """The push is sigma^2/(alpha^2 + sigma^2) times the judge's own gradient: nothing is divided by alpha."""
    critic, x = judge(), images()
    for alpha in (5e-5, 0.04, 0.5, 0.99):
        level = Level.of(alpha, math.sqrt(1 - alpha**2))
        plain = Exact(lambda x, level: x * 0)
        found = classifier_guided(plain, critic, torch.tensor([0, 1, 2]), 2.0)(x, level).x0
        leaf = (alpha * x).requires_grad_()
        label = torch.full((3,), float(level.angle) * 2000 / math.pi)
        log = critic(leaf, label).log_softmax(1)[torch.arange(3), torch.arange(3)]
        (slope,) = torch.autograd.grad(log.sum(), leaf)
        assert torch.allclose(found, 2.0 * (1 - alpha**2) * slope, rtol=1e-3, atol=1e-5)


def test_a_picture_that_asks_for_no_class_is_left_alone() -> None:
    level = LEVELS["middle"]
    found = classifier_guided(exact(MIXTURE), ExactJudge(), torch.tensor([0, -1, 1, -1, 0]))
    x = points(level)
    told, plain = found(x, level).x0, exact(MIXTURE)(x, level).x0
    assert torch.equal(told[[1, 3]], plain[[1, 3]])
    assert bool((told[[0, 2, 4]] != plain[[0, 2, 4]]).any(1).all())
    assert torch.allclose(found.take([2, 1])(x[[2, 1]], level).x0, told[[2, 1]], atol=1e-14)


# With networks


def network() -> Model:
    config = UNetConfig(
        in_channels=1, out_channels=1, channels=(8, 16), layers=1, groups=4, middle="self", head_channels=8,
        classes=3, null_class=True, zero_init=False,
    )  # fmt: skip
    with seeded("steering"):
        return Model(UNet(config), Cosine(), V()).eval().requires_grad_(False)


def judge() -> Classifier:
    config = ClassifierConfig(in_channels=1, outputs=3, channels=(8, 16), groups=4, head_channels=8)
    with seeded("judge"):
        return Classifier(config).eval().requires_grad_(False)


def images(n: int = 3) -> Tensor:
    return Noise(tuple(range(n))).normal((1, 8, 8), "images")


def bright(estimate: Estimate) -> Tensor:
    """A reward: how bright the picture is."""
    return estimate.x0.flatten(1).sum(1)


Make = Callable[[Model, Classifier], Denoiser]
GUIDED: dict[str, Make] = {
    "reward": lambda m, j: steered(m.given(classes=torch.tensor([0, 1, 2])), bright, 0.3),
    "judge": lambda m, j: classifier_guided(m.given(), j, torch.tensor([0, 1, 2]), 2.0),
    "judge of what it believes": lambda m, j: steered(m.given(), lambda e: j(e.x0).log_softmax(1)[:, 1], 2.0),
    "around a mixture": lambda m, j: steered(
        rescaled(classifier_free(m.given(classes=torch.tensor([0, 1, 2])), m.given(), 3.0)), bright, 0.3
    ),
    "around bounds": lambda m, j: Clipped(steered(Thresholded(Clipped(m.given())), bright, 0.3)),
    "in a mixture": lambda m, j: mix([(steered(m.given(), bright, 0.3), 2.0), (m.given(), -1.0)]),
    "around another": lambda m, j: steered(
        classifier_guided(m.given(), j, torch.tensor([0, 1, 2]), 2.0), bright, 0.3
    ),
    "twice through": lambda m, j: steered(steered(m.given(), bright, 0.2), bright, 0.3),
}


@pytest.mark.parametrize("make", GUIDED.values(), ids=GUIDED)
@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_work_inside_a_walk_and_leave_nothing_behind(make: Make, frozen: bool) -> None:
    model, critic = network().requires_grad_(not frozen), judge().requires_grad_(not frozen)
    found = make(model, critic)
    how = SAMPLERS["ddim"]
    noise = Noise((0, 1, 2))
    plan = how.plan(Cosine(), 3)
    x = prior(plan[0].here, (1, 8, 8), noise)
    with torch.no_grad():  # as walk itself is, but where its types are checked
        last = list(walk(found, x, plan, how.solver, noise))[-1]
    assert bool(last.x.isfinite().all())
    assert not last.x.requires_grad
    assert last.estimate is not None
    assert not last.estimate.x0.requires_grad
    parameters = [*model.parameters(), *critic.parameters()]
    assert all(p.grad is None for p in parameters)
    assert all(p.requires_grad != frozen for p in parameters)
    level = Cosine().level(f64(0.5)[0])
    told = found(images(), level)
    with torch.no_grad():
        whole = found(images(), level)
        assert torch.allclose(whole.x0, told.x0, atol=1e-6)
        for row in range(3):
            alone = found.take([row])(images()[row : row + 1], level)
            assert torch.allclose(alone.x0, whole.x0[row : row + 1], atol=1e-4)
    with torch.inference_mode():
        again = found(images(), level)
        assert torch.allclose(again.x0, told.x0, atol=1e-6)
    with torch.no_grad():
        plain = network().given()(images(), level)
    assert not torch.allclose(plain.x0, told.x0, atol=1e-3)


def test_the_gradient_goes_through_the_network() -> None:
    model, level = network().double(), Cosine().level(f64(0.5)[0])
    x = images().double()
    found = steered(model.given(), bright, 0.7)(x, level).x0
    step, along = 1e-6, Noise((5, 6, 7)).normal((1, 8, 8), "along").double()
    with torch.no_grad():
        at = lambda k: bright(model.given()(x + k * step * along, level))
        slope = (at(1) - at(-1)) / (2 * step)  # of each row, along one direction
        push = found - model.given()(x, level).x0
    reach = float(level.sigma**2 / level.alpha)
    assert torch.allclose((push * along).flatten(1).sum(1), 0.7 * reach * slope, rtol=1e-6, atol=1e-9)


def test_what_steers_inside_is_constant_outside() -> None:
    model, level = network().double(), Cosine().level(f64(0.5)[0])
    x = images().double()
    push = lambda scale: steered(model.given(), bright, scale)(x, level).x0 - model.given()(x, level).x0
    both = steered(steered(model.given(), bright, 0.2), bright, 0.3)(x, level).x0
    assert torch.allclose(both - model.given()(x, level).x0, push(0.5), atol=1e-12)


def test_nothing_is_asked_for_a_scale_of_nothing() -> None:
    def never(estimate: Estimate) -> Tensor:
        raise AssertionError("no gradient is due here")

    denoise = exact(MIXTURE)
    here = LEVELS["middle"]
    for scale, level in (
        (0, here),
        (between(3.0, 1.0, 9.0, outside=0), here),
        (3.0, PURE_NOISE),
        (3.0, CLEAN),
        (lambda level: 0.0, here),
    ):
        x = points(level)
        assert torch.equal(Steered(denoise, never, scale)(x, level).x0, denoise(x, level).x0)


def test_rows_at_the_ends_are_left_alone_beside_others() -> None:
    level = Level(f64(1, 0.8, 0, 0.5, 0), f64(0, 0.6, 1, 2, 5))
    x = points(level)
    lost = Exact(lambda x, level: spread_on(level.alpha, x) * x)  # defined at both ends
    log: LogProb = lambda e: torch.where(e.level.alpha > 0, 1 / e.level.alpha, math.inf) * (e.x0**2).sum(1)
    found = steered(lost, log, 0.1)(x, level).x0
    plain = lost(x, level).x0
    assert bool(found.isfinite().all())
    assert torch.equal(found[[0, 2, 4]], plain[[0, 2, 4]])
    assert bool((found[[1, 3]] != plain[[1, 3]]).all())


@pytest.mark.parametrize("schedule", [Cosine(), RectifiedFlow(), VE()], ids=repr)
def test_steering_follows_a_learned_variance_and_any_curve(schedule: Cosine | RectifiedFlow | VE) -> None:
    level = schedule.level(f64(0.6)[0])
    spread = torch.full((5, 2), 0.25, dtype=torch.float64)

    class Spread:
        def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
            e = exact(MIXTURE)(x, level)
            return Estimate(e.x, e.level, e.said, spread)

        def take(self, rows: Sequence[int]) -> Spread:
            return self

        def check(self, level: Level) -> None:
            return None

    x = points(level)
    for through in (True, False):
        found = steered(Spread(), ExactClass((0,) * 5), through=through)(x, level)
        assert found.spread is not None
        assert torch.equal(found.spread, spread)
        assert torch.allclose(found.x0, exact(of(0))(x, level).x0, atol=1e-10)


def test_a_gradient_may_be_asked_of_the_guided_one() -> None:
    """A reward of what classifier-free guidance believes, in closed form on two Gaussians."""
    one, two = Mixture.gaussian([1.0, 1.0], [0.5, 0.5]), Mixture.gaussian([-1.0, 0.0], [0.8, 0.8])
    level = LEVELS["middle"]
    gain = lambda s: 0.8 * s**2 / (0.64 * s**2 + 0.36)
    guided = classifier_free(exact(one), exact(two), 2.5)
    x = points(level)
    found = steered(guided, lambda e: e.x0[:, 0], 3.0)(x, level).x0 - guided(x, level).x0
    wanted = 3.0 * 0.36 / 0.8 * (2.5 * gain(0.5) - 1.5 * gain(0.8))
    assert torch.allclose(found, f64(wanted, 0.0).expand(5, 2), atol=1e-12)


class Blind(nn.Module):
    """Sees nothing."""

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        return torch.zeros(len(x), 3, dtype=x.dtype)


WRONG: dict[str, tuple[LogProb, bool, str]] = {
    "one number": (lambda e: e.x0.sum(), True, "one number a picture"),
    "a picture": (lambda e: e.x0, True, "one number a picture"),
    "detached": (lambda e: e.x0.detach().sum(1), True, "by any gradient"),
    "x0 where it reads x": (lambda e: e.x0.sum(1), False, "by any gradient"),
    "blind": (LogClass(Blind(), torch.zeros(5, dtype=torch.int64)), False, "by any gradient"),
}


@pytest.mark.parametrize(("log", "through", "sentence"), WRONG.values(), ids=WRONG)
def test_mistakes_are_told(log: LogProb, through: bool, sentence: str) -> None:
    level = LEVELS["middle"]
    with pytest.raises(SettingsError, match=sentence):
        Steered(exact(MIXTURE), log, 1.0, through)(points(level), level)
    with pytest.raises(SettingsError, match="finite"):
        Steered(exact(MIXTURE), log, math.inf, through)(points(level), level)
