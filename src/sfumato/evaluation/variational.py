"""Likelihood by the variational bound: every term, or some drawn at random so that the sum is unbiased.

A process is cut into parts from noisy to clean. From each part one level is drawn for each picture, evenly,
and its term is weighed by the part's size; parts of a single step leave nothing to chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol, get_args, runtime_checkable

import torch
from torch import Tensor

from sfumato.bound import BYTES, Bins, Variance, decoder_nll, direct_nll, prior_kl, rate, step_kl
from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.evaluation.mean import Mean
from sfumato.forward import noised
from sfumato.grids import ends
from sfumato.level import Level, Levels
from sfumato.noise import Noise
from sfumato.predictions import Estimate
from sfumato.schedules import Schedule
from sfumato.tables import Table

NOISIEST = 150.0
"""sigma/alpha at which a process in continuous time is begun if its own has no largest; L_T is then at
most 4e-5 bits."""
FINEST = 1 / 6
"""The least sigma/alpha of a process that has none of its own, in widths of a bin: for bytes about where
VDM's learned schedules end (log-SNR 13.3). L_0 is then 0.054 bits."""

Told = Callable[[int, int], None]
"""Told (done, total) of the model's evaluations."""


@runtime_checkable
class Process(Protocol):
    """What the bound is a sum over."""

    @property
    def bins(self) -> Bins:
        """The values that data can have."""
        ...

    @property
    def edges(self) -> Levels:
        """parts + 1 levels, from the noisiest: the edges of the parts."""
        ...

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """How many steps each part has; None in continuous time."""
        ...

    def here(self, part: int, u: Tensor) -> Level:
        """The levels at the shares u in [0, 1), (B,), of a part."""
        ...

    def cost(self, part: int, u: Tensor, x0: Tensor, eps: Tensor, estimate: Estimate) -> Tensor:
        """The part's nats, estimated from its term at `here`: shaped like x0."""
        ...

    def decoder(self, x0: Tensor, x: Tensor, estimate: Estimate) -> Tensor:
        """L_0 at the last edge, in nats, shaped like x0."""
        ...


def least_level(schedule: Schedule, bins: Bins = BYTES) -> Level:
    """The least noise that the model was trained at; where that is none, `FINEST` of a bin."""
    least = ends(schedule)
    if float(least.sigma[0]) > 0:
        return Level(least.alpha[0], least.sigma[0])
    return _at_ratio(schedule, torch.tensor(FINEST * bins.width, dtype=torch.float64))


def most_level(schedule: Schedule) -> Level:
    """The most noise that the model was trained at."""
    most = ends(schedule)
    return Level(most.alpha[1], most.sigma[1])


def _at_ratio(schedule: Schedule, ratio: Tensor) -> Level:
    return schedule.level(schedule.time(Level(torch.ones_like(ratio), ratio)).clamp(0, 1))


@dataclass(frozen=True)
class Steps:
    """A process of N levels, `levels` from the noisiest to the least noisy, and N - 1 steps between them.

    terms: into how many parts the steps are cut, all for one each. variance: that of p(x_s | x_t).
    """

    levels: Levels
    variance: Variance = "small"
    terms: int | None = None
    bins: Bins = BYTES

    def __post_init__(self) -> None:
        if self.variance not in get_args(Variance):
            raise SettingsError(
                f"the variance is one of {', '.join(get_args(Variance))}, not {self.variance!r}"
            )
        if not len(self.levels) or float(self.levels.sigma.min()) <= 0:
            raise SettingsError("the bound is a sum over noisy levels: leave clean data out, and give one")
        if self.terms is not None and self.terms < 1:
            raise SettingsError(f"{self.terms} terms: give at least 1")

    @staticmethod
    def of(
        schedule: Schedule,
        steps: int,
        variance: Variance = "small",
        terms: int | None = None,
        bins: Bins = BYTES,
    ) -> Steps:
        """`steps` levels even in time from the noisiest to the least trained noise, both included, on a table
        its nodes: all of them, or the sub-sequence of Nichol & Dhariwal (2021, sec. 4)."""
        most = schedule.steps if isinstance(schedule, Table) else 1_000_000
        if not 1 <= steps <= most:
            raise SettingsError(f"{steps} steps: give a number from 1 to {most:,}")
        least = schedule.time(least_level(schedule, bins))
        times = torch.linspace(1, float(least), steps, dtype=torch.float64)
        if isinstance(schedule, Table):
            times = (times * schedule.steps).round() / schedule.steps
        return Steps(Levels.of(schedule.level(times)), variance, terms, bins)

    @cached_property
    def _cuts(self) -> list[int]:
        steps = len(self.levels) - 1
        if self.terms is None or self.terms >= steps:
            return list(range(steps + 1))
        log_snr = Level(self.levels.alpha, self.levels.sigma).log_snr.clamp(min=-2 * math.log(NOISIEST))
        return _cut(log_snr, self.terms)

    @property
    def edges(self) -> Levels:
        return Levels(self.levels.alpha[self._cuts], self.levels.sigma[self._cuts])

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return tuple(b - a for a, b in pairwise(self._cuts))

    def _step(self, part: int, u: Tensor) -> Tensor:
        low, high = self._cuts[part], self._cuts[part + 1]
        return low + (u * (high - low)).floor().long().clamp(max=high - low - 1)

    def here(self, part: int, u: Tensor) -> Level:
        at = self._step(part, u)
        return Level(self.levels.alpha[at], self.levels.sigma[at])

    def cost(self, part: int, u: Tensor, x0: Tensor, eps: Tensor, estimate: Estimate) -> Tensor:
        at = self._step(part, u) + 1
        there = Level(self.levels.alpha[at], self.levels.sigma[at])
        return step_kl(x0, estimate, there, self.variance) * (self._cuts[part + 1] - self._cuts[part])

    def decoder(self, x0: Tensor, x: Tensor, estimate: Estimate) -> Tensor:
        above = self.levels[len(self.levels) - 2] if len(self.levels) > 1 else None
        return decoder_nll(x0, estimate, self.variance, above, self.bins)


def _cut(log_snr: Tensor, parts: int) -> list[int]:
    """Steps between these log-SNRs, (N,), rising, in so many parts: the widest is halved until there are
    enough. Near clean data, where most bits are spent, a single step is as wide as many elsewhere."""
    cuts = [0, len(log_snr) - 1]
    while len(cuts) <= parts:
        spans = [float(log_snr[b] - log_snr[a]) if b - a > 1 else -1.0 for a, b in pairwise(cuts)]
        at = spans.index(max(spans))
        a, b = cuts[at], cuts[at + 1]
        middle = int(torch.searchsorted(log_snr, (log_snr[a] + log_snr[b]) / 2))
        cuts.insert(at + 1, min(max(middle, a + 1), b - 1))
    return cuts


@dataclass(frozen=True)
class Continuous:
    """A process in continuous time (Kingma et al. 2021): an integral over the log-SNR, cut into equal parts.

    Only its ends matter, not the schedule: log_snr is (noisiest, cleanest).
    """

    schedule: Schedule
    log_snr: tuple[float, float]
    terms: int = 50
    bins: Bins = BYTES

    def __post_init__(self) -> None:
        if self.terms < 1:
            raise SettingsError(f"{self.terms} terms: give at least 1")

    @staticmethod
    def of(schedule: Schedule, terms: int = 50, bins: Bins = BYTES) -> Continuous:
        """All of what the model was trained on, as far as there is an end."""
        most, least = most_level(schedule), least_level(schedule, bins)
        cap = torch.tensor(NOISIEST, dtype=torch.float64)
        ratio = torch.minimum(most.sigma / most.alpha, cap) if float(most.alpha) > 0 else cap
        return Continuous(schedule, (-2 * math.log(float(ratio)), float(least.log_snr)), terms, bins)

    @property
    def _width(self) -> float:
        return (self.log_snr[1] - self.log_snr[0]) / self.terms

    def _at(self, log_snr: Tensor) -> Level:
        return _at_ratio(self.schedule, torch.exp(-log_snr / 2))

    @property
    def edges(self) -> Levels:
        return Levels.of(self._at(torch.linspace(*self.log_snr, self.terms + 1, dtype=torch.float64)))

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (None,) * self.terms

    def here(self, part: int, u: Tensor) -> Level:
        return self._at(self.log_snr[0] + (part + u) * self._width)

    def cost(self, part: int, u: Tensor, x0: Tensor, eps: Tensor, estimate: Estimate) -> Tensor:
        return rate(eps, estimate) * self._width

    def decoder(self, x0: Tensor, x: Tensor, estimate: Estimate) -> Tensor:
        edges = self.edges
        return direct_nll(x0, x, edges[len(edges) - 1], self.bins)


@dataclass(frozen=True)
class Bound:
    """The bound of n pictures: bits per dimension, float64, one row a picture.

    prior: L_T, (n,). parts: the steps, (n, P). decoder: L_0, (n,). squares: the mean squared error of the
    estimate of x0 at each part and at the last edge, (n, P + 1), in units of x0. edges: P + 1 levels.
    """

    prior: Tensor
    parts: Tensor
    decoder: Tensor
    squares: Tensor
    edges: Levels
    sizes: tuple[int | None, ...]

    @property
    def bits(self) -> Tensor:
        """The bound itself, (n,)."""
        return self.prior + self.parts.sum(1) + self.decoder

    @property
    def total(self) -> Mean:
        """The bound's mean over the pictures."""
        return Mean.of(self.bits)

    @property
    def edges_log_snr(self) -> Tensor:
        """The log-SNR at the edges, (P + 1,); -inf for pure noise."""
        return Level(self.edges.alpha, self.edges.sigma).log_snr

    @property
    def per_part(self) -> list[Mean]:
        """What each part costs."""
        return [Mean.of(part) for part in self.parts.T]

    @staticmethod
    def joined(batches: Sequence[Bound]) -> Bound:
        """Batches as one."""
        first = batches[0]
        join = lambda name: torch.cat([getattr(b, name) for b in batches])
        rows = {name: join(name) for name in ("prior", "parts", "decoder", "squares")}
        return Bound(**rows, edges=first.edges, sizes=first.sizes)


def per_row(numbers: Tensor) -> Tensor:
    """The sum over each row, (B,), float64 on the CPU, since not every device has float64."""
    return numbers.flatten(1).to("cpu", torch.float64).sum(1)


@torch.no_grad()
def bound(denoise: Denoiser, x0: Tensor, process: Process, noise: Noise, told: Told | None = None) -> Bound:
    """The bound on -log2 P(x0) per dimension for whole-numbered pictures x0, (B, ...), values of the bins.

    `noise` has a stream a row. The model is asked once for each part and once at the least noisy level; one
    that is shown its own guesses gets none here, since a step of the process must follow from x alone. x0's
    dtype is kept until the sums, which are float64. Raises SettingsError for a level that the model cannot be
    asked.
    """
    edges, parts = process.edges, len(process.sizes)
    for level in (edges[0], edges[parts]):
        denoise.check(level)
    shape, unit = x0.shape[1:], x0[0].numel() * math.log(2)
    costs, squares = (
        torch.zeros(len(x0), parts, dtype=torch.float64),
        torch.zeros(len(x0), parts + 1).double(),
    )
    for part in range(parts):
        u = noise.uniform((), "level", part).double()
        here, eps = process.here(part, u), noise.normal(shape, "eps", part).to(x0)
        estimate = denoise(noised(x0, eps, here), here)
        costs[:, part] = per_row(process.cost(part, u, x0, eps, estimate)) / unit
        squares[:, part] = per_row((x0 - estimate.x0) ** 2) / x0[0].numel()
        if told is not None:
            told(part + 1, parts + 1)
    last = edges[parts]
    x = noised(x0, noise.normal(shape, "eps", parts).to(x0), last)
    estimate = denoise(x, last)
    squares[:, parts] = per_row((x0 - estimate.x0) ** 2) / x0[0].numel()
    decoder = per_row(process.decoder(x0, x, estimate)) / unit
    if told is not None:
        told(parts + 1, parts + 1)
    return Bound(per_row(prior_kl(x0, edges[0])) / unit, costs, decoder, squares, edges, process.sizes)
