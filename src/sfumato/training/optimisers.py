"""Optimisers: AdamW, and stochastic gradient Langevin dynamics, which samples weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from sfumato.errors import SettingsError
from sfumato.noise import Noise, key_of
from sfumato.training.settings import TrainSettings


class Sgld(Optimizer):
    """w <- w - lr grad + sqrt(2 lr temperature) z (Welling & Teh 2011, eq. 4, with lr = eps/2 and U the
    loss).

    For small lr its stationary density is proportional to exp(-loss / temperature): with the mean loss over N
    samples, temperature 1/N is the posterior. Weight decay is a Gaussian prior: it adds weight_decay w to the
    gradient. The noise is keyed by (seed, step, number of the parameter), so a resumed run draws the same.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        seed: int = 0,
        temperature: float = 1e-5,
        weight_decay: float = 0.0,
    ) -> None:
        if not lr > 0 or not temperature >= 0 or not weight_decay >= 0:
            raise SettingsError(
                "SGLD needs lr > 0, temperature >= 0 and weight decay >= 0, "
                f"not {lr}, {temperature}, {weight_decay}"
            )
        super().__init__(params, {"lr": lr, "temperature": temperature, "weight_decay": weight_decay})
        self.seed = seed

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = None if closure is None else closure()
        number = -1
        for group in self.param_groups:
            lr, decay = group["lr"], group["weight_decay"]
            std = math.sqrt(2 * lr * group["temperature"])
            for p in group["params"]:
                number += 1
                if p.grad is None:
                    continue
                count = self.state[p].setdefault("step", torch.zeros((), dtype=torch.int64))
                p.mul_(1 - lr * decay).sub_(p.grad, alpha=lr)
                draws = Noise((key_of(self.seed, "sgld", int(count)),)).normal(p.shape, number)[0]
                p.add_(draws.to(p), alpha=std)
                count += 1
        return loss


def groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases and norms (fewer than two axes)."""
    listed = list(parameters)
    return [
        {"params": [p for p in listed if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in listed if p.ndim < 2], "weight_decay": 0.0},
    ]


def adamw(
    parameters: Iterable[nn.Parameter],
    lr: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
) -> AdamW:
    """AdamW (Loshchilov & Hutter 2019), fused where torch has it: one pass over the memory in place of a
    dozen."""
    listed = list(parameters)
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in listed)
    return AdamW([g for g in groups(listed, weight_decay) if g["params"]], lr=lr, betas=betas, fused=fused)


def sgld(
    parameters: Iterable[nn.Parameter], lr: float, seed: int, temperature: float, weight_decay: float = 0.0
) -> Sgld:
    """SGLD with weight decay on matrices and kernels only."""
    listed = [g for g in groups(parameters, weight_decay) if g["params"]]
    return Sgld(listed, lr=lr, seed=seed, temperature=temperature)


def chosen(settings: TrainSettings, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimiser that the settings name."""
    decay = float(settings.weight_decay)
    if settings.optimiser == "sgld":
        return sgld(parameters, settings.lr, settings.seed, float(settings.temperature), decay)
    return adamw(parameters, settings.lr, decay)


def set_rate(optimiser: Optimizer, lr: float) -> None:
    """The learning rate of the coming step, for every group."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def state_tensors(optimiser: Optimizer, names: dict[nn.Parameter, str]) -> dict[str, Tensor]:
    """Everything the optimiser remembers, as "parameter/quantity" -> tensor."""
    out: dict[str, Tensor] = {}
    for parameter, name in names.items():
        for quantity, value in optimiser.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                out[f"{name}/{quantity}"] = value
    return out


def restore_state(optimiser: Optimizer, names: dict[nn.Parameter, str], kept: dict[str, Tensor]) -> None:
    """The reverse of `state_tensors`; what is kept is copied, in the layout of its parameter.

    A fused optimiser reads the number of its steps on the parameter's device, others on the CPU.
    """
    optimiser.state.clear()
    fused = {p for group in optimiser.param_groups if group.get("fused") for p in group["params"]}
    by_name = {name: parameter for parameter, name in names.items()}
    for key, value in kept.items():
        name, _, quantity = key.rpartition("/")
        if name not in by_name:
            raise SettingsError(f"the optimiser's state names {name!r}, which this network does not have")
        parameter = by_name[name]
        if value.shape == parameter.shape:
            copy = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        else:
            copy = value.to(parameter.device if parameter in fused else value.device, copy=True)
        optimiser.state[parameter][quantity] = copy
