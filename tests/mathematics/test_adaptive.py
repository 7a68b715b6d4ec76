"""Adaptive solving: error against tolerance, evaluations against fixed steps, pictures that do not meet."""

import math
from collections.abc import Callable, Sequence
from functools import cache

import pytest
import torch
from oracles import MIXTURE, exact, f64, flow_map
from torch import Tensor

from sfumato import plans
from sfumato.data.toy import Mixture
from sfumato.denoiser import Belief, Exact
from sfumato.errors import SettingsError
from sfumato.level import CLEAN, PURE_NOISE, Level, Levels
from sfumato.noise import Noise
from sfumato.predictions import Estimate
from sfumato.sampling import Step, walk
from sfumato.solvers import adaptive
from sfumato.solvers.adaptive import Pair
from sfumato.solvers.fresh import Ancestral, Sde
from sfumato.solvers.moves import Step as SameStep
from sfumato.solvers.singlestep import Singlestep

pytestmark = pytest.mark.slow

NOISY, LAST = Level.of(1.0, 5.0), Level.of(1.0, 0.02)
SEEDS = tuple(range(16))
START = Noise(SEEDS).normal((2,), "start").double() * math.hypot(0.5, 5.0)
# two of its three components are narrow, so the flow is quiet first and lively between 0.1 and 0.02
LIVELY = Mixture(MIXTURE.weights, MIXTURE.means, f64(0.4, 0.05, 0.02)[:, None].expand(3, 2))


def end(steps: Sequence[Step]) -> Step:
    return steps[-1]


@cache
def truth(name: str) -> Tensor:
    """The exact flow to LAST, then what is seen there."""
    mixture = LIVELY if name == "lively" else MIXTURE
    x = flow_map(mixture, START, NOISY, LAST, 500)
    return mixture.posterior_mean(x, LAST.alpha, LAST.sigma)


@pytest.mark.parametrize("pair", [Pair("eps", 2), Pair("eps", 3), Pair("x0", 2), Pair("x0", 3)], ids=repr)
def test_the_error_falls_with_the_tolerance(pair: Pair) -> None:
    errors, evaluations = [], []
    for tolerance in (1e-1, 1e-2, 1e-3):
        last = end(list(adaptive.walk(exact(MIXTURE), START, NOISY, LAST, pair, tolerance, tolerance / 6)))
        assert bool((last.level.sigma == 0).all())
        assert bool((last.level.alpha == 1).all())
        assert last.evaluations is not None
        errors.append(float((last.x - truth("mixture")).abs().max()))
        evaluations.append(float(last.evaluations.double().mean()))
    assert errors == sorted(errors, reverse=True)
    assert evaluations == sorted(evaluations)
    # The lower rule's error is what is held, so a step's cost grows as tolerance^(-1/order) and the error of
    # the higher rule that is kept falls at least as fast as the tolerance.
    assert errors[2] < errors[1] / 6
    assert evaluations[2] / evaluations[1] < 1.25 * 10 ** (1 / pair.order)


def test_it_needs_fewer_evaluations_than_fixed_steps_of_the_same_accuracy() -> None:
    last = end(list(adaptive.walk(exact(LIVELY), START, NOISY, LAST, Pair("x0", 3), 1e-3, 1e-4)))
    assert last.evaluations is not None
    mean = float(last.evaluations.double().mean())
    error = float((last.x - truth("lively")).abs().max())
    ratio = torch.logspace(math.log10(5.0), math.log10(0.02), 1 + round(mean / 3)).double()
    levels = Levels.of(Level(torch.ones_like(ratio), ratio), CLEAN)
    x = START
    for step in walk(exact(LIVELY), START, plans.descend(levels), Singlestep("x0", 3)):
        x = step.x
    assert error < float((x - truth("lively")).abs().max()) / 2


class Counting(Exact):
    """Counts how often each row of the batch is asked, and is a function of the rows it was cut to."""

    def __init__(self, belief: Belief, rows: Sequence[int], calls: dict[int, int]) -> None:
        super().__init__(belief)
        object.__setattr__(self, "rows", list(rows))
        object.__setattr__(self, "calls", calls)

    def __call__(self, x: Tensor, level: Level, seen: Estimate | None = None) -> Estimate:
        rows: list[int] = self.rows  # type: ignore[attr-defined]
        assert len(x) == len(rows)
        for row in rows:
            self.calls[row] = self.calls.get(row, 0) + 1  # type: ignore[attr-defined]
        return super().__call__(x, level)

    def take(self, rows: Sequence[int]) -> Exact:
        mine: list[int] = self.rows  # type: ignore[attr-defined]
        return Counting(self.posterior_mean, [mine[row] for row in rows], self.calls)  # type: ignore[attr-defined]


@pytest.mark.parametrize("fresh", [Ancestral(0.0), Ancestral(1.0)], ids=repr)
def test_a_neighbour_never_changes_a_picture(fresh: Ancestral) -> None:
    calls: dict[int, int] = {}
    denoise = Counting(exact(LIVELY).posterior_mean, SEEDS, calls)
    go = lambda denoise, rows: end(
        list(
            adaptive.walk(
                denoise, START[rows], NOISY, LAST, noise=Noise(SEEDS).take(rows), fresh=fresh, relative=0.02
            )
        )
    )
    every = list(range(len(SEEDS)))
    together = go(denoise, every)
    assert together.evaluations.tolist() == [calls[row] for row in every]
    assert (
        len(set(together.evaluations.tolist())) > 3
    )  # so rows left at different times, rejected on their own
    for row in (0, 7, 15):
        alone = go(exact(LIVELY), [row])
        assert torch.allclose(alone.x[0], together.x[row], atol=1e-12)
        assert int(alone.evaluations[0]) == int(together.evaluations[row])


def test_what_is_yielded_is_consistent_on_the_way() -> None:
    before = torch.full((len(SEEDS),), math.inf, dtype=torch.float64)
    for step in adaptive.walk(exact(LIVELY), START, NOISY, LAST, relative=0.01, absolute=0.001):
        assert step.evaluations is not None
        assert step.estimate is not None
        ratio = step.level.sigma / step.level.alpha
        assert bool((ratio <= before).all())
        before = ratio
        noisy = step.estimate.level.sigma > 0
        seen = exact(LIVELY)(step.estimate.x, step.estimate.level)
        assert torch.allclose(step.estimate.x0[noisy], seen.x0[noisy], atol=1e-12)
    assert SameStep is Step


def test_from_pure_noise() -> None:
    mixture = Mixture.gaussian([0.2, -0.1], [0.4, 0.3])
    z = Noise(SEEDS).normal((2,), "start").double()
    last = end(list(adaptive.walk(exact(mixture), z, PURE_NOISE, LAST, relative=3e-4, absolute=3e-5)))
    std = f64(0.4, 0.3)
    at_last = mixture.mean + torch.hypot(std, LAST.sigma) * z
    assert torch.allclose(last.x, mixture.posterior_mean(at_last, 1.0, LAST.sigma), atol=5e-4)


@pytest.mark.parametrize("fresh", [Ancestral(1.0), Sde(0.5)], ids=repr)
def test_fresh_noise_keeps_the_distribution(fresh: Ancestral | Sde) -> None:
    seeds, width = 20, 2000
    gaussian = Mixture.gaussian([0.3] * width, [0.5] * width)
    noise = Noise(tuple(range(seeds)))
    x = noise.normal((width,), "start").double() * math.hypot(0.5, 20.0) + 0.3
    for step in adaptive.walk(
        exact(gaussian), x, Level.of(1.0, 20.0), LAST, relative=1e-3, absolute=1e-4, noise=noise, fresh=fresh
    ):
        x = step.x
    n = x.numel()
    assert abs(float(x.mean()) - 0.3) < 4 * 0.5 / math.sqrt(n)
    # what is seen at LAST is narrower than the data, by a known factor
    seen = 0.5**4 / (0.5**2 + 0.02**2)
    assert abs(float(x.var()) / seen - 1) < 4 * math.sqrt(2 / n)


@pytest.mark.parametrize(
    ("go", "says"),
    [
        (lambda: adaptive.walk(exact(MIXTURE), START, NOISY, CLEAN), "last noisy one"),
        (lambda: adaptive.walk(exact(MIXTURE), START, LAST, NOISY), "less noise"),
        (lambda: adaptive.walk(exact(MIXTURE), START, NOISY, LAST, relative=0.0), "above 0"),
        (lambda: adaptive.walk(exact(MIXTURE), START, NOISY, LAST, fresh=Ancestral()), "draws noise"),
        (
            lambda: adaptive.walk(exact(MIXTURE), START, NOISY, LAST, noise=Noise((1,))),
            "one seed per picture",
        ),
        (
            lambda: adaptive.walk(exact(MIXTURE), START, NOISY, LAST, attempts=5),
            "16 of 16 pictures have not arrived after 5 attempts",
        ),
        (
            lambda: adaptive.walk(Exact(lambda x, level: x * math.nan), START, NOISY, LAST),
            r"picture 0 collapsed at sigma/alpha = 5\b",
        ),
        (lambda: Pair("eps", 4), "choose 2"),
    ],
)
def test_what_cannot_be_walked_is_refused(go: Callable[[], object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        list(go())  # type: ignore[call-overload]
