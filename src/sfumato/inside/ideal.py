"""The ideal denoiser of a finite set of pictures: the least loss that any network can have on that set.

Taken at its word a training set is N points of equal weight. For x = alpha x0 + sigma eps Bayes' rule gives

    E[x0 | x] = sum_i w_i x_i,   w = softmax_i( (alpha x.x_i - alpha^2 |x_i|^2 / 2) / sigma^2 ),

the softmax of -|x - alpha x_i|^2 / (2 sigma^2) (Karras et al. 2022, appendix B.3, eq. 57). No function of x
has a smaller squared error on average over the points, so its loss is a bound from below. A network that
reaches it where noise is low knows its pictures by heart: sampled with this denoiser, only the points
themselves come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfumato.data.dataset import DataSet
from sfumato.errors import SettingsError
from sfumato.level import Level, spread_on

_NUMBERS = 1 << 22
"""How many numbers of the set are looked at at a time: 32 MB in float64."""


@dataclass(frozen=True, eq=False)
class Ideal:
    """E[x0 | x] for x0 uniform over N pictures: a `Belief`, so `Exact(Ideal.of(images))` is a denoiser.

    read: the pictures of a range of places, (n, ...). classes: (N,) int64, for pictures told by class.
    mirrored: each picture counts half as it is and half turned left to right, as in training with flips.
    """

    read: Callable[[range], Tensor]
    count: int
    classes: Tensor | None = None
    mirrored: bool = False

    def __post_init__(self) -> None:
        if self.count < 1 or (self.classes is not None and self.classes.shape != (self.count,)):
            raise SettingsError(
                "an ideal denoiser needs at least one picture, and one class for each or none"
            )

    @staticmethod
    def of(images: Tensor, classes: Tensor | None = None, mirrored: bool = False) -> Ideal:
        """Of pictures in memory, (N, ...)."""
        return Ideal(lambda places: images[places.start : places.stop], len(images), classes, mirrored)

    @staticmethod
    def of_training(data: DataSet, told: bool = True, mirrored: bool = False) -> Ideal:
        """Of the pictures that a data set is trained on, in parts; `told`: by class, where it has any."""
        rows = np.asarray(data.train)
        classes = data.classes_of(rows) if told else None
        return Ideal(
            lambda places: data.images(rows[places.start : places.stop]), len(rows), classes, mirrored
        )

    def __call__(self, x: Tensor, level: Level, classes: Tensor | None = None) -> Tensor:
        """E[x0 | x], and E[x0 | x, class] for rows whose class is told, in x's shape, dtype and device.

        x: (B, ...); level: () or (B,); classes: (B,) int64, below 0 for "not told". Computed in float64,
        because near clean data the logits are differences of numbers 1/sigma^2 times as large; exact at both
        ends. Time and memory are linear in N, with the set read once a call.
        """
        rows = x.detach().to("cpu", torch.float64).flatten(1)
        alpha, sigma = (part.expand(len(x), 1) for part in level.on(rows))
        noisy = sigma > 0
        gain, cost = alpha / sigma.where(noisy, 1) ** 2, alpha**2 / sigma.where(noisy, 1) ** 2 / 2
        best = torch.full_like(sigma, -torch.inf)
        total, mean = torch.zeros_like(sigma), torch.zeros_like(rows)
        for points, kinds in self._parts(rows.shape[1]):
            logits = gain * (rows @ points.T) - cost * points.square().sum(1)
            if classes is not None and kinds is not None:
                asked = classes.cpu()[:, None]
                logits = logits.masked_fill((asked >= 0) & (asked != kinds), -torch.inf)
            top = torch.maximum(best, logits.amax(1, keepdim=True))
            shown = top.where(top.isfinite(), 0)
            weights, kept = (logits - shown).exp(), (best - shown).exp()
            total = total * kept + weights.sum(1, keepdim=True)
            mean = mean * kept + weights @ points
            best = top
        if bool((total == 0).any()):
            raise SettingsError("an ideal denoiser was told a class of which it has no picture")
        mean = (mean / total).where(noisy, rows / alpha.where(~noisy, 1))
        return mean.reshape(x.shape).to(x)

    def _parts(self, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The points as rows in float64, with their classes."""
        step = max(1, _NUMBERS // size)
        for start in range(0, self.count, step):
            places = range(start, min(start + step, self.count))
            images = self.read(places).to("cpu", torch.float64)
            kinds = None if self.classes is None else self.classes[places.start : places.stop].cpu()
            yield images.flatten(1), kinds
            if self.mirrored:
                yield images.flip(-1).flatten(1), kinds


def clean_error(ideal: Ideal, x0: Tensor, eps: Tensor, level: Level, classes: Tensor | None) -> Tensor:
    """|E[x0 | x] - x0|^2 per number at x = alpha x0 + sigma eps, (B,), float64."""
    x0, eps = x0.to("cpu", torch.float64), eps.to("cpu", torch.float64)
    x = spread_on(level.alpha, x0) * x0 + spread_on(level.sigma, x0) * eps
    return (ideal(x, level, classes) - x0).square().flatten(1).mean(1)
