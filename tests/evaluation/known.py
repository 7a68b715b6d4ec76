"""Data whose entropy is known, with the denoiser that knows it, and expectations by quadrature."""

import math

import numpy as np
import torch
from torch import Tensor

from sfumato.bound import Bins, prior_kl
from sfumato.data.toy import Mixture
from sfumato.denoiser import Denoiser, Exact
from sfumato.evaluation.variational import Process
from sfumato.forward import noised
from sfumato.level import Level

STD = 0.25


def values(count: int) -> Tensor:
    """What the numbers of a picture can be."""
    return torch.linspace(-1, 1, count, dtype=torch.float64)


def quantised(count: int = 256, std: float = STD) -> Tensor:
    """What each of so many values gets of N(0, std^2) in [-1, 1], the first and the last bin open."""
    at = values(count)
    edges = (at[1:] + at[:-1]) / 2 / std
    below = torch.cat([torch.zeros(1).double(), torch.special.ndtr(edges)])
    above = torch.cat([torch.special.ndtr(-edges), torch.zeros(1).double()])
    last = torch.cat([torch.special.ndtr(edges), torch.ones(1).double()])
    first = torch.cat([torch.ones(1).double(), torch.special.ndtr(-edges)])
    return torch.where(at < 0, last - below, first - above)  # each tail from its own side


UNIFORM = torch.full((256,), 1 / 256, dtype=torch.float64)
GAUSSIAN = quantised()


def entropy(shares: Tensor) -> float:
    """In bits."""
    return float(-(shares * shares.log2()).sum())


def smooth(std: float = STD, size: int = 1) -> Exact:
    """The denoiser of N(0, std^2), `size` numbers a row."""
    known = Mixture.gaussian([0.0] * size, [std] * size)
    return Exact(lambda x, level: known.posterior_mean(x, level.alpha, level.sigma))


def lattice(shares: Tensor) -> Exact:
    """The denoiser of values with these shares, x (B, 1): only those near enough to x have a say."""
    count, at = len(shares), values(len(shares))
    width = Bins(count).width

    def believe(x: Tensor, level: Level) -> Tensor:
        ratio, y = float(level.sigma / level.alpha), x / float(level.alpha)
        reach = math.ceil(10 * ratio / width) + 1
        near = ((y + 1) / width).round().clamp(0, count - 1).long()
        some = near + torch.arange(-reach, reach + 1) if reach < count // 2 else torch.arange(count)
        inside = (some >= 0) & (some < count)
        some = some.clamp(0, count - 1)
        score = torch.where(inside, shares[some].log() - ((y - at[some]) / ratio) ** 2 / 2, -math.inf)
        return (torch.softmax(score, dim=1) * at[some]).sum(1, keepdim=True)

    return Exact(believe)


def normals(step: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights of E over a standard normal: by the trapezoidal rule, better than any power."""
    nodes = torch.arange(-9, 9 + step / 2, step, dtype=torch.float64)
    weights = torch.exp(-(nodes**2) / 2)
    return nodes, weights / weights.sum()


def expected(
    denoise: Denoiser, shares: Tensor, process: Process, nodes: int = 1, lean: bool = False
) -> float:
    """E of the bound over values with these shares (symmetric about 0), in bits. No draw is made.

    nodes: of Gauss-Legendre in each part. lean: three nodes of Gauss-Hermite do for the steps, as their costs
    are quadratic in eps.
    """
    half = len(shares) // 2
    x, p = values(len(shares))[:half], 2 * shares[:half]
    nats = float((p * prior_kl(x, process.edges[0])).sum())
    edges, parts = process.edges, len(process.sizes)
    width = Bins(len(shares)).width
    for part in range(parts):
        for share, weight in _legendre(nodes):
            at = torch.tensor([share], dtype=torch.float64)
            level = process.here(part, at)
            here = Level(level.alpha[0], level.sigma[0])
            eps, chance = _hermite() if lean else normals(_fine(here, width))
            x0, e, mass = _pairs(x, p, eps, chance)
            cost = process.cost(part, at, x0, e, denoise(noised(x0, e, here), here))
            nats += weight * float((mass * cost).sum())
    last = edges[parts]
    x0, e, mass = _pairs(x, p, *normals(min(0.05, _fine(last, width))))
    noisy = noised(x0, e, last)
    nats += float((mass * process.decoder(x0, noisy, denoise(noisy, last))).sum())
    return nats / math.log(2)


def _fine(level: Level, width: float) -> float:
    """A step of eps that is fine enough for a posterior that jumps from one value to the next."""
    return min(0.5, 0.25 * float(level.sigma / level.alpha) / width)


def _legendre(nodes: int) -> list[tuple[float, float]]:
    """Gauss-Legendre on [0, 1]: nodes and weights."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return [((a + 1) / 2, b / 2) for a, b in zip(x.tolist(), w.tolist(), strict=True)]


def _hermite() -> tuple[Tensor, Tensor]:
    root = math.sqrt(3)
    return torch.tensor([-root, 0, root]).double(), torch.tensor([1 / 6, 2 / 3, 1 / 6]).double()


def _pairs(x: Tensor, p: Tensor, eps: Tensor, chance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every value with every eps, (B, 1), and how likely the pair is."""
    x0, e = torch.meshgrid(x, eps, indexing="ij")
    return x0.reshape(-1, 1), e.reshape(-1, 1), (p[:, None] * chance).reshape(-1, 1)
