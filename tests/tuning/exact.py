"""A run whose network knows its data's law: its only errors are the sampler's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from corpora import small
from sfumato.card import SamplerSettings
from sfumato.data.toy import Mixture
from sfumato.model import LogSigma, Model
from sfumato.noise import Noise
from sfumato.predictions import V
from sfumato.runs import Run
from sfumato.schedules import Cosine

SIZE = 64


class Knows(nn.Module):
    """v of the posterior mean, told log(sigma / alpha) / 4 on the variance-preserving curve."""

    def __init__(self, law: Mixture) -> None:
        super().__init__()
        self.law = law
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        angle = torch.atan(torch.exp(4 * label.double()))
        alpha, sigma = angle.cos(), angle.sin()
        x0 = self.law.posterior_mean(x.double(), alpha, sigma)
        a, s = (part.reshape(-1, 1, 1, 1) for part in (alpha, sigma))
        return ((a * x.double() - x0) / s).to(x)


def gaussian(std: float = 1.0) -> Mixture:
    return Mixture.gaussian([0.0] * SIZE, [std] * SIZE)


def mixture() -> Mixture:
    """Three Gaussians in 64 dimensions, between -1 and 1."""
    means = 0.5 * Noise((1, 2, 3)).normal((SIZE,), "means").double().clamp(-1, 1)
    stds = torch.tensor([0.1, 0.2, 0.3]).double()[:, None].expand(3, SIZE)
    return Mixture(torch.ones(3).double(), means, stds)


def run(folder: Path, law: Mixture, sampler: SamplerSettings) -> Run:
    """The run's folder holds a small network; what is opened of it knows the law."""
    made = small.make(folder, small.card(schedule=Cosine(), prediction=V(), clip=False, sampler=sampler))
    return replace(made, model=Model(Knows(law), Cosine(), V(), LogSigma()).eval())
