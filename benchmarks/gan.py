"""A generative adversarial network (Goodfellow et al. 2014) of small pictures: the non-saturating loss with
the penalty R1 (Mescheder et al. 2018, "Which training methods for GANs do actually converge?"),

    D:  softplus(D(G(z))) + softplus(-D(x)) + (gamma / 2) |grad D(x)|^2,      G:  softplus(-D(G(z))),

the penalty at every 16th step with 16 times the weight (Karras et al. 2020, section 3.1), Adam with betas
(0, 0.99), and the deviation over the batch as a map for the discriminator (Karras et al. 2018, section 3),
which so sees a generator that draws one thing only. The generator that draws is an average of its weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from vae import LATENT, Decoder, Encoder

EVERY = 16
"""Steps from one penalty to the next."""


class Discriminator(Encoder):
    """(B, C, H, W) -> (B, 1): above 0 for real. The encoder with one map more: how far the pictures of the
    batch are apart."""

    def __init__(self, shape: tuple[int, int, int], width: int) -> None:
        super().__init__(shape, 1, width, beside=1)

    def extra(self, maps: Tensor) -> Tensor:
        apart = (maps.var(0, unbiased=False) + 1e-8).sqrt().mean()
        return torch.cat([maps, apart.expand(len(maps), 1, *maps.shape[2:])], 1)


class Gan:
    """A GAN in training; `painter` is what draws. The rates are constant, as is usual."""

    def __init__(
        self, shape: tuple[int, int, int], width: int = 32, rate: float = 5e-4, gamma: float = 1.0
    ) -> None:
        self.discriminator, self.painter = Discriminator(shape, width), Decoder(shape, width)
        self.gamma, self.steps = gamma, 0
        how = {"lr": rate, "betas": (0.0, 0.99)}
        self.judging = torch.optim.Adam(self.discriminator.parameters(), **how)
        self.painting = torch.optim.Adam(self.painter.parameters(), **how)

    def parameters(self) -> list[nn.Parameter]:
        return [*self.discriminator.parameters(), *self.painter.parameters()]

    def step(self, x0: Tensor, share: float) -> float:
        """One update of both; the loss of the generator."""
        made = self.painter(torch.randn(len(x0), LATENT))
        self.judging.zero_grad()
        real = x0.requires_grad_(self.steps % EVERY == 0)
        said = self.discriminator(real)
        loss = (softplus(-said) + softplus(self.discriminator(made.detach()))).mean()
        if real.requires_grad:
            (slope,) = torch.autograd.grad(said.sum(), real, create_graph=True)
            loss = loss + EVERY * self.gamma / 2 * slope.square().sum((1, 2, 3)).mean()
        loss.backward()
        self.judging.step()
        self.painting.zero_grad()
        own = softplus(-self.discriminator(made)).mean()
        own.backward()
        self.painting.step()
        self.steps += 1
        return float(own.detach())

    @torch.no_grad()
    def draw(self, n: int) -> Tensor:
        """n pictures."""
        return self.painter(torch.randn(n, LATENT))
