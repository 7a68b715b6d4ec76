"""Mixtures of beliefs: what each guidance does to a known density, and what it costs.

The peer is the tilted density itself: guidance says x0 = (x + sigma^2 grad log p_w(x)) / alpha (Tweedie) with
log p_w a sum of log-densities that are known in closed form, differentiated by torch.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracles import MIXTURE, exact, f64
from torch import Tensor, nn

from sfumato.data.toy import Mixture
from sfumato.denoiser import Bound, Denoiser, Exact
from sfumato.errors import SettingsError
from sfumato.guidance.bound import Thresholded, quantile
from sfumato.guidance.mix import auto_guidance, away_from, classifier_free, compose, mix, nested
from sfumato.guidance.rescale import Rescaled, rescaled
from sfumato.guidance.scales import Weight, added, between, ramp, weight_at
from sfumato.level import CLEAN, PURE_NOISE, Level
from sfumato.model import Model
from sfumato.noise import Noise, seeded
from sfumato.predictions import Estimate, V
from sfumato.samplers import SAMPLERS
from sfumato.sampling import Counted, prior, walk
from sfumato.schedules import Cosine

LEVELS = {
    "nearly clean": Level.of(0.999, 0.0447),
    "middle": Level.of(0.8, 0.6),
    "flow": Level.of(0.3, 0.7),
    "exploding": Level.of(1.0, 7.0),
    "nearly noise": Level.of(0.01, 0.99995),
    "one a row": Level(f64(0.99, 0.8, 0.5, 0.1, 1.0), f64(0.1, 0.6, 0.8, 1.0, 3.0)),
}


def part(*which: int) -> Mixture:
    """Some components of the mixture: a class of it."""
    rows = list(which)
    return Mixture(MIXTURE.weights[rows], MIXTURE.means[rows], MIXTURE.stds[rows])


PARTS = [part(0), part(1), part(0, 2)]


def points(level: Level) -> Tensor:
    """Five places where x may be at a level."""
    return Noise(tuple(range(5))).normal((2,), "x").double() * 1.5 * level.norm.reshape(-1, 1)


def tilted(level: Level, terms: list[tuple[Mixture, float]], x: Tensor) -> Tensor:
    """The x0 of the density prod_i p_i(x)^w_i at a level, by its score."""
    leaf = x.clone().requires_grad_()
    log = sum(
        (w * m.log_prob(leaf, level.alpha, level.sigma) for m, w in terms),
        start=torch.zeros((), dtype=x.dtype),
    )
    (score,) = torch.autograd.grad(log.sum(), leaf)
    alpha, sigma = level.on(x)
    return (x + sigma**2 * score) / alpha


def same(found: Denoiser, level: Level, terms: list[tuple[Mixture, float]]) -> None:
    x = points(level)
    wanted = tilted(level, terms, x)
    scale = 1 + float((level.sigma**2 / level.alpha).max())  # what the peer's division costs
    assert torch.allclose(found(x, level).x0, wanted, atol=1e-12 * scale, rtol=1e-10)


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0, 3.0, 7.5])
def test_classifier_free_guidance_is_the_tilted_density(level: Level, scale: float) -> None:
    found = classifier_free(exact(PARTS[0]), exact(MIXTURE), scale)
    same(found, level, [(PARTS[0], scale), (MIXTURE, 1 - scale)])


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_composition_is_and_and_not(level: Level) -> None:
    a, b, c = (exact(p) for p in PARTS)
    both = compose(exact(MIXTURE), [(a, 1.5), (b, 0.75)])
    same(both, level, [(PARTS[0], 1.5), (PARTS[1], 0.75), (MIXTURE, 1 - 1.5 - 0.75)])
    but_not = compose(exact(MIXTURE), [(a, 2.0), (b, -0.5)])
    same(but_not, level, [(PARTS[0], 2.0), (PARTS[1], -0.5), (MIXTURE, 1 - 2.0 + 0.5)])
    three = compose(exact(MIXTURE), [(a, 1.0), (b, 1.0), (c, -1.0)])
    same(three, level, [(PARTS[0], 1.0), (PARTS[1], 1.0), (PARTS[2], -1.0)])


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS)
def test_two_scales_and_two_ways_away(level: Level) -> None:
    a, b, all_of_it = exact(PARTS[0]), exact(PARTS[2]), exact(MIXTURE)
    steps = nested([all_of_it, b, a], [1.5, 7.0])  # InstructPix2Pix, eq. 3
    same(steps, level, [(MIXTURE, 1 - 1.5), (PARTS[2], 1.5 - 7.0), (PARTS[0], 7.0)])
    away = away_from(a, [(b, 2.0), (all_of_it, 1.5)])
    same(away, level, [(PARTS[0], 2.5), (PARTS[2], -1.0), (MIXTURE, -0.5)])
    same(auto_guidance(a, b, 2.0), level, [(PARTS[0], 2.0), (PARTS[2], -1.0)])


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5, -0.5])
def test_on_equal_gaussians_guidance_moves_the_mean_and_nothing_else(scale: float) -> None:
    """N(0, 1) and N(m, 1), guided, is N(scale m, 1) at every level; so is each picture, from its noise."""
    middle, off = (
        exact(Mixture.gaussian([0.0, 0.0], [1.0, 1.0])),
        exact(Mixture.gaussian([2.0, -1.0], [1.0] * 2)),
    )
    wanted = exact(Mixture.gaussian([2.0 * scale, -1.0 * scale], [1.0, 1.0]))
    how, noise = SAMPLERS["dpmpp-2m"], Noise(tuple(range(16)))
    plan = how.plan(Cosine(), 12)
    x = prior(plan[0].here, (2,), noise).double()

    def end(denoise: Denoiser) -> Tensor:
        return [step.x for step in walk(denoise, x, plan, how.solver, noise)][-1]

    assert torch.allclose(end(classifier_free(off, middle, scale)), end(wanted), atol=1e-9)
    other = exact(Mixture.gaussian([-1.0, 3.0], [1.0, 1.0]))
    both = compose(middle, [(off, scale), (other, -0.5)])
    moved = exact(Mixture.gaussian([2.0 * scale + 0.5, -scale - 1.5], [1.0, 1.0]))
    assert torch.allclose(end(both), end(moved), atol=1e-9)


def test_a_weaker_model_that_is_too_wide_sharpens_the_better_one() -> None:
    """Auto-guidance of N(0, s^2) by N(0, r^2) at a level: precisions mix, 1/v = w/(s^2 + q) + (1-w)/(r^2 + q)
    with q = (sigma/alpha)^2 (alpha = 1)."""
    level, s, r, w = Level.of(1.0, 0.8), 0.5, 0.7, 2.0
    x = points(level)
    found = auto_guidance(exact(Mixture.gaussian([0, 0], [s, s])), exact(Mixture.gaussian([0, 0], [r, r])), w)
    precision = w / (s**2 + 0.64) + (1 - w) / (r**2 + 0.64)
    assert torch.allclose(found(x, level).x0, x - 0.64 * precision * x, atol=1e-12)
    assert precision > 1 / (s**2 + 0.64)


# Scales that follow the level


def test_an_interval_guides_inside_and_is_the_conditional_outside() -> None:
    counts = [Counted.of(exact(p), 5) for p in (PARTS[0], MIXTURE)]
    found = classifier_free(counts[0], counts[1], between(4.0, 0.3, 2.0))
    whole = classifier_free(exact(PARTS[0]), exact(MIXTURE), 4.0)
    for ratio, inside in ((0.1, False), (0.3, False), (0.31, True), (2.0, True), (2.01, False)):
        level = Level.of(0.5, 0.5 * ratio)
        x = points(level)
        before = counts[1].counts[0]
        wanted = whole if inside else exact(PARTS[0])
        assert torch.equal(found(x, level).x0, wanted(x, level).x0)
        assert counts[1].counts[0] - before == inside  # outside, half the calls
    for end, low, high in ((PURE_NOISE, 1.0, float("inf")), (CLEAN, 0.0, 1.0)):
        assert float(weight_at(between(4.0, low, high), end)) == (4.0 if end is PURE_NOISE else 1.0)


def test_every_row_has_the_scale_of_its_own_level() -> None:
    level = Level(f64(1, 1, 1, 1, 0), f64(0.2, 0.4, 1.0, 9.0, 1))
    x = points(level)
    found = classifier_free(exact(PARTS[0]), exact(MIXTURE), between(4.0, 0.3, 2.0))(x, level).x0
    for row, scale in enumerate((1.0, 4.0, 4.0, 1.0, 1.0)):
        own = Level(level.alpha[row], level.sigma[row])
        alone = classifier_free(exact(PARTS[0]), exact(MIXTURE), scale)(x[row : row + 1], own).x0
        assert torch.allclose(found[row : row + 1], alone, atol=1e-14)


def test_a_ramp_runs_along_the_angle() -> None:
    scale = ramp(1.0, 5.0)
    angle = torch.linspace(0, 1, 5, dtype=torch.float64) * torch.pi / 2
    assert torch.allclose(weight_at(scale, Level(angle.cos(), angle.sin())), f64(5, 4, 3, 2, 1), atol=1e-12)
    level = Level.of(3.0, 3.0)  # on any curve
    found = classifier_free(exact(PARTS[0]), exact(MIXTURE), scale)
    assert torch.allclose(
        found(points(level), level).x0,
        classifier_free(exact(PARTS[0]), exact(MIXTURE), 3.0)(points(level), level).x0,
    )
    assert added((1, 1), (-1, 2.5)) == -1.5  # numbers stay numbers
    half: Weight = added((0.5, scale), (1, 2))
    assert float(weight_at(half, level)) == pytest.approx(3.5)


def test_a_scale_for_each_picture_is_refused_since_rows_may_be_taken() -> None:
    found = classifier_free(exact(PARTS[0]), exact(MIXTURE), lambda level: f64(1, 2, 3))
    level = Level.of(1.0, 1.0)
    with pytest.raises(SettingsError, match="one number at each level"):
        found(points(level), level)


# What is asked of a model


class Small(nn.Module):
    """A tiny network that remembers how many rows it was asked about."""

    def __init__(self, key: str = "small") -> None:
        super().__init__()
        with seeded(key):
            self.mix, self.out = nn.Linear(2 + 1 + 4, 16), nn.Linear(16, 2)
            self.classes = nn.Embedding(5, 4)
        self.rows: list[int] = []

    def forward(
        self, x: Tensor, label: Tensor, classes: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        self.rows.append(len(x))
        c = x.new_zeros(len(x), 4) if classes is None else self.classes(classes)
        if context is not None:
            c = c + context.mean(1)
        return self.out(torch.tanh(self.mix(torch.cat([x, label[:, None].to(x) / 1000, c], 1))))


@pytest.fixture
def net() -> Small:
    return Small().double()


def given(net: Small, number: int, n: int = 5) -> Bound:
    return Model(net, Cosine(), V()).given(classes=torch.full((n,), number))


Make = Callable[[list[Bound]], Denoiser]
CALLS: dict[str, tuple[Make, list[int]]] = {
    "two": (lambda d: classifier_free(d[0], d[4], 3.0), [10]),
    "scale 1": (lambda d: classifier_free(d[0], d[4], 1.0), [5]),
    "scale 0": (lambda d: classifier_free(d[0], d[4], 0), [5]),
    "and": (lambda d: compose(d[4], [(d[0], 1.0), (d[1], 2.0), (d[2], -1.0)]), [20]),
    "and, without the rest": (lambda d: compose(d[4], [(d[0], 1.0), (d[1], 1.0), (d[2], -1.0)]), [15]),
    "nested": (lambda d: nested([d[4], d[0], d[1]], [1.0, 3.0]), [10]),
    "within": (
        lambda d: classifier_free(classifier_free(d[0], d[4], 3.0), compose(d[4], [(d[1], 0.5)]), 2.0),
        [15],
    ),
    "cancelled": (lambda d: mix([(classifier_free(d[0], d[4], 3.0), 1.0), (d[4], 2.0), (d[0], -2.0)]), [5]),
    "rescaled": (lambda d: rescaled(classifier_free(d[0], d[4], 3.0)), [10]),
    "rescaled, scale 1": (lambda d: rescaled(classifier_free(d[0], d[4], 1.0)), [5]),
    "thresholded": (lambda d: Thresholded(classifier_free(d[0], d[4], 3.0)), [10]),
}


@pytest.mark.parametrize(("make", "rows"), CALLS.values(), ids=CALLS)
def test_one_batched_call_and_no_more_rows_than_there_are_beliefs(
    net: Small, make: Make, rows: list[int]
) -> None:
    model = Model(net, Cosine(), V())
    found = make([model.given(classes=torch.full((5,), k)) for k in range(5)])
    level = Cosine().level(f64(0.4)[0])
    x = points(level)
    whole = found(x, level)
    assert net.rows == rows
    some = found.take([3, 1])(x[[3, 1]], level)
    assert torch.allclose(some.x0, whole.x0[[3, 1]], atol=1e-12)
    assert net.rows == rows + [2 * n // 5 for n in rows]
    found.check(level)


def test_two_models_are_two_calls_whatever_is_asked_of_them() -> None:
    good, weak = Small().double(), Small("weak").double()
    one, two = Model(good, Cosine(), V()), Model(weak, Cosine(), V())
    classes = [torch.full((5,), k) for k in range(3)]
    d = [one.given(classes=c) for c in classes]
    found = away_from(d[0], [(two.given(classes=classes[0]), 2.0), (d[2], 3.0)])
    level = Cosine().level(f64(0.4)[0])
    x = points(level)
    told = found(x, level).x0
    assert (good.rows, weak.rows) == ([10], [5])
    bad = two.given(classes=classes[0])(x, level).x0
    assert torch.allclose(told, 4 * d[0](x, level).x0 - bad - 2 * d[2](x, level).x0, atol=1e-12)


def test_conditions_of_other_shapes_are_asked_apart(net: Small) -> None:
    model = Model(net, Cosine(), V())
    said = [
        model.given(classes=None, context=torch.ones(5, n, 4, dtype=torch.float64) * n) for n in (1, 1, 3)
    ]
    level = Cosine().level(f64(0.4)[0])
    x = points(level)
    told = compose(said[0], [(said[1], 2.0), (said[2], 1.5)])(x, level).x0
    assert sorted(net.rows) == [5, 10]
    one, _, three = (d(x, level).x0 for d in said)
    assert torch.allclose(told, 2.0 * one + 1.5 * three - 2.5 * one, atol=1e-12)


def test_the_last_estimate_reaches_every_condition() -> None:
    class Shown(nn.Module):
        def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
            assert classes is not None
            return x[:, :2] + x[:, 2:] * classes[:, None]

    model = Model(Shown(), Cosine(), V(), self_conditioned=True)
    level = Cosine().level(f64(0.4)[0])
    x = points(level)
    seen = Estimate.of(x, level, x0=x.flip(0))
    d = [model.given(classes=torch.full((5,), k)) for k in (1, 2)]
    told = classifier_free(d[1], d[0], 3.0)(x, level, seen).x0
    assert torch.allclose(told, 3 * d[1](x, level, seen).x0 - 2 * d[0](x, level, seen).x0, atol=1e-12)


# Rescale and thresholding


def pictures(level: Level) -> Tensor:
    return Noise(tuple(range(4))).normal((3, 6, 6), "pictures").double() * level.norm.reshape(-1, 1, 1, 1)


def said(x0: Tensor) -> Exact:
    return Exact(lambda x, level: x0.expand_as(x))


@pytest.mark.parametrize("level", [Level.of(0.8, 0.6), Level.of(2.0, 3.0), PURE_NOISE])
@pytest.mark.parametrize("phi", [0.0, 0.7, 1.0])
def test_rescale_is_the_published_one_on_v(level: Level, phi: float) -> None:
    x = pictures(level)
    towards, neutral = (Noise(tuple(range(4))).normal((3, 6, 6), k).double() for k in "ab")
    found = Rescaled(classifier_free(said(towards), said(neutral), 5.0), phi)(x, level)
    alpha, sigma = level.alpha / level.norm, level.sigma / level.norm
    v = lambda x0: (alpha * x / level.norm - x0) / sigma  # v-prediction on the curve of unit norm
    positive, guided = v(towards), v(neutral) + 5.0 * (v(towards) - v(neutral))
    std = lambda t: t.std(dim=(1, 2, 3), keepdim=True)
    again = guided * (std(positive) / std(guided))  # Lin et al. 2024, eq. 15
    final = phi * again + (1 - phi) * guided  # eq. 16
    assert torch.allclose(v(found.x0), final, atol=1e-11)
    if phi == 1:
        assert torch.allclose(std(v(found.x0)), std(positive), atol=1e-12)
    if phi == 0:
        assert torch.equal(found.x0, classifier_free(said(towards), said(neutral), 5.0)(x, level).x0)


def test_rescale_leaves_alone_what_has_no_contrast() -> None:
    x = torch.ones(2, 1, 2, 2, dtype=torch.float64)
    flat = Rescaled(classifier_free(said(x * 0.5), said(x * 0.25), 2.0), 1.0)(x, Level.of(1.0, 1.0))
    assert torch.allclose(flat.x0, x * 0.75)
    clean = Rescaled(classifier_free(said(pictures(CLEAN)), said(pictures(CLEAN) * 0.5), 2.0), 1.0)
    assert bool(clean(pictures(CLEAN), CLEAN).x0.isfinite().all())


@pytest.mark.parametrize("share", [0.5, 0.9, 0.995, 1.0])
def test_dynamic_thresholding_is_the_published_one(share: float) -> None:
    level = Level.of(0.8, 0.6)
    x0 = pictures(level) * f64(0.1, 1.0, 3.0, 9.0).reshape(4, 1, 1, 1)
    found = Thresholded(said(x0), share)(pictures(level), level)
    for row in range(4):  # Saharia et al. 2022, appendix: s = percentile, max(s, 1), clip(x, -s, s) / s
        s = max(float(torch.quantile(x0[row].abs().flatten(), share)), 1.0)
        assert torch.allclose(found.x0[row], x0[row].clamp(-s, s) / s, atol=1e-12)
    assert torch.equal(found.x0[0], x0[0])  # in range: untouched
    assert float(found.x0.abs().max()) <= 1
    alpha, sigma = level.on(x0)
    assert torch.allclose(alpha * found.x0 + sigma * found.eps, pictures(level), atol=1e-12)
    shifted = Thresholded(said(x0 * 2 + 3), share, 1.0, 5.0)(pictures(level), level)  # the range [1, 5]
    assert torch.allclose(shifted.x0, found.x0 * 2 + 3, atol=1e-12)


def test_a_quantile_has_no_limit_of_size() -> None:
    values = Noise((1, 2)).normal((999,), "values")
    for share in (0.001, 0.37, 0.5, 0.995, 1.0):
        assert torch.allclose(quantile(values, share), torch.quantile(values, share, dim=1), atol=1e-6)


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "weights": (lambda: mix([(exact(MIXTURE), 0.4)])(points(CLEAN), CLEAN), "add up to 1, not 0.4"),
    "nan": (lambda: mix([(exact(MIXTURE), float("nan"))])(points(CLEAN), CLEAN), "add up to 1, not nan"),
    "interval": (lambda: between(2.0, 3.0, 1.0), "on nowhere"),
    "negative": (lambda: between(2.0, -1.0, 1.0), "on nowhere"),
    "nested": (lambda: nested([exact(MIXTURE)], [1.0, 2.0]), "give each step its scale"),
    "phi": (lambda: rescaled(classifier_free(exact(MIXTURE), exact(MIXTURE), 2.0), 1.5), "from 0"),
    "share": (lambda: Thresholded(exact(MIXTURE), 0.0), "above 0"),
}


@pytest.mark.parametrize(("wrong", "sentence"), WRONG.values(), ids=WRONG)
def test_mistakes_are_told_in_one_sentence(wrong: Callable[[], object], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as told:
        wrong()
    assert "\n" not in str(told.value)
