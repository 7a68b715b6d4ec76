"""A linear probe of an extractor's features, how it errs, and shares of classes that are right all the same.

The probe (Alain & Bengio 2016) is multinomial logistic regression: convex, so it has one answer, found in
seconds. Its errors are measured on pictures that it has not seen and are taken out of the shares: if class i
is judged j with probability C_ij and the classes have shares p, judgements have shares p C; of all p the one
is taken under which the judgements seen are most probable (by EM, as Saerens, Latinne & Decaestecker 2002
adjust outputs to new priors, with the confusion matrix in the place of their posteriors).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation.draws import counted

PENALTY = 1e-2
"""Half of this times the squared weights, on features of variance 1, is added to the mean loss."""
_STEPS = 100
_BLOCK = 8192
_ROUNDS = 1000
_SETTLED = 1e-10


@dataclass(frozen=True)
class LinearProbe:
    """features -> class: the largest of (features - mean) / scale @ weights + offset."""

    mean: Tensor
    scale: Tensor
    weights: Tensor
    offset: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """The class of each, (n,) int64. features (n, D)."""
        parts = [self.logits(part).argmax(1) for part in features.split(_BLOCK)]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)

    def logits(self, features: Tensor) -> Tensor:
        """(n, K) float32."""
        return (features.float() - self.mean) / self.scale @ self.weights + self.offset


def train_probe(features: Tensor, classes: Tensor, count: int) -> LinearProbe:
    """The probe of features (n, D) into `count` classes, (n,) int64. Raises SettingsError for fewer than
    two classes."""
    if count < 2 or len(features) < 2:
        raise SettingsError(f"{count} classes of {len(features)} pictures: at least 2 are told apart")
    x = features.float()
    mean, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale > 1e-6 * scale.max(), scale, 1.0)
    x = (x - mean) / scale
    weights = torch.zeros(x.shape[1], count, requires_grad=True)
    offset = torch.zeros(count, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weights, offset], max_iter=_STEPS, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(x @ weights + offset, classes) + PENALTY / 2 * weights.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    return LinearProbe(mean, scale, weights.detach(), offset.detach())


def confusion(true: Tensor, judged: Tensor, count: int) -> Tensor:
    """P(judged j | class i), (..., K, K) float64, from pictures that the probe has not seen: (..., n) each.

    Each class has one picture more than was seen, judged as pictures of all classes were on average, so that
    a class without any has a row too.
    """
    batch = true.shape[:-1]
    places = (true * count + judged).reshape(-1, true.shape[-1])
    cells = counted(places, count * count).reshape(*batch, count, count).double()
    hits = cells.diagonal(dim1=-2, dim2=-1).sum(-1)
    right = ((hits + 1) / (cells.sum((-2, -1)) + 2))[..., None, None]
    same = torch.eye(count, dtype=torch.float64)
    usual = right * same + (1 - right) / (count - 1) * (1 - same)
    return (cells + usual) / (cells.sum(-1, keepdim=True) + 1)


def corrected(judged: Tensor, errors: Tensor) -> Tensor:
    """The classes' shares, (..., K) float64 adding to 1, under which judgements `judged`, (..., K) counts or
    shares, are most probable, given the `confusion` (..., K, K)."""
    seen = judged.double() / judged.double().sum(-1, keepdim=True)
    shares = seen.clamp(min=1e-3 / seen.shape[-1])
    shares = shares / shares.sum(-1, keepdim=True)
    for _ in range(_ROUNDS):
        told = (shares[..., None, :] @ errors).squeeze(-2)
        ratio = torch.where(seen > 0, seen / told, 0.0)
        better = shares * (errors @ ratio[..., None]).squeeze(-1)
        better = better / better.sum(-1, keepdim=True)
        settled = float((better - shares).abs().max()) < _SETTLED
        shares = better
        if settled:
            break
    return shares
