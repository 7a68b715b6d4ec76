"""The kernel distance of two sets of features (KID, Binkowski et al. 2018):

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),   k(x, y) = (x . y / D + 1)^3

estimated by the U-statistic of all pairs, which is unbiased at any number of pictures (Gretton et al. 2012,
lemma 6). It is 0 on average for sets of one law, and then as often negative as positive.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.errors import SettingsError
from sfumato.evaluation.figure import Figure, jackknife_error

DEGREE = 3
BLOCK = 1024
"""Rows of a block: with D = 2048 two blocks and their kernel hold 42 MB."""


class RowSums(NamedTuple):
    """What every pair contributes, picture by picture, float64. own: sum of k(x_i, x_j) over j other than i,
    (n,); other: sum of k(x_i, y_j) over all j, (n,)."""

    own: Tensor
    other: Tensor


def kid(real: Tensor, generated: Tensor) -> Figure:
    """KID of features (n, D) and (m, D), with the 95 % interval of the distance of their laws.

    The interval is by the jackknife of a two-sample U-statistic (Arvesen 1969). Its values without each
    single picture follow from that picture's sum over its pairs, so it costs nothing beside the value. Where
    both laws are the same the jackknife is too wide, by a factor of up to sqrt 2.

    Raises SettingsError for fewer than 3 pictures of either, and for unlike widths.
    """
    x, y = row_sums(real, generated)
    n, m = len(x.own), len(y.own)
    within_x, within_y, between = x.own.sum(), y.own.sum(), x.other.sum()
    value = within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m)
    without_x = (
        (within_x - 2 * x.own) / ((n - 1) * (n - 2))
        + within_y / (m * (m - 1))
        - 2 * (between - x.other) / ((n - 1) * m)
    )
    without_y = (
        (within_y - 2 * y.own) / ((m - 1) * (m - 2))
        + within_x / (n * (n - 1))
        - 2 * (between - y.other) / (n * (m - 1))
    )
    return Figure.of(float(value), jackknife_error(without_x, without_y))


def row_sums(real: Tensor, generated: Tensor, block: int = BLOCK) -> tuple[RowSums, RowSums]:
    """The sums of all pairs' kernels, block by block; features may be maps on disk."""
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise SettingsError(
            f"features of shapes {tuple(real.shape)} and {tuple(generated.shape)} have no distance: take "
            "both by the same extractor"
        )
    if min(len(real), len(generated)) < 3:
        raise SettingsError(
            f"{len(real)} and {len(generated)} pictures: an error of their kernel distance needs at least 3"
        )
    of_real, of_generated = _between(real, generated, block)
    return RowSums(_within(real, block), of_real), RowSums(_within(generated, block), of_generated)


def _within(features: Tensor, block: int) -> Tensor:
    """The sum of k(x_i, x_j) over j other than i, (n,), each pair computed once."""
    sums = torch.zeros(len(features), dtype=torch.float64)
    for i in range(0, len(features), block):
        x = _rows(features, i, block)
        k = _kernel(x, x)
        sums[i : i + block] += k.sum(1) - k.diagonal()
        for j in range(i + block, len(features), block):
            k = _kernel(x, _rows(features, j, block))
            sums[i : i + block] += k.sum(1)
            sums[j : j + block] += k.sum(0)
    return sums


def _between(first: Tensor, second: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """The sums of k(x_i, y_j) over j, (n,), and over i, (m,)."""
    rows = torch.zeros(len(first), dtype=torch.float64)
    columns = torch.zeros(len(second), dtype=torch.float64)
    for i in range(0, len(first), block):
        x = _rows(first, i, block)
        for j in range(0, len(second), block):
            k = _kernel(x, _rows(second, j, block))
            rows[i : i + block] += k.sum(1)
            columns[j : j + block] += k.sum(0)
    return rows, columns


def _rows(features: Tensor, start: int, block: int) -> Tensor:
    return features[start : start + block].to("cpu", torch.float64)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x . y / D + 1)^3, (n, m)."""
    return (x @ y.T).div_(x.shape[1]).add_(1).pow_(DEGREE)
