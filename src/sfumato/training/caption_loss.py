"""What teaches a text encoder of the model's own directly: to say from a caption alone what is seen.

Through the network an encoder learns slowly, since most of what is to be said of a noisy picture can be said
without its caption, and the rest only as well as the network can draw yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import SettingsError
from sfumato.model import Model
from sfumato.networks.text import TextTransformer
from sfumato.noise import seeded
from sfumato.training.learner import Learner
from sfumato.training.objectives import Trial

SIDE = 16
"""The longest side of a thumbnail."""


class CaptionLoss(Learner):
    """share x mean |head(states, pooled) - thumbnail|^2, of pictures (C, H, W) averaged over areas to at most
    16 x 16: regression on the caption, whose best answer is the mean of the pictures that it fits.

    The gradient moves the model's text encoder, at the model's own rate, and a head of two layers that is
    used nowhere else. A caption that is hidden from the model in this step is hidden here too, so that the
    empty one comes to stand for the mean picture.
    """

    name = "caption"

    def __init__(
        self, width: int, shape: tuple[int, int, int], share: float | int = 1.0, seed: int = 0
    ) -> None:
        """width: of the text encoder; shape: of the pictures."""
        if not share > 0:
            raise SettingsError(f"a caption loss needs a share above 0, not {share}")
        self.share = float(share)
        self.size = min(SIDE, shape[1]), min(SIDE, shape[2])
        numbers = shape[0] * self.size[0] * self.size[1]
        with seeded(seed, "caption head"):
            self.head = nn.Sequential(
                nn.Linear(2 * width, 4 * width), nn.GELU(), nn.Linear(4 * width, numbers)
            )

    def begin(self, model: Model, batch: int, device: torch.device) -> None:
        if not isinstance(model.text, TextTransformer):
            raise SettingsError("a caption loss teaches a text encoder of the model's own: it has none")
        self._encoder = model.text
        self.settle(self.head, device, 1e-3, (0.9, 0.999))

    def watch(self, trial: Trial, losses: Tensor, places: Sequence[int]) -> Tensor | None:
        tokens = torch.as_tensor(trial.told["tokens"])
        states, pooled = self._encoder(tokens)
        said = self.head(torch.cat([states.mean(1), pooled], dim=1))
        thumbnail = F.adaptive_avg_pool2d(trial.x0, self.size).flatten(1)
        return self.share * (said - thumbnail).square().mean(1)
