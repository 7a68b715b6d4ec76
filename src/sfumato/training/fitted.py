"""A schedule fitted to what was measured: steps of equal loss."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.schedules import at_log_snr
from sfumato.tables import Table

_GRID = 20_000


def fit_schedule(log_snr: Tensor, losses: Tensor, steps: int = 1000, least: float = 0.01) -> Table:
    """A table whose nodes lie by the loss: uniform steps on it have the density of `losses` over the log-SNR.

    log_snr, losses: (K,), a loss (or its standard deviation, which makes the variance of the mean least) at
    each of K log-SNRs; between them it is interpolated, and the table reaches from the first to the last.
    `least` is the smallest density, as a share of the largest. This is the adaptive noise schedule of Kingma
    & Gao (2023, "Understanding diffusion objectives as the ELBO", appendix C), after the fact. Raises
    SettingsError for fewer than two log-SNRs, or losses that are no density.
    """
    order = torch.argsort(log_snr.double(), descending=True)
    x, y = log_snr.double()[order], losses.double()[order]
    good = x.ndim == 1 and x.shape == y.shape and len(x) > 1
    if not good or not bool(torch.isfinite(x).all()) or not bool((x.diff() < 0).all()):
        raise SettingsError("a schedule is fitted to losses at two or more different, finite log-SNRs")
    if not bool((torch.isfinite(y) & (y >= 0)).all()) or not float(y.max()) > 0:
        raise SettingsError("a schedule is fitted to losses that are finite, not negative and not all 0")
    at = torch.linspace(float(x[0]), float(x[-1]), _GRID, dtype=torch.float64)
    density = _between(at, x, y).clamp(min=least * float(y.max()))
    mass = torch.cat([density.new_zeros(1), ((density[1:] + density[:-1]) / 2).cumsum(0)])
    mass = mass / mass[-1]
    share = torch.linspace(0, 1, steps + 1, dtype=torch.float64)[1:]
    level = at_log_snr(-_between(share, mass, -at))
    return Table(tuple(level.alpha.tolist()), tuple(level.sigma.tolist()))


def _between(wanted: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Linear interpolation of (x, y), x monotone, at points inside."""
    if bool(x[0] > x[-1]):
        wanted, x = -wanted, -x
    low = (torch.searchsorted(x, wanted, right=True) - 1).clamp(0, len(x) - 2)
    part = (wanted - x[low]) / (x[low + 1] - x[low])
    return y[low] + part * (y[low + 1] - y[low])
