"""A network of a companion's own, which takes a step of Adam with every good step of the model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sfumato.training.optimisers import restore_state, state_tensors


class Learner:
    """The part of a `Companion` that is about its own `network`: it is saved and resumed with the run, and
    learns the same on one process as on several."""

    network: nn.Module

    def settle(self, network: nn.Module, device: torch.device, lr: float, betas: tuple[float, float]) -> None:
        """Called from `begin`: this is the network, and this how it learns."""
        self.network = network.to(device).train()
        self._named = dict(network.named_parameters())
        self._optimiser = torch.optim.Adam(self._named.values(), lr=lr, betas=betas)
        self.learned = torch.zeros((), dtype=torch.int64)
        self.forget()

    def shared(self) -> list[Tensor]:
        return [p.grad for p in self._named.values() if p.grad is not None]

    def learn(self) -> None:
        """The norm of the gradient is held at 1; a gradient that is not finite teaches nothing."""
        norm = nn.utils.clip_grad_norm_(self._named.values(), 1.0)
        if bool(torch.isfinite(norm)):
            self._optimiser.step()
        self.learned += 1
        self.forget()

    def forget(self) -> None:
        """Gradients become 0 and stay, so that every process has all of them to share."""
        for p in self._named.values():
            p.grad = torch.zeros_like(p)

    def tensors(self) -> dict[str, Tensor]:
        own = {f"weights/{name}": value for name, value in self.network.state_dict().items()}
        state = state_tensors(self._optimiser, {p: name for name, p in self._named.items()})
        return own | {f"adam/{name}": value for name, value in state.items()} | {"learned": self.learned}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "adam": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition("/")
            if rest:
                parts[kind][rest] = value
        self.network.load_state_dict(parts["weights"])
        restore_state(self._optimiser, {p: name for name, p in self._named.items()}, parts["adam"])
        self.learned.copy_(tensors["learned"])
        self.forget()
