"""The Inception score (Salimans et al. 2016): how sure a classifier is of each picture, and how varied the
classes of all of them are,

    IS = exp(E KL(p(c | x) || p(c))),   p(c) = E p(c | x)

It knows nothing of the real pictures and of nothing that the classifier was not taught.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation.figure import Figure
from sfumato.evaluation.moments import in_blocks
from sfumato.noise import permutation


def inception_score(logits: Tensor, splits: int = 1, seed: int = 0) -> Figure:
    """The score of pictures with these logits (n, K), and the 95 % interval of its mean over sets of n.

    The error of the mean divergence is that of a mean of KL_i: the derivative through p(c) is zero on average
    over the pictures. `splits` parts by the seed, of which the mean is taken, are for comparison with
    published values (10): each part has n / splits pictures, and fewer pictures score less.

    Raises SettingsError for fewer than 2 pictures in a part.
    """
    if splits < 1 or len(logits) < 2 * splits:
        raise SettingsError(f"{len(logits)} pictures in {splits} splits: give at least 2 for each")
    order = permutation(len(logits), seed, "inception score")
    found = [_score(logits[rows] if splits > 1 else logits) for rows in order.tensor_split(splits)]
    value = sum(score for score, _ in found) / len(found)
    error = math.sqrt(sum(error**2 for _, error in found)) / len(found)
    return Figure.of(value, error, least=1.0)


def _score(logits: Tensor) -> tuple[float, float]:
    """The score and its standard error."""
    total = sum((block.softmax(1).sum(0) for block in in_blocks(logits)), torch.zeros(logits.shape[1]))
    log_mean = (total / len(logits)).log().clamp(min=torch.finfo(torch.float64).min)
    parts: list[Tensor] = []
    for block in in_blocks(logits):
        log_p = block.log_softmax(1)
        parts.append((log_p.exp() * (log_p - log_mean)).sum(1))
    divergence = torch.cat(parts)
    score = math.exp(float(divergence.mean()))
    return score, score * float(divergence.std()) / math.sqrt(len(divergence))
