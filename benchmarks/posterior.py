"""How near the methods for inverse problems come to a posterior that is known.

    python benchmarks/posterior.py [-n 2000 --steps 50]

The prior is a mixture of two Gaussians in 24 dimensions (pictures of 3 x 2 x 4), so the posterior of every
linear measurement is one too, and the denoiser is exact: what is left is the method's own error and that of
its steps. "mean" is how far the mean of n pictures is from the posterior's, as a share of how far the
measurement moves it from the prior's (0: right, 1: the measurement was ignored); "variance" is the pictures'
variance, summed over coordinates, over the posterior's (1: right).
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor

from sfumato.data.toy import Mixture
from sfumato.denoiser import Exact
from sfumato.editing.inverse import Measured, ddrm, ddrm_steps, dps, pigdm
from sfumato.editing.job import finished
from sfumato.noise import Noise
from sfumato.operators import Operator, blur, downsample, grey, mask, sensing
from sfumato.samplers import sampler
from sfumato.tables import Table

SHAPE = (3, 2, 4)
SIZE = math.prod(SHAPE)
MEAN = torch.linspace(-0.6, 0.6, SIZE, dtype=torch.float64)
STDS = torch.tensor([0.25, 0.35], dtype=torch.float64)
PRIOR = Mixture(
    torch.tensor([0.3, 0.7]), torch.stack([MEAN - 0.5, MEAN + 0.4]), STDS[:, None].expand(2, SIZE).clone()
)
DENOISE = Exact(lambda x, level: PRIOR.posterior_mean(x, level.alpha, level.sigma))
KNOWN = torch.tensor([[True, False, True, False], [False, True, True, True]])
OPERATORS = {
    "mask": mask(KNOWN, 3),
    "2 times smaller": downsample(SHAPE, (1, 2)),
    "blur": blur(SHAPE, 0.6),
    "grey": grey(SHAPE),
    "sensing, 40 %": sensing(SHAPE, 0.4),
}
WAYS = ("pigdm", "ddrm", "ddrm, eta 0", "dps, scale 0.3", "dps, scale 1")


def posterior(operator: Operator, y: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Mean and summed variance of x given y: Bayes' rule for each Gaussian of the mixture."""
    eye = torch.eye(SIZE, dtype=torch.float64)
    a = operator(eye.reshape(SIZE, *SHAPE)).flatten(1).T
    told = a.abs().sum(1) > 0  # a mask measures nothing where it is 0
    a, y = a[told], y.flatten()[told]
    logs, means, inner = list[Tensor](), list[Tensor](), list[Tensor]()
    for weight, mean, std in zip(PRIOR.weights, PRIOR.means, STDS, strict=True):
        around = std**2 * a @ a.T + noise**2 * torch.eye(len(a), dtype=torch.float64)
        apart = y - a @ mean
        gain = std**2 * torch.linalg.solve(around, a).T
        means.append(mean + gain @ apart)
        inner.append(std**2 * SIZE - std**2 * (gain * a.T).sum())
        logs.append(weight.log() - 0.5 * (torch.logdet(around) + apart @ torch.linalg.solve(around, apart)))
    share, every = torch.softmax(torch.stack(logs), 0), torch.stack(means)
    mean = share @ every
    return mean, share @ (torch.stack(inner) + (every - mean).square().sum(1))


def drawn(way: str, operator: Operator, y: Tensor, noise: float, n: int, steps: int) -> Tensor:
    """n pictures from y, as rows."""
    streams, rows = Noise(tuple(range(n))), y.expand(n, *y.shape[1:])
    name, _, number = way.partition(", ")
    value = float(number.split()[-1]) if number else 0.85
    how = sampler("ddpm" if name == "dps" else "ddim")
    levels = how.grid(Table.cosine(), steps)
    if name == "dps":
        job = dps(DENOISE, operator, rows, SHAPE, levels, streams, value)
    elif name == "ddrm":
        job = ddrm(DENOISE, Measured(operator, rows, noise), levels, streams, value)
        how = ddrm_steps(how, value)
    else:
        job = pigdm(DENOISE, Measured(operator, rows, noise), levels, streams)
    return finished(job, how, streams).flatten(1).double()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--noises", default="0.1,0.3")
    options = parser.parse_args()
    print("mean, variance, by each method\n")
    print(f"| noise | measured | {' | '.join(WAYS)} |\n|{'---|' * (len(WAYS) + 2)}")
    for noise in (float(one) for one in options.noises.split(",")):
        for name, operator in OPERATORS.items():
            y = operator((MEAN + 0.7).reshape(1, *SHAPE))
            mean, variance = posterior(operator, y, noise)
            far = (PRIOR.mean - mean).norm()
            cells: list[str] = []
            for way in WAYS:
                out = drawn(way, operator, y, noise, options.n, options.steps)
                off = float((out.mean(0) - mean).norm() / far)
                cells.append(f"{off:.2f}, {float(out.var(0).sum() / variance):.2f}")
            print(f"| {noise:g} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
