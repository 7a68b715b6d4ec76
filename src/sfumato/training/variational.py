"""The variational bound as an objective: one term a sample, unbiased for the whole."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sfumato.bound import (
    BYTES,
    Bins,
    Variance,
    bits,
    decoder_nll,
    direct_nll,
    prior_kl,
    rate,
    steepness,
    step_kl,
)
from sfumato.errors import SettingsError
from sfumato.forward import noised
from sfumato.grids import ends
from sfumato.level import Level, spread_on
from sfumato.model import Model
from sfumato.predictions import Estimate, Said
from sfumato.schedules import Schedule
from sfumato.tables import Table
from sfumato.training.objectives import Addable, Trial


@dataclass(frozen=True)
class VariationalBound(Addable):
    """The bound on -log p(x0) in bits per number of a picture, from the one term at the sample's level.

    On a table of T steps that is T times the step's own term (a KL in closed form, or the decoder at the
    first step) plus L_T: with levels drawn evenly its mean is the whole bound (Ho et al. 2020, eq. 5, the
    Rao-Blackwellised form of its appendix A). On a curve with finite ends it is the continuous bound, -d
    log-SNR/dt times `bound.rate`, plus L_T and L_0 (Kingma et al. 2021, eq. 19).

    `variance`: of the reverse steps of a table; learned where the model learns it and small otherwise, if not
    said. `mean` = False lets no gradient through the estimate of x0, so that the bound teaches the variance
    alone: `Denoising() + 0.001 * VariationalBound(mean=False)` is the hybrid of Nichol & Dhariwal (2021, eq.
    16).
    """

    variance: Variance | None = None
    mean: bool = True
    bins: Bins = BYTES

    def __call__(self, trial: Trial) -> Tensor:
        if trial.schedule is None:
            raise SettingsError("the variational bound needs a trial that knows the model's schedule")
        estimate = trial.estimate
        if not self.mean:
            estimate = replace(estimate, said=replace(estimate.said, y=estimate.said.y.detach()))
        if isinstance(trial.schedule, Table):
            nats = self._step(trial.x0, estimate, trial.schedule)
        else:
            nats = self._density(trial, estimate, trial.schedule)
        return bits(nats)

    def _step(self, x0: Tensor, estimate: Estimate, table: Table) -> Tensor:
        kind: Variance = self.variance or ("small" if estimate.spread is None else "learned")
        at = _level(estimate.level, len(x0))
        node = (table.time(at) * table.steps).round()
        terms = torch.zeros(len(x0), dtype=x0.dtype, device=x0.device)
        for rows in ((node > 1).nonzero()[:, 0], (node <= 1).nonzero()[:, 0]):
            if not len(rows):
                continue
            here, part = _rows(estimate, rows), x0[rows.to(x0.device)]
            there = table.level((node[rows] - 1) / table.steps)
            if bool((there.sigma > 0).all()):
                term = step_kl(part, here, there, kind)
            else:
                above = table.level(node.new_tensor(2 / table.steps)) if table.steps > 1 else None
                term = decoder_nll(part, here, kind, above, self.bins)
            terms = terms.index_copy(0, rows.to(terms.device), term.flatten(1).mean(1))
        last = table.level(torch.ones((), dtype=torch.float64))
        return table.steps * terms + prior_kl(x0, last).flatten(1).mean(1)

    def _density(self, trial: Trial, estimate: Estimate, schedule: Schedule) -> Tensor:
        x0, eps = trial.x0, trial.eps
        both = ends(schedule)
        first, last = (Level(both.alpha[i], both.sigma[i]) for i in (0, 1))
        fall = steepness(schedule, schedule.time(trial.level))
        inside = spread_on(fall, x0) * rate(eps, estimate)
        outside = prior_kl(x0, last) + direct_nll(x0, noised(x0, eps, first), first, self.bins)
        return (inside + outside).flatten(1).mean(1)

    def check(self, model: Model) -> None:
        level = ends(model.schedule)
        model.check(level)
        table = isinstance(model.schedule, Table)
        if not table and not bool(torch.isfinite(level.log_snr).all()):
            raise SettingsError(
                f"the bound of {type(model.schedule).__name__} is infinite, because it begins in clean data "
                "or ends in pure noise: train it on a table, or on a schedule of finite log-SNR (LogLinear, "
                "Learned, VE)"
            )
        if self.variance == "learned" and not model.learned_variance:
            raise SettingsError("this model does not learn its variance: choose the small or the large one")
        if model.learned_variance and not table:
            raise SettingsError("a learned variance belongs to the steps of a table: choose such a schedule")


def _level(level: Level, count: int) -> Level:
    """One level for each row."""
    if level.alpha.ndim > 1:
        raise SettingsError("the variational bound needs one level for each picture, not one for each pixel")
    return Level(level.alpha.expand(count), level.sigma.expand(count))


def _rows(estimate: Estimate, rows: Tensor) -> Estimate:
    """The estimates of some rows."""
    said, count, there = estimate.said, len(estimate.x), rows.to(estimate.x.device)
    level, own = _level(estimate.level, count), _level(said.level, count)
    return Estimate(
        estimate.x[there],
        Level(level.alpha[rows], level.sigma[rows]),
        Said(said.x[there], Level(own.alpha[rows], own.sigma[rows]), said.y[there], said.prediction),
        None if estimate.spread is None else estimate.spread[there],
    )
