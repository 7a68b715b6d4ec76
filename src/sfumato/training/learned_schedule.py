"""Trains a learned schedule beside its model: the ends by the variational bound, the shape between by the
variance of its estimate (Kingma et al. 2021, section 4.2 and appendix I.2).

With h(gamma) the rate of the bound, a time t drawn evenly costs L = gamma'(t) h(gamma(t)). The mean of L over
t depends on the ends alone,

    d bound / d gamma_max = E h(gamma_max) + d L_T / d gamma_max,
    d bound / d gamma_min = -E h(gamma_min) + d L_0 / d gamma_min,

and the variance on the shape. E L^2 = int E h^2 gamma' dgamma, so its gradient at fixed gamma is E[L^2 grad
log gamma'], in which the network is not differentiated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sfumato.bound import BYTES, Bins, direct_nll, prior_kl, rate
from sfumato.errors import SettingsError
from sfumato.forward import noised
from sfumato.learned import Learned, curve
from sfumato.model import Model
from sfumato.schedules import at_log_snr
from sfumato.training.objectives import Trial
from sfumato.training.optimisers import restore_state, state_tensors

_EDGE = 1 / 32
"""The rate at an end is taken as its mean over this outermost part of the time."""
_WIDEST, _NARROWEST = 20.0, 1.0
"""Bounds of |gamma| at the ends, and of their distance."""


def value_of(tensors: Mapping[str, Tensor]) -> Learned:
    """The schedule that a `LearnedSchedule` of these tensors holds."""
    low, high = tensors["ends"].tolist()
    slopes, heights = (tuple(tensors[name].exp().tolist()) for name in ("slopes", "heights"))
    return Learned(low, high, slopes, tuple(tensors["centres"].tolist()), heights)


class LearnedSchedule:
    """The companion that moves `model.schedule`, a `Learned`, by Adam; `lr` is in log-SNR for the ends and
    relative for slopes and heights."""

    name = "schedule"

    def __init__(self, bins: Bins = BYTES, lr: float = 5e-3) -> None:
        self.bins, self.lr = bins, lr
        self._parts: dict[str, nn.Parameter] = {}

    def begin(self, model: Model, batch: int, device: torch.device) -> None:
        value = model.schedule
        if not isinstance(value, Learned):
            raise SettingsError(
                f"a {type(value).__name__} schedule has nothing to learn: use Learned.straight()"
            )
        self.model = model
        numbers = {
            "ends": torch.tensor([value.gamma_min, value.gamma_max], dtype=torch.float64),
            "slopes": torch.tensor(value.slopes, dtype=torch.float64).log(),
            "centres": torch.tensor(value.centres, dtype=torch.float64),
            "heights": torch.tensor(value.heights, dtype=torch.float64).log(),
        }
        self._parts = {name: nn.Parameter(number) for name, number in numbers.items()}
        self._optimiser = torch.optim.Adam(self._parts.values(), lr=self.lr, betas=(0.9, 0.99))
        self._seen = torch.zeros(batch, 2, device=device)
        self._pull = torch.zeros(2, device=device)

    def value(self) -> Learned:
        """The schedule now."""
        return value_of({name: p.detach() for name, p in self._parts.items()})

    def watch(self, trial: Trial, losses: Tensor, places: Sequence[int]) -> Tensor | None:
        with torch.no_grad():
            h = rate(trial.eps, trial.estimate).flatten(1).mean(1)
            gamma = -trial.level.log_snr.to(h)
            rows = torch.tensor(list(places), device=h.device)
            self._seen[rows] = torch.stack([gamma.expand_as(h), h], 1).to(self._seen)
        with torch.enable_grad():
            ends = self._parts["ends"].detach().requires_grad_()
            first, last = at_log_snr(-ends[0]), at_log_snr(-ends[1])
            begin = direct_nll(trial.x0, noised(trial.x0, trial.eps, first), first, self.bins)
            outside = (begin + prior_kl(trial.x0, last)).flatten(1).mean(1).sum()
            (pull,) = torch.autograd.grad(outside, ends)
        self._pull += pull.to(self._pull)
        return None

    def shared(self) -> list[Tensor]:
        return [self._seen, self._pull]

    def learn(self) -> None:
        gamma, h = self._seen.double().cpu().T
        parts = self._parts
        slopes, heights = parts["slopes"].exp(), parts["heights"].exp()
        ends = parts["ends"].detach()
        t = self.value().time(at_log_snr(-gamma)).clamp(0, 1)
        here, rise = curve(t, ends, slopes, parts["centres"], heights)
        moved = (
            t - (here - gamma) / rise.detach()
        )  # where gamma is, as the shape changes: one step of Newton's
        squares = (rise.detach() * h) ** 2
        _, steep = curve(moved, ends, slopes, parts["centres"], heights)
        self._optimiser.zero_grad()
        (squares / squares.mean().clamp(min=1e-300) * steep.log()).mean().backward()
        pull = self._pull.double().cpu() / len(gamma)
        low, high = ((inside * h).mean() / _EDGE for inside in (t < _EDGE, t > 1 - _EDGE))
        parts["ends"].grad = pull + torch.stack([-low, high])
        self._optimiser.step()
        with torch.no_grad():
            low, high = parts["ends"].clamp(-_WIDEST, _WIDEST)
            parts["ends"].copy_(
                torch.stack([low.clamp(max=_WIDEST - _NARROWEST), high.clamp(min=low + _NARROWEST)])
            )
        self.forget()
        self.model.schedule = self.value()

    def forget(self) -> None:
        self._seen.zero_()
        self._pull.zero_()

    def tensors(self) -> dict[str, Tensor]:
        named = {p: name for name, p in self._parts.items()}
        held = {name: p.detach() for name, p in self._parts.items()}
        return held | state_tensors(self._optimiser, named)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, p in self._parts.items():
                p.copy_(tensors[name])
        named = {p: name for name, p in self._parts.items()}
        restore_state(self._optimiser, named, {k: v for k, v in tensors.items() if k not in self._parts})
        self.forget()
        self.model.schedule = self.value()
