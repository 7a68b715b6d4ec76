"""A variational autoencoder (Kingma and Welling 2014) of small pictures: beta = 1, and a Gaussian decoder
whose one variance is learned with it (Rybkin et al. 2021, "Simple and effective VAE training with calibrated
decoders").

With a latent z of d numbers and a picture x of D, the loss is the negative bound, in nats a number of x:

    ( |x - m(z)|^2 / (2 s^2) + D log s + KL(N(mu(x), sigma(x)^2) | N(0, 1)) ) / D.

Its encoder and decoder are also the discriminator and generator of `gan.py`, so that the two families differ
by what they are taught, and by nothing else.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sfumato.training.pace import Pace

LATENT = 64


def _conv(a: int, b: int, side: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(a, b, side, stride, 1)


class Encoder(nn.Module):
    """(B, C, H, W) -> (B, out): three convolutions of stride 2, then all at once. `beside` is how many maps
    `extra` adds to the coarsest ones."""

    def __init__(self, shape: tuple[int, int, int], out: int, width: int, beside: int = 0) -> None:
        super().__init__()
        channels, height, width_ = shape
        self.maps = nn.Sequential(
            _conv(channels, width, 4, 2), nn.LeakyReLU(0.2),
            _conv(width, 2 * width, 4, 2), nn.LeakyReLU(0.2),
            _conv(2 * width, 4 * width, 3, 2), nn.LeakyReLU(0.2),
        )  # fmt: skip
        area = -(-(height // 4) // 2) * -(-(width_ // 4) // 2)
        self.head = nn.Linear((4 * width + beside) * area, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.extra(self.maps(x)).flatten(1))

    def extra(self, maps: Tensor) -> Tensor:
        """What goes into the last layer: the coarsest maps."""
        return maps


class Decoder(nn.Module):
    """(B, LATENT) -> (B, C, H, W) in (-1, 1): a quarter of the size at once, then doubled twice (Radford et
    al. 2016), with group norms, which draw one picture as they draw many."""

    def __init__(self, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        channels, height, width_ = shape
        self.coarse = (4 * width, height // 4, width_ // 4)
        self.first = nn.Linear(LATENT, math.prod(self.coarse))
        self.maps = nn.Sequential(
            nn.GroupNorm(8, 4 * width), nn.ReLU(), nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1),
            nn.GroupNorm(8, 2 * width), nn.ReLU(), nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
            nn.GroupNorm(8, width), nn.ReLU(), _conv(width, channels), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.maps(self.first(z).unflatten(1, self.coarse))


class Vae:
    """A variational autoencoder in training; `painter` is what draws."""

    def __init__(self, shape: tuple[int, int, int], width: int = 24, rate: float = 1e-3) -> None:
        self.encoder, self.painter = Encoder(shape, 2 * LATENT, width), Decoder(shape, width)
        self.log_s = nn.Parameter(torch.zeros(()))
        self.pace, self.steps = Pace(rate, warmup=50), 0
        self.optimiser = torch.optim.AdamW(self.parameters(), rate)

    def parameters(self) -> list[nn.Parameter]:
        return [*self.encoder.parameters(), *self.painter.parameters(), self.log_s]

    def loss(self, x0: Tensor) -> Tensor:
        """The negative bound, from one z a picture."""
        mean, log_sigma = self.encoder(x0).chunk(2, 1)
        z = mean + log_sigma.exp() * torch.randn_like(mean)
        error = (self.painter(z) - x0).square().mean() / (2 * torch.exp(2 * self.log_s))
        kl = (mean.square() + torch.exp(2 * log_sigma) - 1 - 2 * log_sigma).sum() / 2
        return error + self.log_s + kl / x0.numel()

    def step(self, x0: Tensor, share: float) -> float:
        """One update when this share of the time is over; its loss. The learning rate falls as a cosine."""
        self.optimiser.param_groups[0]["lr"] = self.pace.rate(self.steps, share)
        self.optimiser.zero_grad()
        loss = self.loss(x0)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.optimiser.step()
        self.steps += 1
        return float(loss.detach())

    @torch.no_grad()
    def draw(self, n: int) -> Tensor:
        """n pictures: the decoder's means, as everybody shows them."""
        return self.painter(torch.randn(n, LATENT))
