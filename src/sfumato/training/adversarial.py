"""An adversarial term: a discriminator that learns beside the model to tell its estimates from pictures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sfumato.errors import SettingsError
from sfumato.grids import ends
from sfumato.model import Model
from sfumato.training.learner import Learner
from sfumato.training.objectives import Addable, Trial
from sfumato.training.perceptual import signal


class Adversarial(Learner, Addable):
    """-mean D(x0 estimate), D trained beside by the hinge loss max(0, 1 - D(x0)) + max(0, 1 + D(estimate))
    (Lim & Ye 2017; Miyato et al. 2018, eqs. 16-17); both weighed by `signal`.

    `discriminator`: images (B, C, H, W) -> scores (B, ...), without normalisation over the batch. It takes
    one step of Adam with every good step of the model, is saved and resumed with it, and sees the same
    pictures on one process as on several. The model feels nothing of it at first, and all after `ramp` steps.
    Held-out losses leave the term out, because it is measured by a judge that moves.
    """

    name = "discriminator"

    def __init__(
        self,
        discriminator: nn.Module,
        lr: float = 2e-4,
        ramp: int = 1000,
        betas: tuple[float, float] = (0.5, 0.9),
    ) -> None:
        if not lr > 0 or ramp < 1:
            raise SettingsError(
                f"an adversarial term needs a learning rate above 0 and a ramp of a step or more, not {lr}, "
                f"{ramp}"
            )
        self.discriminator, self.lr, self.ramp, self.betas = discriminator, lr, ramp, betas

    def __call__(self, trial: Trial) -> Tensor:
        share = min(1.0, int(self.learned) / self.ramp)
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        scores: Tensor = functional_call(self.discriminator, frozen, (trial.estimate.x0,))
        loss = -scores.flatten(1).mean(1)
        return share * signal(trial.level, loss) * loss

    def check(self, model: Model) -> None:
        model.check(ends(model.schedule))

    def begin(self, model: Model, batch: int, device: torch.device) -> None:
        self.settle(self.discriminator, device, self.lr, self.betas)

    def watch(self, trial: Trial, losses: Tensor, places: Sequence[int]) -> Tensor | None:
        real = (1 - self.discriminator(trial.x0)).relu().flatten(1).mean(1)
        made = (1 + self.discriminator(trial.estimate.x0.detach())).relu().flatten(1).mean(1)
        return signal(trial.level, real) * (real + made)
