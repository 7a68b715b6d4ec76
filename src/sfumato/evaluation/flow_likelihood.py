"""Likelihood by the probability-flow ODE: the instantaneous change of variables (Song et al. 2021, D.2).

On the unit circle, x = cos(phi) x0 + sin(phi) eps, the flow from data (phi = 0) to noise (phi = pi/2) is

    dx / dphi = v = cos(phi) eps - sin(phi) x0,      d log p(x) / dphi = -div v,

finite at both ends, whatever the model predicts and whatever curve it was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.denoiser import Denoiser
from sfumato.errors import SettingsError
from sfumato.evaluation.dormand_prince import DormandPrince, State
from sfumato.evaluation.variational import Process, per_row
from sfumato.forward import noised
from sfumato.level import Level
from sfumato.noise import Noise

Dequantise = Literal["uniform", "noise"]
"""How whole numbers become points of a density: spread evenly over their bins, or by the process's own noise.
"""


@dataclass(frozen=True)
class Ends:
    """Where the flow begins, at the least noise that the model knows, and where it ends, at the most."""

    least: Level
    most: Level

    def __post_init__(self) -> None:
        low, high = float(self.least.angle), float(self.most.angle)
        if not 0 < low < high:
            raise SettingsError(
                f"the flow goes from some noise to more: from sigma/alpha = {math.tan(low):.4g} it cannot go "
                f"to {math.tan(high):.4g}"
            )


@dataclass(frozen=True)
class Flow:
    """The flow of a denoiser with the divergence beside it, as `DormandPrince` asks for it.

    probes: (K, B, ...), of +-1: the divergence is estimated as probe^T (dv/dx) probe, unbiased (Hutchinson
    1990; Grathwohl et al. 2019). None: the exact trace, at as many backward passes as x has numbers. What is
    carried along is the divergence for each number of x, so that an error in it is one in nats a dimension.
    """

    denoise: Denoiser
    probes: Tensor | None

    def __call__(self, t: Tensor, state: State, rows: Tensor) -> State:
        denoise = self.denoise.take(rows.tolist())
        with torch.enable_grad():
            x = state.x.detach().requires_grad_()
            estimate = denoise(x, Level(torch.cos(t), torch.sin(t)))
            cos, sin = estimate.level.on(x)
            v = cos * estimate.eps - sin * estimate.x0
            if self.probes is None:
                divergence = _trace(v, x)
            else:
                asked = self.probes[:, rows.to(self.probes.device)]
                divergence = _probed(v, x, asked)
        size = x[0].numel()
        return State(v.detach(), divergence.to("cpu", torch.float64) / size)


def _probed(v: Tensor, x: Tensor, probes: Tensor) -> Tensor:
    """The mean over the probes of probe^T (dv/dx) probe, (B,)."""
    total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for i, probe in enumerate(probes):
        (back,) = torch.autograd.grad(v, x, probe, retain_graph=i + 1 < len(probes))
        total = total + (back * probe).flatten(1).sum(1)
    return total / len(probes)


def _trace(v: Tensor, x: Tensor) -> Tensor:
    """The divergence of v, (B,), number by number."""
    flat, total = v.flatten(1), torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for i in range(flat.shape[1]):
        (back,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=i + 1 < flat.shape[1])
        total = total + back.flatten(1)[:, i]
    return total


@dataclass(frozen=True)
class Density:
    """log p(x) in nats, (B,), float64, of x on the unit circle at the flow's beginning, and what it took."""

    log_prob: Tensor
    evaluations: Tensor


def log_density(
    denoise: Denoiser,
    x: Tensor,
    ends: Ends,
    probes: Tensor | None = None,
    solver: DormandPrince = DormandPrince(),  # noqa: B008 (frozen)
) -> Density:
    """log p(x) = log N(x_end; 0, I) + integral of div v over phi, x at `ends.least` scaled to the unit
    circle.

    x keeps its dtype. Raises SettingsError for a level that the model cannot be asked.
    """
    for level in (ends.least, ends.most):
        denoise.check(level)
    start, stop = float(ends.least.angle), float(ends.most.angle)
    state = State(x, torch.zeros(len(x), dtype=torch.float64))
    (end, along), evaluations = solver.solve(Flow(denoise, probes), state, start, stop)
    size = x[0].numel()
    prior = -0.5 * (per_row(end**2) + size * math.log(2 * math.pi))
    return Density(prior + size * along, evaluations)


@dataclass(frozen=True)
class FlowLikelihood:
    """Bits per dimension of each picture, (n,), float64, and how often the model was asked for it, (n,)."""

    bits: Tensor
    evaluations: Tensor
    dequantise: Dequantise

    @staticmethod
    def joined(parts: Sequence[FlowLikelihood]) -> FlowLikelihood:
        """Batches as one."""
        bits, asked = torch.cat([p.bits for p in parts]), torch.cat([p.evaluations for p in parts])
        return FlowLikelihood(bits, asked, parts[0].dequantise)


def flow_likelihood(
    denoise: Denoiser,
    x0: Tensor,
    process: Process,
    noise: Noise,
    dequantise: Dequantise = "uniform",
    probes: int | None = 1,
    solver: DormandPrince = DormandPrince(),  # noqa: B008 (frozen)
) -> FlowLikelihood:
    """Bits per dimension of whole-numbered pictures x0, (B, ...), values of the process's bins, by the flow
    between its ends. `noise` has a stream a row.

    "uniform" (Theis et al. 2016): u = x0 + (U - 1/2) width, and since a bin's probability is width^D times
    the density's mean over it, -log P(x0) <= -E log p(u) - D log width. p is the density of x / alpha at the
    least noise, so it cannot follow data finer than that noise. "noise" lifts x0 by the process's own least
    noise and goes back by its last step: -log P(x0) <= E[log q(x|x0) - log p(x) - log P(x0|x)]; that is the
    process's bound with all steps but the last replaced by the flow, hence to be compared with it. probes:
    Rademacher probes of the divergence, None for the exact one. Raises SettingsError.
    """
    if dequantise not in get_args(Dequantise):
        raise SettingsError(f"pictures are dequantised by uniform or by noise, not {dequantise!r}")
    if probes is not None and probes < 1:
        raise SettingsError(f"{probes} probes: give at least 1")
    shape, size, width = x0.shape[1:], x0[0].numel(), process.bins.width
    ends = Ends(process.edges[len(process.sizes)], process.edges[0])
    signs = None
    if probes is not None:
        drawn = [noise.uniform(shape, "probe", k) for k in range(probes)]
        signs = torch.stack([torch.where(u < 0.5, -1.0, 1.0) for u in drawn]).to(x0)
    least = ends.least
    circle = least.scaled(1 / least.norm)
    alpha, sigma = float(circle.alpha), float(circle.sigma)
    if dequantise == "uniform":
        u = x0 + (noise.uniform(shape, "dequantise").to(x0) - 0.5) * width
        density = log_density(denoise, alpha * u, ends, signs, solver)
        nats = -density.log_prob - size * (math.log(alpha) + math.log(width))
    else:
        eps = noise.normal(shape, "lift").to(x0)
        density = log_density(denoise, alpha * x0 + sigma * eps, ends, signs, solver)
        x = noised(x0, eps, least)
        with torch.no_grad():
            back = per_row(process.decoder(x0, x, denoise(x, least)))
        spread = -0.5 * per_row(eps**2)
        spread = spread - size * (math.log(sigma) + 0.5 * math.log(2 * math.pi))
        nats = back + spread - density.log_prob
    return FlowLikelihood(nats / (size * math.log(2)), density.evaluations, dequantise)
