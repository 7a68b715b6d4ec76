"""A loss that means the same for every schedule, prediction and weighting.

The mean over 16 log-SNRs from -8 to 8, on the variance-preserving curve, of |eps - what the model believes of
eps|^2 per number: every model is asked on that curve, whatever its own is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sfumato.forward import noised
from sfumato.level import Level
from sfumato.model import Model
from sfumato.noise import Noise

LOG_SNRS = torch.linspace(-8, 8, 16, dtype=torch.float64)


def at(log_snr: Tensor) -> Level:
    """The level of the variance-preserving curve, alpha^2 + sigma^2 = 1, at this log-SNR."""
    return Level(torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt())


@torch.no_grad()
def eps_losses(model: Model, x0: Tensor, cond: Mapping[str, Tensor], batch: int = 64) -> Tensor:
    """The loss of each picture, (n,) float64: x0 (n, C, H, W) and what is told of them, n rows each.

    Picture i always gets the same noise, at all levels, so that two models differ by what they have learned.
    Raises SettingsError for a model that was not trained at these levels.
    """
    device = next(model.parameters()).device
    eps = Noise(tuple(range(len(x0)))).normal(x0.shape[1:], "common loss")
    out = torch.zeros(len(x0), dtype=torch.float64)
    for rows in torch.arange(len(x0)).split(batch):
        clean, noise = x0[rows].to(device), eps[rows].to(device)
        told = model.read({name: value[rows].to(device) for name, value in cond.items()})
        for log_snr in LOG_SNRS:
            level = at(log_snr)
            wrong = model(noised(clean, noise, level), level, **told).eps - noise
            out[rows] += wrong.double().square().flatten(1).mean(1).cpu() / len(LOG_SNRS)
    return out
